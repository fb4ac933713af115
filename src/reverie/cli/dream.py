"""reverie dream RUN: an open-loop video, what happened beside what the model dreamed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reverie.cli.options import check_output, parse
from reverie.cli.trained_agent import TrainedAgentOptions, load_agent


@dataclass(frozen=True)
class DreamOptions(TrainedAgentOptions):
    """Play episodes, show the world model their first half, let it imagine the rest, and draw both."""

    length: int = 50
    """Steps of each sequence."""
    sequences: int = 6
    """Number of sequences."""
    output: Path | None = None
    """Name of the video, ending in .mp4 or .gif; videos/dream.mp4 in the folder by default."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parse(DreamOptions, "dream", arguments)
    from reverie.dream.open_loop import check_sequences, save_open_loop
    from reverie.dream.scene import Scene
    from reverie.errors import ConfigError
    from reverie.training.model_files import trained_steps
    from reverie.training.progress import Display

    check_sequences(options.length, options.sequences)
    check_output(options.output)
    if options.output is not None and options.output.suffix not in ("", ".mp4", ".gif"):
        raise ConfigError(f"the video is an MP4 or a GIF, so its name must end in .mp4 or .gif, got {options.output}")
    folder = options.folder
    output = folder / "videos" / "dream.mp4" if options.output is None else options.output.absolute()
    learner = load_agent(options)
    steps = trained_steps(folder, options.checkpoint)
    title = f"{learner.agent_name} on {learner.source.name}" + (f", step {steps:,}" if steps is not None else "")
    with Display("dreaming", options.sequences, unit="sequences", transient=True) as display:
        with display.busy("playing"):
            result = learner.dream(options.length, options.sequences, seed=options.seed, watch=display.watch)
        with display.busy("drawing"):
            paths = save_open_loop(result, output, Scene.of_source(learner.source), title=title)
    for path in paths:
        print(path)
    return 0
