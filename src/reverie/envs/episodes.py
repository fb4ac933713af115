"""Seeded episodes of one environment: the piece that every pool runs, in this process or in a worker."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reverie.envs.adapter import EnvironmentAdapter
from reverie.errors import EnvironmentProblem


class Moment(NamedTuple):
    """What one environment shows at one time step.

    Attributes:
        observation: `{part name: array}`.
        reward: the reward that arrived with the observation; 0 where `is_first`.
        is_first: the observation opens an episode.
        is_last: the observation closes an episode, by termination or truncation.
        is_terminal: the episode was terminated, so nothing of value follows.
        info: the numbers of the step's info that were asked for; NaN where it has no such number.
    """

    observation: dict[str, NDArray[Any]]
    reward: float
    is_first: bool
    is_last: bool
    is_terminal: bool
    info: Mapping[str, float] = {}


@dataclass(frozen=True)
class Begin:
    """The task to begin an episode and, optionally, to replay its first actions.

    Attributes:
        episode: index of the episode.
        actions: float32 [n, A], applied one after the other, or None.
    """

    episode: int
    actions: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Act:
    """The task to take one step.

    Attributes:
        action: flat action vector, float32 [A].
    """

    action: NDArray[np.float32]


Task = Begin | Act


def episode_seed(seed: int, environment_index: int, episode: int) -> int:
    """Seed of one episode: 31 bits that depend on nothing but the three numbers, each 0 or more."""
    sequence = np.random.SeedSequence((int(seed), int(environment_index), int(episode)))
    return int(sequence.generate_state(1, np.uint32)[0]) & 0x7FFF_FFFF


class EpisodeRunner:
    """Runs tasks on one environment, seeding every episode on its own.

    Args:
        adapter: the environment.
        seed: seed of the pool.
        environment_index: index of the environment within the pool.
        info: names of numbers of the step's info to pass on; see `info_number`.
    """

    def __init__(
        self, adapter: EnvironmentAdapter, seed: int, environment_index: int, info: tuple[str, ...] = ()
    ) -> None:
        self.adapter = adapter
        self._info = info
        self._seed = seed
        self._environment_index = environment_index

    def run(self, task: Task) -> Moment:
        """Carry out a task and return what the environment shows afterwards.

        Raises:
            EnvironmentProblem: if the environment raises or breaks its contract, or if replayed actions end the
                episode early, which a deterministic environment does not do.
        """
        if isinstance(task, Act):
            return self._act(task.action)
        seed = episode_seed(self._seed, self._environment_index, task.episode)
        moment = Moment(self.adapter.reset(seed), 0.0, True, is_last=False, is_terminal=False)
        actions = () if task.actions is None else task.actions
        for index, action in enumerate(actions):
            if moment.is_last:
                raise EnvironmentProblem(
                    f"episode {task.episode} of {self.adapter.name} ended after {index} of {len(actions)} replayed "
                    f"actions, so the environment is not deterministic given its seed: start new episodes instead"
                )
            moment = self._act(action)
        return moment

    def _act(self, action: NDArray[np.float32]) -> Moment:
        observation, reward, terminated, truncated, info = self.adapter.step(action)
        numbers = {name: info_number(info, name) for name in self._info}
        return Moment(
            observation, float(reward), False, is_last=terminated or truncated, is_terminal=terminated, info=numbers
        )


def info_number(info: Any, name: str) -> float:
    """A number of an environment's info; NaN where it has none of that name, or something that is not a finite number.

    Args:
        info: what `step` returned.
        name: its key, or the keys of nested dictionaries joined by `/`.
    """
    value = info
    keys = [name] if isinstance(info, Mapping) and name in info else name.split("/")
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    try:
        array = np.asarray(value)
        number = float(array.reshape(-1)[0]) if array.dtype.kind in "fiub" and array.size == 1 else math.nan
    except (TypeError, ValueError, OverflowError, RuntimeError):  # a tensor that is elsewhere, or wants gradients
        return math.nan
    return number if math.isfinite(number) else math.nan


def info_numbers(info: Any) -> list[str]:
    """The names, for `info_number`, of all numbers of an environment's info, in the order of the names."""
    if not isinstance(info, Mapping):
        return []
    nested = [f"{key}/{name}" for key, value in info.items() for name in info_numbers(value)]
    return sorted(nested + [str(key) for key in info if not math.isnan(info_number(info, str(key)))])
