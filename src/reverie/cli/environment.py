"""The options that describe an environment, for the commands that make one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from reverie.errors import ConfigError

if TYPE_CHECKING:
    from reverie.envs import EnvironmentSource


@dataclass(frozen=True)
class EnvironmentOptions:
    """An environment."""

    env: str
    """Gymnasium id, e.g. CartPole-v1; `module:Id` imports the module first."""
    pixels: bool = False
    """Observe rendered frames instead of the environment's observations."""
    image_size: int | None = None
    """Resize images to this side, in pixels."""
    action_repeat: int | None = None
    """Environment frames an action; by default as in the agent's paper for its tasks, and 1 for all others."""
    time_limit: int | None = None
    """Truncate episodes after this many frames."""
    part: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME=KIND")] = ()
    """What a part of the observation is where its space does not tell, e.g. `--part map=vector`: image, image:AXES with
    a letter for each axis (t frames, h height, w width, c colors), vector or discrete. Once for each part."""


def make_source(environment: EnvironmentOptions, agent: str, quiet: bool = False) -> EnvironmentSource:
    """The recipe that the options describe; actions are repeated as in the agent's paper where they do not say."""
    from reverie.agents.registry import action_repeat
    from reverie.envs import EnvironmentSource

    repeat = environment.action_repeat
    if repeat is None:
        repeat = action_repeat(agent, environment.env)
        if repeat != 1 and not quiet:
            print(f"action repeat     {repeat} as in the paper; --action-repeat 1 for none")
    return EnvironmentSource(
        environment.env,
        environment.pixels,
        environment.image_size,
        repeat,
        environment.time_limit,
        parts=_parts(environment.part),
    )


def _parts(words: Sequence[str]) -> dict[str, str]:
    """What `NAME=KIND` words say of the parts of the observation."""
    parts: dict[str, str] = {}
    for word in words:
        name, equals, kind = word.partition("=")
        if not equals or name in parts:
            raise ConfigError(f"--part {word} must be NAME=KIND, once for each part, e.g. --part map=vector")
        parts[name] = kind
    return parts
