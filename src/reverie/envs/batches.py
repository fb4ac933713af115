"""Batches of observations and actions of a Gymnasium space, as vector environments give and take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector.utils import concatenate, create_empty_array

from reverie.envs.adapter import EnvironmentAdapter
from reverie.envs.wrappers import RenderedObservation
from reverie.errors import ConfigError, EnvironmentProblem


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
        EnvironmentProblem: a part has a different number of observations.
    """
    return [_take(space, value, index, size=size) for index in range(size)]


def _take(space: gymnasium.Space[Any], value: Any, index: int, size: int) -> Any:
    if isinstance(space, gymnasium.spaces.Dict) and isinstance(value, dict):
        return {key: _take(space[key], item, index, size=size) for key, item in value.items() if key in space.spaces}
    if isinstance(space, gymnasium.spaces.Tuple) and isinstance(value, tuple | list):
        return tuple(_take(member, item, index, size=size) for member, item in zip(space.spaces, value, strict=True))
    if len(value) != size:
        raise EnvironmentProblem(f"a part of the batch has {len(value)} observations, but the first one has {size}")
    return value[index]


def join_batch(space: gymnasium.Space[Any], values: Sequence[Any]) -> Any:
    """Single actions as one batch: arrays [N, ...] in the structure of the space."""
    empty: Any = create_empty_array(space, len(values))
    return concatenate(space, values, empty)


def encode_batch(translator: EnvironmentAdapter, observation: Any) -> tuple[int | None, dict[str, np.ndarray]]:
    """Part arrays of one observation or of a batch, as an environment gives them.

    Args:
        translator: from `EnvironmentSource.translator`.
        observation: one observation, or arrays [N, ...] in the structure of its space; frames where those are observed.

    Returns:
        N, or None for a single observation, and arrays [N or 1, ...] by the names of the parts.

    Raises:
        EnvironmentProblem: an observation does not fit its space.
        ConfigError: the batch is empty.
    """
    environment = translator.environment
    rendered = isinstance(environment, RenderedObservation)
    space = environment.observation_space if rendered else environment.unwrapped.observation_space
    count = batch_size(space, observation)
    single = [observation] if count is None else split_batch(space, observation, count)
    if not single:
        raise ConfigError("the batch of observations is empty; give at least one")
    encoded = [translator.encode_observation(one) for one in single]
    return count, {name: np.stack([one[name] for one in encoded]) for name in encoded[0]}


def encode_actions(translator: EnvironmentAdapter, actions: Any, count: int) -> list[np.ndarray]:
    """Flat vectors, float32 [A], of a batch of actions.

    Raises:
        ConfigError: there are not `count` actions.
    """
    space = translator.environment.action_space
    if batch_size(space, actions) != count:
        raise ConfigError(f"there are {count} observations, but not as many actions; give one for each")
    return [translator.encode_action(action) for action in split_batch(space, actions, count)]
