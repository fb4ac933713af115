"""reverie evaluate RUN: plays episodes with a trained agent."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reverie.cli.options import parse, with_default_value
from reverie.cli.run_files import print_run_files
from reverie.cli.trained_agent import TrainedAgentOptions, load_agent

if TYPE_CHECKING:
    from reverie.training.evaluation import Evaluation
    from reverie.training.progress import Display


UNNAMED = os.curdir
"""Stands for the name of a video where `--video` has none; a folder is not a name."""


@dataclass(frozen=True)
class EvaluateOptions(TrainedAgentOptions):
    """Play episodes with a trained agent and print their returns."""

    episodes: int = 10
    """Number of episodes."""
    deterministic: bool = False
    """Take most likely latents and actions; by default as in the papers, and as `predict` in Python: DreamerV3 samples
    both, the agents before it sample latents and take the most likely actions."""
    episode_limit: int | None = None
    """Decisions after which an episode is cut off; by default the time limit of the environment, or where it has none
    ten times the longest episode of training, at least 500."""
    video: Path | None = None
    """Write the episodes to a video, ending in .mp4 or .gif; without a name to videos/evaluation.mp4 in the folder. It
    holds at most 6,000 pictures (600 as .gif)."""
    info: tuple[str, ...] | None = None
    """Numbers of the environment's info to print, e.g. `--info success`: those of an episode's last step, averaged over
    episodes; by default those that the run logs."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parse(EvaluateOptions, "evaluate", with_default_value(arguments, "--video", UNNAMED))
    from reverie.dream.film import check_film
    from reverie.errors import ConfigError
    from reverie.training.evaluation import mean_numbers
    from reverie.training.metrics import METRICS_FILE
    from reverie.training.progress import Display

    if options.episodes < 1:
        raise ConfigError(f"episodes must be at least 1, got {options.episodes}")
    folder = options.folder
    video = None if options.video is None else options.video.absolute()
    if options.video == Path(UNNAMED):
        video = folder / "videos" / "evaluation.mp4"
    if video is not None:
        check_film(video)
    with Display("evaluating", options.episodes, unit="episodes", transient=True) as display:
        result = _play(options, video, display)
    for index, (total, length) in enumerate(zip(result.returns, result.lengths, strict=True)):
        print(f"episode {index:>3}   return {total:>10.2f}   length {length:>6}")
    print(f"mean return {result.mean:.2f} ± {result.standard_deviation:.2f} over {len(result.returns)} episodes")
    for name, value in mean_numbers(result.info).items():
        print(f"{name:<17} {value:.4g} in the mean of {len(result.info[name])} episodes")
    if result.cut_off:
        print(f"cut off           {result.cut_off} episodes, after {result.limit:,} decisions")
    if video is not None:
        print(f"video             {video}")
    if (folder / METRICS_FILE).exists():
        print_run_files(folder)
    return 0


def _play(options: EvaluateOptions, video: Path | None, display: Display) -> Evaluation:

    learner = load_agent(options)
    return learner.evaluate(
        options.episodes,
        deterministic=options.deterministic,
        seed=options.seed,
        progress=display.update,
        episode_limit=options.episode_limit,
        watch=display.watch,
        info=options.info,
        video=video,
    )
