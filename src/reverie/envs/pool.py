"""Several environments at once: the pool interface, and the pool in this process."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from reverie.envs.episodes import Act, Begin, EpisodeRunner, Moment, Task
from reverie.envs.make import EnvironmentSource
from reverie.errors import ConfigError, EnvironmentProblem
from reverie.spaces import Interface


@dataclass
class Steps:
    """One time step of E environments.

    Attributes:
        observation: `{part name: array [E, ...]}`.
        reward: float32 [E], the reward that arrived with the observation; 0 where `is_first`.
        is_first: bool [E], the observation opens an episode.
        is_last: bool [E], the observation closes an episode, by termination or truncation.
        is_terminal: bool [E], the episode was terminated.
        info: the numbers of the step's info that were asked for, float64 [E] each; NaN where there is none.
    """

    observation: dict[str, NDArray[Any]]
    reward: NDArray[np.float32]
    is_first: NDArray[np.bool_]
    is_last: NDArray[np.bool_]
    is_terminal: NDArray[np.bool_]
    info: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    @staticmethod
    def stack(moments: Sequence[Moment]) -> Steps:
        """Steps of new arrays from one moment of each environment."""
        names = moments[0].observation
        numbers = {name for moment in moments for name in moment.info}
        return Steps(
            {name: np.stack([moment.observation[name] for moment in moments]) for name in names},
            np.array([moment.reward for moment in moments], np.float32),
            np.array([moment.is_first for moment in moments], np.bool_),
            is_last=np.array([moment.is_last for moment in moments], np.bool_),
            is_terminal=np.array([moment.is_terminal for moment in moments], np.bool_),
            info={name: np.array([moment.info.get(name, np.nan) for moment in moments]) for name in sorted(numbers)},
        )


class EnvironmentPool(ABC):
    """E environments that step together, with next-step autoreset and episodes seeded one by one.

    After a step with `is_last` the next `step` ignores that environment's action, begins its next episode and returns
    `is_first` with reward 0. Episode k of environment e always has the same seed, whatever happened before.

    Attributes:
        num_envs: number E of environments.
        interface: observation and action parts, equal for all environments.
        time_limit: steps after which a time limit of Gymnasium truncates episodes, None without one.
        vectorization: `in-process` or `workers`.
        step_seconds: mean time of one environment step if it was measured to choose the vectorization, else None.
    """

    vectorization: Literal["in-process", "workers"]

    def __init__(self, num_envs: int, seed: int) -> None:
        if num_envs < 1:
            raise ConfigError(f"num_envs is {num_envs}, but a pool needs at least 1 environment")
        if seed < 0:
            raise ConfigError(f"the seed is {seed}, but it must be 0 or more")
        self.num_envs = num_envs
        self.seed = seed
        self.interface: Interface
        self.time_limit: int | None = None
        self.step_seconds: float | None = None
        self._episodes = np.zeros(num_envs, np.int64)
        self._ended: NDArray[np.bool_] | None = None

    @property
    def episodes(self) -> NDArray[np.int64]:
        """Index of the current episode of each environment, int64 [E]."""
        return self._episodes.copy()

    @property
    def failed(self) -> bool:
        """Whether the pool can only begin new episodes: its last step was not completed, or there was none yet."""
        return self._ended is None

    def reset(self) -> Steps:
        """Begin episode 0 everywhere, as a new pool does."""
        return self.start_new_episodes(np.zeros(self.num_envs, np.int64))

    def start_new_episodes(self, episodes: NDArray[Any]) -> Steps:
        """Begin the given episodes.

        Args:
            episodes: index of the episode to begin in each environment, int [E].

        Raises:
            EnvironmentProblem: if an environment raises or breaks its contract.
        """
        return self._begin([Begin(int(episode)) for episode in self._checked_episodes(episodes)])

    def restore(self, episodes: NDArray[Any], actions: Sequence[NDArray[np.float32]]) -> Steps:
        """Bring deterministic environments back to where they were.

        Args:
            episodes: index of the current episode of each environment, int [E].
            actions: for each environment the actions taken in that episode so far, float32 [n_e, A].

        Returns:
            The current time step: `is_first` where n_e is 0, otherwise the result of the last action.

        Raises:
            EnvironmentProblem: if an episode ends before its last action, so that the environment is not
                deterministic, or an environment raises or breaks its contract.
        """
        checked = self._checked_episodes(episodes)
        if len(actions) != self.num_envs:
            raise EnvironmentProblem(
                f"restore got the actions of {len(actions)} environments, but the pool has {self.num_envs}"
            )
        width = self.interface.action_width
        return self._begin(
            [
                Begin(int(episode), np.asarray(taken, np.float32).reshape(-1, width))
                for episode, taken in zip(checked, actions, strict=True)
            ]
        )

    def step(self, actions: NDArray[np.float32]) -> Steps:
        """Take one step in every environment; see the class about the ends of episodes.

        Args:
            actions: flat action vectors, float32 [E, A].

        Raises:
            EnvironmentProblem: if the pool was not reset, the actions are not finite or of another shape, or an
                environment raises or breaks its contract.
        """
        ended = self._required_ended()
        actions = np.asarray(actions, np.float32)
        expected = (self.num_envs, self.interface.action_width)
        if actions.shape != expected:
            raise EnvironmentProblem(
                f"the actions have shape {actions.shape}, but the pool takes {expected}: one flat vector per row"
            )
        self._episodes = self._episodes + ended
        return self._run(
            [
                Begin(int(episode)) if begins else Act(action)
                for begins, episode, action in zip(ended, self._episodes, actions, strict=True)
            ]
        )

    def cut_off(self, mask: NDArray[np.bool_]) -> None:
        """Let the next `step` begin new episodes where `mask` [E] is true, as if the last step had ended the old ones.

        Raises:
            EnvironmentProblem: if the pool was not reset, or its last step failed.
        """
        self._ended = self._required_ended() | mask

    @abstractmethod
    def render(self) -> list[NDArray[np.uint8]] | None:
        """The current frame of each environment, or None if the pool was made without `render`."""

    @abstractmethod
    def close(self) -> None:
        """Release the environments; closing twice is fine."""

    @abstractmethod
    def _execute(self, tasks: Sequence[Task]) -> list[Moment]:
        """Carry out one task in each environment."""

    def __enter__(self) -> EnvironmentPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, tasks: Sequence[Begin]) -> Steps:
        self._episodes = np.array([task.episode for task in tasks], np.int64)
        return self._run(tasks)

    def _run(self, tasks: Sequence[Task]) -> Steps:
        self._ended = None
        steps = Steps.stack(self._execute(tasks))
        self._ended = steps.is_last.copy()
        return steps

    def _required_ended(self) -> NDArray[np.bool_]:
        """Where the last step ended an episode, bool [E]."""
        if self._ended is None:
            raise EnvironmentProblem(
                "step was called on a pool that was never reset, or whose last step failed: call reset or "
                "start_new_episodes first"
            )
        return self._ended

    def _checked_episodes(self, episodes: NDArray[Any]) -> NDArray[np.int64]:
        checked = np.asarray(episodes, np.int64)
        if checked.shape != (self.num_envs,) or (checked < 0).any():
            raise EnvironmentProblem(
                f"episodes is {checked.tolist()}, but the pool needs {self.num_envs} indices of 0 or more"
            )
        return checked


class InProcessPool(EnvironmentPool):
    """Steps its environments one after the other in this process: fastest for cheap environments.

    Args:
        source: recipe for the environments.
        num_envs: number E of environments.
        seed: seed of all episodes, 0 or more.
        render: prepare `render()`.
        info: names of numbers of the steps' info to pass on.

    Raises:
        ConfigError: if several environments are wanted of a single object.
    """

    vectorization = "in-process"

    def __init__(
        self,
        source: EnvironmentSource,
        num_envs: int,
        seed: int,
        *,
        render: bool = False,
        info: tuple[str, ...] = (),
    ) -> None:
        super().__init__(num_envs, seed)
        require_copies(source, num_envs)
        self._runners: list[EpisodeRunner] = []
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            for index in range(num_envs):
                self._runners.append(EpisodeRunner(source.make(render=render), seed, index, info=info))
            undo.pop_all()
        self.interface = self._runners[0].adapter.interface
        self.time_limit = self._runners[0].adapter.time_limit

    def render(self) -> list[NDArray[np.uint8]] | None:
        """The current frame of each environment, or None if there are none."""
        frames = [runner.adapter.render() for runner in self._runners]
        complete = [frame for frame in frames if frame is not None]
        return complete if len(complete) == len(frames) else None

    def close(self) -> None:
        """Close the environments."""
        for runner in self._runners:
            runner.adapter.close()
        self._runners = []

    def _execute(self, tasks: Sequence[Task]) -> list[Moment]:
        if not self._runners:
            raise EnvironmentProblem("the pool is closed: make a new one")
        return [runner.run(task) for runner, task in zip(self._runners, tasks, strict=True)]


def processors() -> int:
    """Number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def require_copies(source: EnvironmentSource, num_envs: int) -> None:
    """Refuses several environments from one object.

    Raises:
        ConfigError: says what to pass instead.
    """
    if source.kind == "object" and num_envs > 1:
        raise ConfigError(
            f"num_envs is {num_envs}, but the environment {source.name!r} is a single object: pass an id or a function "
            f"that makes it, or use num_envs=1"
        )
