"""What a saved agent has in place of its environment: spaces as plain JSON, and two stand-ins.

With them it translates observations and actions where the environment is not installed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from reverie.errors import ConfigError, EnvironmentProblem


class UnreadableSpace(gymnasium.Space[Any]):
    """A space of a kind that no agent reads, such as text; only its kind is known."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def __repr__(self) -> str:
        return self.kind


def space_to_json(space: gymnasium.Space[Any]) -> dict[str, Any]:
    """A space as plain JSON types; of one that no agent reads only the kind is kept."""
    if isinstance(space, spaces.Box):
        bounds = {"low": _bounds_to_json(space.low), "high": _bounds_to_json(space.high)}
        return {"kind": "Box", "shape": list(space.shape), "dtype": str(space.dtype), **bounds}
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start), "dtype": str(space.dtype)}
    if isinstance(space, spaces.MultiDiscrete):
        sizes = {"nvec": space.nvec.tolist(), "start": space.start.tolist()}
        return {"kind": "MultiDiscrete", "dtype": str(space.dtype), **sizes}
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "MultiBinary", "shape": list(space.shape)}
    if isinstance(space, spaces.Dict):
        return {"kind": "Dict", "members": {str(key): space_to_json(member) for key, member in space.spaces.items()}}
    if isinstance(space, spaces.Tuple):
        return {"kind": "Tuple", "members": [space_to_json(member) for member in space.spaces]}
    return {"kind": type(space).__name__}


def space_from_json(data: Mapping[str, Any]) -> gymnasium.Space[Any]:
    """Inverse of `space_to_json`.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: the data does not describe a space.
    """
    kind = data["kind"]
    if kind == "Box":
        shape, dtype = tuple(data["shape"]), np.dtype(data["dtype"])
        low, high = (_bounds_from_json(data[name], shape, dtype) for name in ("low", "high"))
        return spaces.Box(low, high, shape, dtype.type)
    if kind == "Discrete":
        return spaces.Discrete(data["n"], start=data["start"], dtype=np.dtype(data["dtype"]).type)
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(data["nvec"], dtype=np.dtype(data["dtype"]).type, start=data["start"])
    if kind == "MultiBinary":
        return spaces.MultiBinary(data["shape"])
    if kind == "Dict":
        return spaces.Dict({key: space_from_json(member) for key, member in data["members"].items()})
    if kind == "Tuple":
        return spaces.Tuple([space_from_json(member) for member in data["members"]])
    return UnreadableSpace(str(kind))


def _bounds_to_json(bounds: np.ndarray) -> Any:
    """One number where all are equal, otherwise nested lists; infinity as text, which JSON has no number for."""
    plain = (
        bounds.reshape(-1)[:1].item() if bounds.size and (bounds == bounds.reshape(-1)[0]).all() else bounds.tolist()
    )
    return _without_infinity(plain)


def _without_infinity(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_infinity(item) for item in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def _bounds_from_json(data: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Bounds of a Box, [*shape]."""
    read = np.asarray(data, np.float64 if dtype.kind == "f" else None)
    return np.broadcast_to(read.astype(dtype), shape).copy()


class SpacesOnly(gymnasium.Env[Any, Any]):
    """Has the spaces of an environment, and cannot be played.

    Args:
        observation: the observation space.
        action: the action space.
    """

    metadata = {"render_modes": ["rgb_array"]}
    render_mode = "rgb_array"

    def __init__(self, observation: gymnasium.Space[Any], action: gymnasium.Space[Any]) -> None:
        self.observation_space, self.action_space = observation, action

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Refuses: there is no environment.

        Raises:
            EnvironmentProblem: always.
        """
        raise EnvironmentProblem("only the spaces of the environment are there, not the environment itself")

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """See `reset`."""
        raise EnvironmentProblem("only the spaces of the environment are there, not the environment itself")


def spaces_of(environment: gymnasium.Env[Any, Any]) -> dict[str, Any]:
    """Both spaces as JSON."""
    return {
        "observation": space_to_json(environment.observation_space),
        "action": space_to_json(environment.action_space),
    }


class AbsentEnvironment:
    """Stands for a function or an object that no file can hold; making it says what is needed.

    Args:
        name: of the environment.
        sentence: what to say.
    """

    def __init__(self, name: str, sentence: str) -> None:
        self.__module__, _, self.__qualname__ = name.rpartition(".")
        self._sentence = sentence

    def __call__(self, **_: Any) -> gymnasium.Env[Any, Any]:
        """Refuses.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(self._sentence)
