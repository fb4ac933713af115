"""reverie watch RUN: the trained agent plays, in a video or in a window."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reverie.cli.options import parse
from reverie.cli.trained_agent import TrainedAgentOptions, load_agent


@dataclass(frozen=True)
class WatchOptions(TrainedAgentOptions):
    """Let a trained agent play, and write that to a video or show it in a window."""

    env_render: Literal["video", "human"] = "video"
    """video writes a file; human opens a window, which Escape closes."""
    output: Path | None = None
    """Name of the video, ending in .mp4 or .gif; videos/play.mp4 in the folder by default. It holds at most 6,000
    pictures (600 as .gif)."""
    episodes: int = 1
    """Number of episodes."""
    deterministic: bool = False
    """Take most likely latents and actions; by default as in the agent's paper."""
    fps: int | None = None
    """Frames per second; by default as the environment's makers meant it."""
    episode_limit: int | None = None
    """Decisions after which an episode is cut off; by default as for `reverie evaluate`."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parse(WatchOptions, "watch", arguments)
    from reverie.dream.film import HUMAN, check_film, no_display
    from reverie.errors import ConfigError
    from reverie.training.progress import Display

    if options.episodes < 1:
        raise ConfigError(f"episodes must be at least 1, got {options.episodes}")
    window = options.env_render == HUMAN
    if window and options.output is not None:
        raise ConfigError(f"a window writes no file: drop --env-render human, or --output {options.output}")
    if window and no_display() and "SDL_VIDEODRIVER" not in os.environ:
        raise ConfigError("there is no display here to open a window on: drop --env-render human to write a video")
    output = options.folder / "videos" / "play.mp4" if options.output is None else options.output.absolute()
    check_film(output, options.fps)
    learner = load_agent(options)
    with Display("playing", options.episodes, unit="episodes", transient=True) as display:
        result = learner.evaluate(
            options.episodes,
            deterministic=options.deterministic,
            seed=options.seed,
            progress=display.update,
            episode_limit=options.episode_limit,
            watch=display.watch,
            video=HUMAN if window else output,
            fps=options.fps,
        )
    for index, (total, length) in enumerate(zip(result.returns, result.lengths, strict=True)):
        print(f"episode {index:>3}   return {total:>10.2f}   length {length:>6}")
    if not window:
        print(f"video             {output}")
    return 0
