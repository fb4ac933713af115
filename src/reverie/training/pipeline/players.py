"""Whole episodes, played in worker processes of one thread each.

Every process steps several environments in lockstep, so that V sees their frames as one batch, and nothing waits for
the others at every step. That is several times faster than stepping one pool from a single process.
"""

from __future__ import annotations

import collections
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reverie.envs import EnvironmentAdapter, EnvironmentSource
from reverie.envs.episodes import info_number
from reverie.envs.workers import Worker, WorkerDied, serve
from reverie.errors import EnvironmentProblem
from reverie.training.pipeline.policies import Job, Policy

MOST_DEATHS = 5
"""Deaths of a process, without an answer in between, after which the run ends."""
BATCHES_AHEAD = 2
"""Batches of episodes that are handed out ahead for each process."""
CLOSE_SECONDS = 10.0
"""How long processes may take to close their environments."""
LOOK_SECONDS = 0.2
"""How often to look whether the user wants to stop."""


@dataclass
class Episode:
    """An episode that was played.

    Attributes:
        total: undiscounted return.
        length: steps.
        cut_off: it had not ended when it was as long as it was allowed to be.
        surprise: what M found surprising, summed over the steps; see `ControllerPolicy`.
        rows: observation, action, reward, `is_first` and `is_terminal` of every time, [length + 1, ...] each, if the
            episode was to be recorded.
        info: the numbers of the last step's info that were asked for; NaN where it has no such number.
    """

    total: float
    length: int
    surprise: float = 0.0
    cut_off: bool = False
    rows: dict[str, NDArray[Any]] | None = None
    info: dict[str, float] = field(default_factory=dict)


def numbers_of(episodes: list[Episode], names: tuple[str, ...]) -> dict[str, list[float]]:
    """The numbers of the info of all episodes that have them, by name."""
    known = {name: [episode.info[name] for episode in episodes if name in episode.info] for name in names}
    return {name: [value for value in values if not np.isnan(value)] for name, values in known.items()}


class _Lane:
    """One environment and the episode that it plays."""

    def __init__(self, adapter: EnvironmentAdapter, job: Job, recorded: bool, info: Sequence[str]) -> None:
        self.adapter, self._info = adapter, info
        self.episode = Episode(0.0, 0)
        self.rows: list[dict[str, Any]] | None = [] if recorded else None
        self.observation = adapter.reset(job.seed)
        self.reward, self.is_last, self.is_terminal = np.float32(0), False, False

    def note(self, action: NDArray[np.float32], surprise: float) -> None:
        """Counts and records what was seen, and the action that was chosen for it."""
        self.episode.surprise += surprise
        if self.rows is not None:
            flags = {"is_first": self.episode.length == 0, "is_terminal": self.is_terminal}
            self.rows.append({**self.observation, "action": action.copy(), "reward": self.reward, **flags})

    def step(self, action: NDArray[np.float32]) -> None:
        """Takes a step."""
        self.observation, self.reward, self.is_terminal, truncated, info = self.adapter.step(action)
        self.episode.info = {name: info_number(info, name) for name in self._info}
        self.is_last = self.is_terminal or truncated
        self.episode.total += float(self.reward)
        self.episode.length += 1

    def finish(self) -> Episode:
        """The episode, with its rows as arrays."""
        self.episode.cut_off = not self.is_last
        if self.rows is not None:
            self.episode.rows = {name: np.stack([row[name] for row in self.rows]) for name in self.rows[0]}
        return self.episode


def play_episodes(
    adapters: Sequence[EnvironmentAdapter],
    policy: Policy,
    jobs: Sequence[Job],
    longest: int,
    record: bool,
    stop: Callable[[], bool] = lambda: False,
    info: Sequence[str] = (),
) -> list[Episode] | None:
    """Plays as many episodes side by side as there are jobs; those that have ended leave the batch.

    Args:
        adapters: at least as many environments as jobs.
        policy: acts.
        jobs: the episodes.
        longest: observations after which an episode is cut off.
        record: keep all rows.
        stop: asked before every step; true gives up.
        info: names of numbers of the steps' info to keep of each episode's last step.

    Returns:
        The episodes in the order of the jobs, or None if `stop` gave up.
    """
    lanes = [_Lane(adapter, job, record, info=info) for adapter, job in zip(adapters, jobs, strict=False)]
    running = list(lanes)
    policy.begin(jobs)
    while running:
        if stop():
            return None
        names = running[0].observation
        actions = policy.act({name: np.stack([lane.observation[name] for lane in running]) for name in names})
        for lane, action, surprise in zip(running, actions, policy.surprise(), strict=True):
            lane.note(action, float(surprise))
        goes_on = [not lane.is_last and lane.episode.length + 1 < longest for lane in running]
        if not all(goes_on):
            policy.keep(np.flatnonzero(goes_on))
            actions = actions[goes_on]
            running = [lane for lane, goes in zip(running, goes_on, strict=True) if goes]
        for lane, action in zip(running, actions, strict=True):
            lane.step(action)
    return [lane.finish() for lane in lanes]


@dataclass(frozen=True)
class _Setup:
    """First message to a process: the recipe of its environments, and how many it steps in lockstep."""

    source: bytes
    lanes: int
    info: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Play:
    """Message to a process: episodes to play with the policy that it was sent last."""

    jobs: Sequence[Job]
    longest: int
    record: bool


class _Process:
    """A worker process, the policy that it was sent last, and how often it died since it last answered."""

    def __init__(self, setup: _Setup) -> None:
        self._worker = Worker(setup, None, "reverie.training.pipeline.players:main")
        self._policy: Policy | None = None
        self._deaths = 0

    def play(self, policy: Policy, batch: _Play, gave_up: threading.Event) -> list[Episode]:
        """Plays a batch; a process that dies is restarted and plays it again.

        Raises:
            WorkerDied: the process was ended because the caller gave up.
            ReverieError: an environment raised, or the process died again and again.
        """
        while True:
            try:
                if self._worker.pid is None:
                    self._policy = None
                    self._worker.start()
                    self._worker.receive_started()
                if self._policy is not policy:
                    self._worker.send(policy)
                    self._worker.receive()
                    self._policy = policy
                self._worker.send(batch)
                episodes: list[Episode] = self._worker.receive()
            except WorkerDied as death:
                if gave_up.is_set():
                    raise
                self._deaths += 1
                if self._deaths >= MOST_DEATHS:
                    raise EnvironmentProblem(
                        f"a process that plays episodes {death}, the {self._deaths}th time without finishing any; try "
                        f"--vectorization in-process to see why"
                    ) from None
                continue
            self._deaths = 0
            return episodes

    def hang_up(self) -> None:
        """Lets the process close its environments, and with them the programs that they have started, and end."""
        self._worker.hang_up()

    def stop(self, deadline: float) -> None:
        """Waits for that until `deadline` (of `time.monotonic`), then ends the process."""
        self._worker.stop(deadline)

    def kill(self) -> None:
        """Ends the process at once; whoever waits for its answer gets `WorkerDied`."""
        self._worker.signal_end()


class Players:
    """Processes that play whole episodes, or this process alone.

    Args:
        source: recipe for environments.
        processes: number of processes; 0 plays in this process, as environments that are single objects must be.
        lanes: environments that each of them steps in lockstep.
        info: names of numbers of the environment's info to keep of each episode's last step.

    Raises:
        ConfigError: the recipe cannot be sent to another process.
    """

    def __init__(self, source: EnvironmentSource, processes: int, lanes: int, info: tuple[str, ...] = ()) -> None:
        self.source, self._info = source, info
        single = source.kind == "object"
        self.lanes = 1 if single else lanes
        self._adapters: list[EnvironmentAdapter] = []
        setup = None if single or processes == 0 else _Setup(source.for_worker(), lanes, info)
        self._processes = [_Process(setup) for _ in range(processes)] if setup else []

    def close(self) -> None:
        """Ends the processes and closes the environments."""
        for process in self._processes:
            process.hang_up()
        deadline = time.monotonic() + CLOSE_SECONDS
        for process in self._processes:
            process.stop(deadline)
        for adapter in self._adapters:
            adapter.close()
        self._adapters = []

    def play(
        self,
        policy: Policy,
        jobs: Sequence[Job],
        *,
        longest: int,
        record: bool = False,
        stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[Episode]:
        """Plays all jobs, a batch of lanes at a time in every process.

        Args:
            policy: acts.
            jobs: episodes to play.
            longest: observations after which an episode is cut off.
            record: keep all rows.
            stop: asked often; after it has said true, no more episodes come.

        Yields:
            The episodes in the order of the jobs.

        Raises:
            ReverieError: an environment raised, or a process died again and again.
        """
        batches = [_Play(jobs[k : k + self.lanes], longest, record) for k in range(0, len(jobs), self.lanes)]
        for episodes in self._spread(policy, batches, stop) if self._processes else self._here(policy, batches, stop):
            yield from episodes

    def _here(self, policy: Policy, batches: Sequence[_Play], stop: Callable[[], bool]) -> Iterator[list[Episode]]:
        if not self._adapters:
            self._adapters = [self.source.make() for _ in range(self.lanes)]
        for batch in batches:
            jobs, longest, record = batch.jobs, batch.longest, batch.record
            episodes = play_episodes(
                self._adapters, policy, jobs, longest=longest, record=record, stop=stop, info=self._info
            )
            if episodes is None:
                return
            yield episodes

    def _spread(self, policy: Policy, batches: Sequence[_Play], stop: Callable[[], bool]) -> Iterator[list[Episode]]:
        """Every process takes the next batch when it is free; results come in the order of the batches."""
        gave_up = threading.Event()
        free: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        for process in self._processes:
            free.put(process)

        def play(batch: _Play) -> list[Episode]:
            process = free.get()
            try:
                return process.play(policy, batch, gave_up)
            finally:
                free.put(process)

        coming = iter(batches)
        with ThreadPoolExecutor(len(self._processes)) as threads:
            # Few are handed out ahead, since finished ones wait in memory with all their frames.
            ahead = itertools.islice(coming, BATCHES_AHEAD * len(self._processes))
            waiting = collections.deque(threads.submit(play, batch) for batch in ahead)
            try:
                while waiting:
                    future = waiting[0]
                    while not future.done() and not stop():
                        wait([future], LOOK_SECONDS)
                    if stop():
                        return
                    waiting.extend(threads.submit(play, batch) for batch in itertools.islice(coming, 1))
                    yield waiting.popleft().result()
            finally:
                gave_up.set()
                if not all(future.done() for future in waiting):
                    threads.shutdown(wait=False, cancel_futures=True)
                    for process in self._processes:
                        process.kill()


def main(descriptor: int) -> None:
    """Program of a process: make the environments, then play what is asked for until the connection closes.

    Args:
        descriptor: file descriptor of the process's end of the socket pair.
    """
    torch.set_num_threads(1)
    adapters: list[EnvironmentAdapter] = []
    policies: list[Policy] = []
    info: list[str] = []

    def handle(request: _Setup | Policy | _Play) -> list[Episode] | None:
        if isinstance(request, _Setup):
            source = EnvironmentSource.from_worker(request.source)
            adapters.extend(source.make() for _ in range(request.lanes))
            info.extend(request.info)
            return None
        if isinstance(request, _Play):
            jobs, longest, record = request.jobs, request.longest, request.record
            return play_episodes(adapters, policies[0], jobs, longest=longest, record=record, info=info)
        policies[:] = [request]
        return None

    try:
        serve(descriptor, handle)
    finally:
        for adapter in adapters:
            adapter.close()
