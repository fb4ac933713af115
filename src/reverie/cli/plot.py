"""reverie plot RUNS: learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from reverie.cli.options import check_output, parse


@dataclass(frozen=True)
class PlotOptions:
    """Draw learning curves: a panel for each task, a color for each group of runs, a band over seeds.

    A group is one agent with one set of settings; only the seed differs, and what does not change learning. The legend
    names what differs between groups.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders, or folders that hold run folders at any depth."""
    output: Path = Path("learning_curves.png")
    """Name of the picture."""
    x: Literal["env_steps", "frames", "updates", "generation"] | None = None
    """What the horizontal axis counts (generation: of world-models); env_steps if not given, or frames with
    published scores."""
    metric: str = "episode/return"
    """Metric to draw; the names are in docs/metrics.md."""
    label: tuple[str, ...] = ()
    """One name for each of RUNS in the same order, to appear in the legend in place of the agent. Runs with different
    names are kept apart. Example: reverie plot runs-before runs-after --label before after"""
    group: tuple[str, ...] = ()
    """Settings that make a group, as config.json names them; runs that differ in others only are pooled, and the
    caption says in which. Examples: --group horizon replay_ratio; --group seed for every run alone; --group agent for
    all runs of an agent together"""
    published: Literal["none", "same", "agents", "all"] = "none"
    """Draw published scores too: those of the same agents, of all agents of the library, or also of baselines."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parse(PlotOptions, "plot", arguments)
    from reverie.errors import ConfigError
    from reverie.training.curves import plot_learning_curves

    if not options.runs:
        raise ConfigError("plot needs at least one run folder: reverie plot runs/*")
    check_output(options.output)
    x = options.x or ("env_steps" if options.published == "none" else "frames")
    runs, published = list(options.runs), options.published
    left_out = plot_learning_curves(
        runs,
        options.output,
        x=x,
        metric=options.metric,
        published=published,
        labels=options.label,
        group_by=options.group or None,
    )
    for empty in left_out:
        print(f"left out: {empty} has no values of {options.metric} yet")
    print(options.output)
    return 0
