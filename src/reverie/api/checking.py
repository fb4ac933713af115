"""Checking an environment before training in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from reverie.agents.registry import action_repeat as paper_repeat
from reverie.api.learner import Environment
from reverie.envs import EnvironmentSource
from reverie.training.environment_check import EnvironmentReport, check_environment
from reverie.typed_values import checked_arguments


@checked_arguments
def check(
    environment: Environment,
    *,
    agent: str = "dreamer-v3",
    preset: str | None = None,
    pixels: bool = False,
    image_size: int | tuple[int, int] | None = None,
    action_repeat: int | None = None,
    time_limit: int | None = None,
    parts: Mapping[str, str] | None = None,
    ignore: Collection[str] = (),
    steps: int = 2_000,
    seconds: float = 10.0,
    seed: int = 0,
    estimate: bool = True,
    device: str = "auto",
) -> EnvironmentReport:
    """What an agent will meet in an environment: parts, speed, the first fault, episodes, and what a run will cost.

    >>> print(reverie.check("CartPole-v1"))

    Args:
        environment: as for an agent's class; an `EnvironmentSource` is used as it is.
        agent: whose run is estimated.
        preset: of that run; by default as in training.
        pixels: observe rendered frames.
        image_size: resize images to this side, or (height, width).
        action_repeat: environment frames per decision; by default as in the agent's paper.
        time_limit: truncate episodes after this many frames.
        parts: name of an observation part -> what it is, where its space does not tell.
        ignore: names of observation parts to leave out.
        steps: of random play, at most.
        seconds: that it takes, at most, except for the time of a single step.
        seed: of episodes and actions.
        estimate: estimate what a run will take; that times two updates of the agent.
        device: of the estimated run: auto, cpu, cuda or cuda:N.

    Returns:
        The report; `report.ok` says whether an agent can be trained, `report.fault` is the first fault or None.

    Raises:
        ReverieError: the environment cannot be made, no agent can handle its spaces, or an option is out of range.
    """
    if not isinstance(environment, EnvironmentSource):
        if action_repeat is None:
            action_repeat = paper_repeat(agent, environment)
        environment = EnvironmentSource(
            environment,
            pixels,
            image_size,
            action_repeat=action_repeat,
            time_limit=time_limit,
            parts=parts or {},
            ignore=ignore,
        )
    return check_environment(
        environment,
        agent=agent,
        preset=preset,
        steps=steps,
        seconds=seconds,
        seed=seed,
        estimate=estimate,
        device=device,
    )
