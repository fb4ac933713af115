"""reverie check ENV: what an agent will meet in an environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from reverie.cli.environment import EnvironmentOptions, make_source
from reverie.cli.options import parse


@dataclass(frozen=True)
class CheckOptions(EnvironmentOptions):
    """Play at random in an environment, and report what an agent will meet there and what a run will cost."""

    env: Annotated[str, tyro.conf.Positional]
    """Gymnasium id, e.g. CartPole-v1; `module:Id` imports the module first."""
    agent: str = "dreamer-v3"
    """Agent whose run is estimated."""
    preset: str | None = None
    """Preset of that run; by default quick on a CPU and paper on a GPU."""
    steps: int = 2_000
    """Steps of random play, at most."""
    seconds: float = 10.0
    """Seconds of random play, at most."""
    seed: int = 0
    """Seed of episodes and actions."""
    estimate: bool = True
    """Estimate time and memory of a run; that times two updates."""
    device: str = "auto"
    """Device of that run: auto, cpu, cuda or cuda:N."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns the exit code: 2 if the environment has a fault that training would end with."""
    options = parse(CheckOptions, "check", _without_env(arguments))
    from reverie.agents.registry import config_class
    from reverie.training.environment_check import check_environment
    from reverie.training.progress import Display

    config_class(options.agent)
    source = make_source(options, options.agent)
    with Display(f"checking {source.name}", options.steps, transient=True) as display:
        report = check_environment(
            source,
            agent=options.agent,
            preset=options.preset,
            steps=options.steps,
            seconds=options.seconds,
            seed=options.seed,
            estimate=options.estimate,
            device=options.device,
            progress=display.update,
        )
    print(report)
    return 0 if report.ok else 2


def _without_env(arguments: Sequence[str]) -> list[str]:
    """The words with `--env ID`, as `reverie train` takes it, for `ID`."""
    return [word.removeprefix("--env=") for word in arguments if word != "--env"]
