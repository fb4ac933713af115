"""The options that describe an environment, for the commands that make one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from reverie.errors import ConfigError

if TYPE_CHECKING:
    from reverie.envs import EnvironmentSource

PYTHON_CONSTANTS = {"True": True, "False": False, "None": None}


@dataclass(frozen=True)
class EnvironmentOptions:
    """An environment."""

    env: str
    """Gymnasium id, e.g. CartPole-v1; `module:Id` imports the module first, also from the current folder."""
    env_kwargs: Annotated[
        tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="KEY=VALUE [KEY=VALUE ...]")
    ] = ()
    """Keyword arguments for the environment, e.g. `--env-kwargs length=7 name=maze`: numbers, true, false, null, lists
    and objects as in JSON, all else as text. May be repeated."""
    pixels: bool = False
    """Observe rendered frames instead of the environment's observations."""
    image_size: int | None = None
    """Resize images to this side, in pixels."""
    action_repeat: int | None = None
    """Environment frames per action; by default as in the agent's paper for its tasks, and 1 for all others."""
    time_limit: int | None = None
    """Truncate episodes after this many frames."""
    part: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME=KIND")] = ()
    """What a part of the observation is where its space does not tell, e.g. `--part map=vector`: image, image:AXES with
    a letter for each axis (t frames, h height, w width, c colors), vector or discrete. Once for each part."""
    ignore: Annotated[
        tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="PART [PART ...]")
    ] = ()
    """Parts of the observation to leave out, e.g. `--ignore mission`. May be repeated."""


def make_source(environment: EnvironmentOptions, agent: str, quiet: bool = False) -> EnvironmentSource:
    """The recipe that the options describe; actions are repeated as in the agent's paper where they do not say."""
    from reverie.agents.registry import action_repeat
    from reverie.envs import EnvironmentSource
    from reverie.envs.extras import look_in_current_folder

    look_in_current_folder(environment.env)
    repeat = environment.action_repeat
    if repeat is None:
        repeat = action_repeat(agent, environment.env)
        if repeat != 1 and not quiet:
            print(f"action repeat     {repeat} as in the paper; --action-repeat 1 for none")
    return EnvironmentSource(
        environment.env,
        environment.pixels,
        environment.image_size,
        action_repeat=repeat,
        time_limit=environment.time_limit,
        kwargs=_keyword_arguments([word for words in environment.env_kwargs for word in words]),
        parts=_parts(environment.part),
        ignore=[name for names in environment.ignore for name in names],
    )


def _parts(words: Sequence[str]) -> dict[str, str]:
    """What `NAME=KIND` words say about the parts of the observation."""
    parts: dict[str, str] = {}
    for word in words:
        name, equals, kind = word.partition("=")
        if not equals or name in parts:
            raise ConfigError(f"--part {word} must be NAME=KIND, once for each part, e.g. --part map=vector")
        parts[name] = kind
    return parts


def _keyword_arguments(words: Sequence[str]) -> dict[str, Any]:
    """The keyword arguments that `KEY=VALUE` words say."""
    arguments: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key.isidentifier() or key in arguments:
            raise ConfigError(f"--env-kwargs {word} must be KEY=VALUE, once for each key, e.g. --env-kwargs length=7")
        arguments[key] = _value(text)
    return arguments


def _value(text: str) -> Any:
    """A JSON value, or one of Python's three constants; everything else is text."""
    if text in PYTHON_CONSTANTS:
        return PYTHON_CONSTANTS[text]
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):  # infinity and NaN are not JSON
        return text
    return value
