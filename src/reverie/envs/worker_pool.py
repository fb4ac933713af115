"""Environments in worker processes, which may die without taking the run with them."""

from __future__ import annotations

import os
import time
import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverie.envs.episodes import Act, Moment, Task
from reverie.envs.make import EnvironmentSource
from reverie.envs.pool import EnvironmentPool, processors
from reverie.envs.workers import Assignment, Worker, WorkerDied
from reverie.errors import ConfigError, EnvironmentProblem, ReverieError

MAXIMUM_DEATHS = 5
CLOSING_SECONDS = 2.0


class WorkerPool(EnvironmentPool):
    """Steps its environments in worker processes: fastest for expensive environments.

    A worker that dies is restarted. The episodes it ran are closed as truncated: its environments show their last
    known observation once more with reward 0 and `is_last`, and the next step begins their next episodes. An error
    that an environment raises is not a death: it is raised here.

    Args:
        source: recipe for the environments; an id or a function.
        num_envs: number E of environments.
        seed: seed of all episodes, 0 or more.
        render: prepare `render()`.
        num_workers: number of processes; by default one per processor and at most one per environment.
        timeout: seconds after which a worker that does not answer counts as dead; by default never.
        info: names of numbers of the steps' info to pass on.

    Raises:
        ConfigError: if the recipe cannot be sent to another process.
        EnvironmentProblem: if an environment cannot be made.
        SpaceError: if one of its spaces is not supported.
    """

    vectorization = "workers"

    def __init__(
        self,
        source: EnvironmentSource,
        num_envs: int,
        seed: int,
        *,
        render: bool = False,
        num_workers: int | None = None,
        timeout: float | None = None,
        info: tuple[str, ...] = (),
    ) -> None:
        super().__init__(num_envs, seed)
        if os.name != "posix":
            raise ConfigError("worker processes need Linux or macOS: use vectorization='in-process'")
        if num_workers is not None and num_workers < 1:
            raise ConfigError(f"num_workers is {num_workers}, but it must be at least 1")
        count = min(num_envs, num_workers or processors())
        payload = source.for_worker()
        self._name = source.name
        self._render = render
        self._restarts = 0
        self._last: list[dict[str, NDArray[Any]] | None] = [None] * num_envs
        self._workers = []
        for indices in np.array_split(np.arange(num_envs), count):
            name = f"the worker process of environments {indices.tolist()} ({source.name})"
            assignment = Assignment(payload, seed, tuple(indices.tolist()), render=render, info=info)
            self._workers.append(Worker(assignment, timeout, name=name))
        self._finalizer = weakref.finalize(self, _shut_down, self._workers)
        try:
            self._start_all()
        except BaseException:
            self.close()
            raise

    @property
    def worker_pids(self) -> list[int | None]:
        """Process ids of the workers, None for one that does not run."""
        return [worker.pid for worker in self._workers]

    def render(self) -> list[NDArray[np.uint8]] | None:
        """The current frame of each environment, or None if there are none or a worker has died since."""
        if not self._render:
            return None
        self._require_open()
        for worker in self._workers:
            worker.send("render")
        frames: list[NDArray[np.uint8] | None] = []
        problem: ReverieError | None = None
        for worker in self._workers:
            try:
                frames.extend(worker.receive())
            except WorkerDied:
                # The next step finds the worker dead and restarts it.
                frames.append(None)
            except ReverieError as error:
                problem = problem or error
        if problem is not None:
            raise problem
        complete = [frame for frame in frames if frame is not None]
        return complete if len(complete) == self.num_envs else None

    def close(self) -> None:
        """Let the workers close their environments and end; they are ended by force after 2 seconds."""
        self._finalizer()

    def _start_all(self) -> None:
        for worker in self._workers:
            worker.start()
        for worker in self._workers:
            try:
                self.interface, self.time_limit = worker.receive_started()
            except WorkerDied as death:
                raise EnvironmentProblem(
                    f"a worker process {death} while it made the environment {self._name!r}: try "
                    f"vectorization='in-process' to see why"
                ) from None

    def _execute(self, tasks: Sequence[Task]) -> list[Moment]:
        self._require_open()
        by_worker = [[tasks[index] for index in worker.assignment.indices] for worker in self._workers]
        for worker, own in zip(self._workers, by_worker, strict=True):
            worker.send(own)
        moments: list[Moment] = []
        problem: ReverieError | None = None
        # Every answer is received before anything is raised, so that questions and answers stay in step.
        for worker, own in zip(self._workers, by_worker, strict=True):
            try:
                moments.extend(self._receive(worker, own))
            except ReverieError as error:
                problem = problem or error
        if problem is not None:
            raise problem
        self._last = [moment.observation for moment in moments]
        return moments

    def _receive(self, worker: Worker, tasks: Sequence[Task]) -> list[Moment]:
        """The answer of a worker, or what takes its place if the worker has died."""
        try:
            moments: list[Moment] = worker.receive()
        except WorkerDied as death:
            return self._recover(worker, tasks, str(death))
        if any(isinstance(task, Act) for task in tasks):
            worker.deaths = 0
        return moments

    def _recover(self, worker: Worker, tasks: Sequence[Task], reason: str) -> list[Moment]:
        """Restart a dead worker, close the episodes that it ran and repeat the beginnings that it was asked for."""
        beginnings = [None if isinstance(task, Act) else task for task in tasks]
        while True:
            worker.deaths += 1
            indices = list(worker.assignment.indices)
            if worker.deaths >= MAXIMUM_DEATHS:
                raise EnvironmentProblem(
                    f"{worker.name} {reason}, the {worker.deaths}th time without completing a step: try "
                    f"vectorization='in-process' to see why"
                )
            self._restarts += 1  # in the text, because Python shows a warning of the same text only once
            warnings.warn(
                f"{worker.name} {reason}; it is restarted (restart {self._restarts} of this pool), and the episodes "
                f"that it ran are closed as truncated",
                RuntimeWarning,
                stacklevel=5,
            )
            try:
                worker.start()
                worker.receive_started()
                worker.send(beginnings)
                begun = worker.receive()
            except WorkerDied as death:
                reason = str(death)
                continue
            return [
                moment if moment is not None else self._truncated(index)
                for index, moment in zip(indices, begun, strict=True)
            ]

    def _truncated(self, index: int) -> Moment:
        """The end of an episode that died with its worker."""
        observation = self._last[index]
        assert observation is not None
        return Moment(observation, 0.0, False, is_last=True, is_terminal=False)

    def _require_open(self) -> None:
        if not self._finalizer.alive:
            raise EnvironmentProblem("the pool is closed: make a new one")


def _shut_down(workers: list[Worker]) -> None:
    """Hang up on all workers, then wait for them together."""
    for worker in workers:
        worker.hang_up()
    deadline = time.monotonic() + CLOSING_SECONDS
    for worker in workers:
        worker.stop(deadline)
