"""Leaving parts out of observations: those that the user names, and those that no agent can read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import gymnasium

from reverie.envs.images import part_names, said_kind
from reverie.envs.space_tree import Path, children, join_path, leaves
from reverie.errors import ConfigError

READABLE_SPACES = (
    gymnasium.spaces.Box,
    gymnasium.spaces.Discrete,
    gymnasium.spaces.MultiDiscrete,
    gymnasium.spaces.MultiBinary,
)


class WithoutParts(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Leaves parts out of the observation.

    The other parts keep their names: a Tuple that loses members becomes a Dict whose keys are the positions of those
    that stay.

    Args:
        env: the environment.
        paths: the leaves of its observation space to leave out; not all of them.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], paths: Collection[Path]) -> None:
        super().__init__(env)
        self._paths = frozenset(paths)
        space = self._reduced(env.observation_space, ())
        assert space is not None
        self.observation_space = space

    def observation(self, observation: Any) -> Any:
        """The observation without the parts; one that has lost them already stays as it is."""
        return self._without(self.env.observation_space, observation, ())

    converted = observation

    def _reduced(self, space: gymnasium.Space[Any], path: Path) -> gymnasium.Space[Any] | None:
        """The space without the parts, the same object if it has none of them, None if nothing is left of it."""
        members = children(space)
        if members is None:
            return None if path in self._paths else space
        reduced = {key: self._reduced(member, (*path, key)) for key, member in members}
        if all(reduced[key] is member for key, member in members):
            return space
        kept = {str(key): member for key, member in reduced.items() if member is not None}
        return gymnasium.spaces.Dict(kept) if kept else None

    def _without(self, space: gymnasium.Space[Any], value: Any, path: Path) -> Any:
        """The value of the reduced space; one that does not fit its space is left for the codec to refuse."""
        if self._reduced(space, path) is space:
            return value
        members = children(space) or []
        if isinstance(space, gymnasium.spaces.Tuple) and isinstance(value, tuple | list) and len(value) == len(members):
            value = dict(enumerate(value))
        elif not isinstance(space, gymnasium.spaces.Dict) or not isinstance(value, dict):
            return value
        known = dict(members)
        kept: dict[str, Any] = {}
        for key, item in value.items():
            if key not in known:
                kept[key] = item
            elif self._reduced(known[key], (*path, key)) is not None:
                kept[str(key)] = self._without(known[key], item, (*path, key))
        return kept


def without_parts(
    environment: gymnasium.Env[Any, Any], ignore: Collection[str] = (), parts: Mapping[str, str] | None = None
) -> tuple[gymnasium.Env[Any, Any], str | None]:
    """The environment without the parts that are to be ignored and those that no agent can read.

    What cannot be read stays, to be refused by name, where it is all there is or the user says what it is.

    Args:
        environment: the environment.
        ignore: names of parts, or of a Dict or Tuple with all parts below it.
        parts: what the user says about parts, as for `ObservationCodec`.

    Returns:
        The environment, wrapped if something is left out; and what to warn about, if it was not asked for.

    Raises:
        ConfigError: `ignore` names a part that is not there, or all parts.
    """
    spaces = dict(leaves(environment.observation_space))
    dropped = {path for name in ignore for path in _named(name, spaces)}
    if dropped and len(dropped) == len(spaces):
        raise ConfigError(f"ignore names all parts of the observation, {', '.join(ignore)}: leave at least one")
    unreadable = [
        path
        for path, space in spaces.items()
        if path not in dropped and not isinstance(space, READABLE_SPACES) and said_kind(parts or {}, path) is None
    ]
    if len(dropped) + len(unreadable) == len(spaces):
        unreadable = []
    if not dropped and not unreadable:
        return environment, None
    return WithoutParts(environment, {*dropped, *unreadable}), _notice(unreadable, spaces) if unreadable else None


def _named(name: str, spaces: Mapping[Path, gymnasium.Space[Any]]) -> list[Path]:
    """The leaves that a name to be ignored means."""
    found = [
        path for path in spaces if any(known == name or known.startswith(f"{name}/") for known in part_names(path))
    ]
    if not found:
        raise ConfigError(
            f"ignore names the part {name!r}, but the parts of the observation are "
            f"{', '.join(part_names(path)[0] for path in spaces)}"
        )
    return found


def _notice(paths: list[Path], spaces: Mapping[Path, gymnasium.Space[Any]]) -> str:
    names = [join_path(path) for path in paths]
    listed = ", ".join(f"{name!r} ({type(spaces[path]).__name__})" for name, path in zip(names, paths, strict=True))
    return (
        f"no agent can read {listed} in the observation, so the agent does without; wrap the environment to turn it "
        f"into numbers, or leave it out without this warning with --ignore {' '.join(names)} (ignore={names})"
    )
