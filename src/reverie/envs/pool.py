"""Several environments at once: the pool interface, the pool in this process, and the choice between pools."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray

from reverie.envs.episodes import Act, Begin, EpisodeRunner, Moment, Task, episode_seed
from reverie.envs.make import EnvironmentSource, as_source
from reverie.envs.spaces import random_action
from reverie.errors import ConfigError, EnvironmentProblem
from reverie.spaces import Interface

Vectorization = Literal["auto", "in-process", "workers"]

# Worker processes cost about 0.3 ms a step for talking. Measured with Gymnasium's on 4 cores (specs/envs.md, section
# 2), they make environments with steps below 0.25 ms slower (CartPole 20 times) and those above 5 ms (CarRacing, pixel
# dm_control) about twice as fast; 1 ms lies between.
WORKER_THRESHOLD_SECONDS = 1e-3
MEASURED_STEPS = 20
# Cheap environments are measured for longer, so that one hiccup of the machine does not count for much.
MEASURING_SECONDS = 0.05
MEASURING_LIMIT_SECONDS = 2.0


@dataclass
class Steps:
    """One time step of E environments.

    Attributes:
        observation: `{part name: array [E, ...]}`.
        reward: float32 [E], the reward that arrived with the observation; 0 where `is_first`.
        is_first: bool [E], the observation opens an episode.
        is_last: bool [E], the observation closes an episode, by termination or truncation.
        is_terminal: bool [E], the episode was terminated.
    """

    observation: dict[str, NDArray[Any]]
    reward: NDArray[np.float32]
    is_first: NDArray[np.bool_]
    is_last: NDArray[np.bool_]
    is_terminal: NDArray[np.bool_]

    @staticmethod
    def stack(moments: Sequence[Moment]) -> Steps:
        """Steps of new arrays from one moment of each environment."""
        names = moments[0].observation
        return Steps(
            {name: np.stack([moment.observation[name] for moment in moments]) for name in names},
            np.array([moment.reward for moment in moments], np.float32),
            np.array([moment.is_first for moment in moments], np.bool_),
            np.array([moment.is_last for moment in moments], np.bool_),
            np.array([moment.is_terminal for moment in moments], np.bool_),
        )


class EnvironmentPool(ABC):
    """E environments that step together, with next-step autoreset and episodes seeded one by one.

    After a step with `is_last` the next `step` ignores that environment's action, begins its next episode and returns
    `is_first` with reward 0. Episode k of environment e always has the same seed, whatever happened before.

    Attributes:
        num_envs: number E of environments.
        interface: observation and action parts, equal for all environments.
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
        self.step_seconds: float | None = None
        self._episodes = np.zeros(num_envs, np.int64)
        self._ended: NDArray[np.bool_] | None = None

    @property
    def episodes(self) -> NDArray[np.int64]:
        """Index of the current episode of each environment, int64 [E]."""
        return self._episodes.copy()

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
            The current time step: `is_first` where n_e is 0, otherwise what the last action led to.

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
        if self._ended is None:
            raise EnvironmentProblem(
                "step was called on a pool that was never reset, or whose last step failed: call reset or "
                "start_new_episodes first"
            )
        actions = np.asarray(actions, np.float32)
        expected = (self.num_envs, self.interface.action_width)
        if actions.shape != expected:
            raise EnvironmentProblem(
                f"the actions have shape {actions.shape}, but the pool takes {expected}: one flat vector a row"
            )
        self._episodes = self._episodes + self._ended
        return self._run(
            [
                Begin(int(episode)) if ended else Act(action)
                for ended, episode, action in zip(self._ended, self._episodes, actions, strict=True)
            ]
        )

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

    Raises:
        ConfigError: if several environments are wanted of a single object.
    """

    vectorization = "in-process"

    def __init__(self, source: EnvironmentSource, num_envs: int, seed: int, *, render: bool = False) -> None:
        super().__init__(num_envs, seed)
        _require_copies(source, num_envs)
        self._runners = [EpisodeRunner(source.make(render=render), seed, index) for index in range(num_envs)]
        self.interface = self._runners[0].adapter.interface

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


def make_pool(
    source: EnvironmentSource | str | gymnasium.Env[Any, Any] | Callable[..., gymnasium.Env[Any, Any]],
    num_envs: int,
    seed: int,
    vectorization: Vectorization = "auto",
    *,
    render: bool = False,
    num_workers: int | None = None,
    timeout: float | None = None,
) -> EnvironmentPool:
    """Make a pool of environments.

    Args:
        source: recipe for the environments, or an id, a function or an environment.
        num_envs: number E of environments.
        seed: seed of all episodes, 0 or more.
        vectorization: `in-process`, `workers`, or `auto`, which times a few steps and takes workers if a step takes
            longer than 1 ms and there is more than one environment and processor. The pool's `vectorization` and
            `step_seconds` tell the outcome.
        render: prepare `pool.render()`.
        num_workers: number of worker processes; by default one a processor and at most one an environment.
        timeout: seconds after which a worker that does not answer is restarted; by default never.

    Raises:
        ConfigError: if the settings do not fit together.
        EnvironmentProblem: if the environment cannot be made or breaks its contract.
        SpaceError: if one of its spaces is not supported.
    """
    source = as_source(source)
    if vectorization not in ("auto", "in-process", "workers"):
        raise ConfigError(f"vectorization is {vectorization!r}, but it must be 'auto', 'in-process' or 'workers'")
    _require_copies(source, num_envs)
    seconds: float | None = None
    chosen = vectorization
    if vectorization == "auto":
        chosen = "in-process"
        if num_envs > 1 and processors() > 1 and os.name == "posix":
            seconds = measure_step_seconds(source, seed)
            chosen = "workers" if seconds > WORKER_THRESHOLD_SECONDS else "in-process"
    pool: EnvironmentPool
    if chosen == "workers":
        from reverie.envs.worker_pool import WorkerPool

        pool = WorkerPool(source, num_envs, seed, render=render, num_workers=num_workers, timeout=timeout)
    else:
        pool = InProcessPool(source, num_envs, seed, render=render)
    pool.step_seconds = seconds
    return pool


def measure_step_seconds(source: EnvironmentSource, seed: int) -> float:
    """Mean time in seconds of a random step of one environment, resets between episodes included."""
    adapter = source.make()
    try:
        generator = np.random.default_rng(seed)
        adapter.reset(episode_seed(seed, 0, 0))
        # The first step often loads or compiles something, so it does not count.
        ended = _random_step_ends(adapter, generator)
        taken = 0
        begin = time.perf_counter()
        elapsed = 0.0
        while elapsed < MEASURING_LIMIT_SECONDS and (taken < MEASURED_STEPS or elapsed < MEASURING_SECONDS):
            if ended:
                adapter.reset(episode_seed(seed, 0, taken + 1))
            ended = _random_step_ends(adapter, generator)
            taken += 1
            elapsed = time.perf_counter() - begin
        return elapsed / taken
    finally:
        adapter.close()


def processors() -> int:
    """Number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _random_step_ends(adapter: Any, generator: np.random.Generator) -> bool:
    _, _, terminated, truncated, _ = adapter.step(random_action(adapter.interface, generator))
    return terminated or truncated


def _require_copies(source: EnvironmentSource, num_envs: int) -> None:
    if source.kind == "object" and num_envs > 1:
        raise ConfigError(
            f"num_envs is {num_envs}, but the environment {source.name!r} is a single object: pass an id or a function "
            f"that makes it, or use num_envs=1"
        )
