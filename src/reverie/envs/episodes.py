"""Seeded episodes of one environment: the piece that every pool runs, in this process or in a worker."""

from __future__ import annotations

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
    """

    observation: dict[str, NDArray[Any]]
    reward: float
    is_first: bool
    is_last: bool
    is_terminal: bool


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
    """

    def __init__(self, adapter: EnvironmentAdapter, seed: int, environment_index: int) -> None:
        self.adapter = adapter
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
        moment = Moment(self.adapter.reset(seed), 0.0, True, False, False)
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
        observation, reward, terminated, truncated, _ = self.adapter.step(action)
        return Moment(observation, float(reward), False, terminated or truncated, terminated)
