"""Batches of observations and actions of a Gymnasium space, as vector environments give and take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector.utils import concatenate, create_empty_array

from reverie.errors import EnvironmentProblem


def batch_size(space: gymnasium.Space[Any], value: Any) -> int | None:
    """How many observations a value holds; None if it is a single one.

    It is a batch if its arrays have one axis more than those of the space.

    Args:
        space: of one observation; a Dict or Tuple is looked into.
        value: an observation, or arrays [N, ...] in the structure of the space.
    """
    while isinstance(space, gymnasium.spaces.Dict | gymnasium.spaces.Tuple):
        keys: Sequence[Any] = (
            list(space.spaces) if isinstance(space, gymnasium.spaces.Dict) else range(len(space.spaces))
        )
        try:
            key = keys[0]
            space, value = space[key], value[key]
        except (LookupError, TypeError):
            return None
    shape = np.shape(value)
    return shape[0] if space.shape is not None and len(shape) == len(space.shape) + 1 else None


def split_batch(space: gymnasium.Space[Any], value: Any, size: int) -> list[Any]:
    """The single observations of a batch.

    Raises:
        EnvironmentProblem: a part has another number of observations.
    """
    return [_take(space, value, index, size) for index in range(size)]


def _take(space: gymnasium.Space[Any], value: Any, index: int, size: int) -> Any:
    if isinstance(space, gymnasium.spaces.Dict) and isinstance(value, dict):
        return {key: _take(space[key], item, index, size) for key, item in value.items() if key in space.spaces}
    if isinstance(space, gymnasium.spaces.Tuple) and isinstance(value, tuple | list):
        return tuple(_take(member, item, index, size) for member, item in zip(space.spaces, value, strict=True))
    if len(value) != size:
        raise EnvironmentProblem(f"a part of the batch has {len(value)} observations, but the first one has {size}")
    return value[index]


def join_batch(space: gymnasium.Space[Any], values: Sequence[Any]) -> Any:
    """Single actions as one batch: arrays [N, ...] in the structure of the space."""
    empty: Any = create_empty_array(space, len(values))
    return concatenate(space, values, empty)
