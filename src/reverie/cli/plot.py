"""reverie plot RUNS: learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from reverie.cli.options import parse


@dataclass(frozen=True)
class PlotOptions:
    """Draw learning curves: a panel a task, a colour an agent, a band over seeds."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders, or folders that hold run folders at any depth."""
    output: Path = Path("learning_curves.png")
    """Name of the picture."""
    x: Literal["env_steps", "frames", "updates"] = "env_steps"
    """What the horizontal axis counts."""
    metric: str = "episode/return"
    """Metric to draw; the names are in docs/metrics.md."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parse(PlotOptions, "plot", arguments)
    from reverie.errors import ConfigError
    from reverie.training.curves import plot_learning_curves

    if not options.runs:
        raise ConfigError("plot needs at least one run folder: reverie plot runs/*")
    for empty in plot_learning_curves(list(options.runs), options.output, x=options.x, metric=options.metric):
        print(f"left out: {empty} has no values of {options.metric} yet")
    print(options.output)
    return 0
