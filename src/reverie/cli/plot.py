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
    x: Literal["env_steps", "frames", "updates", "generation"] | None = None
    """What the horizontal axis counts (generation: of world-models); env_steps if not given, or frames with
    published scores."""
    metric: str = "episode/return"
    """Metric to draw; the names are in docs/metrics.md."""
    published: Literal["none", "same", "agents", "all"] = "none"
    """Draw published scores too: those of the same agents, of all agents of the library, or also of baselines."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parse(PlotOptions, "plot", arguments)
    from reverie.errors import ConfigError
    from reverie.training.curves import plot_learning_curves

    if not options.runs:
        raise ConfigError("plot needs at least one run folder: reverie plot runs/*")
    x = options.x or ("env_steps" if options.published == "none" else "frames")
    runs, published = list(options.runs), options.published
    for empty in plot_learning_curves(runs, options.output, x=x, metric=options.metric, published=published):
        print(f"left out: {empty} has no values of {options.metric} yet")
    print(options.output)
    return 0
