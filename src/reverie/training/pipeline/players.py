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
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from reverie.agents.world_models import WorldModelsAgent, WorldModelsConfig
from reverie.behaviors.controllers import flat_actions
from reverie.envs import EnvironmentAdapter, EnvironmentSource
from reverie.envs.episodes import info_number
from reverie.envs.workers import Worker, WorkerDied, serve
from reverie.errors import EnvironmentProblem
from reverie.models.vision_memory import MemoryState
from reverie.spaces import ActionPart, Interface

MOST_DEATHS = 5
"""Deaths of a process, without an answer in between, after which the run ends."""
BATCHES_AHEAD = 2
"""Batches of episodes that are handed out ahead for each process."""
CLOSE_SECONDS = 10.0
"""How long processes may take to close their environments."""
LOOK_SECONDS = 0.2
"""How often to look whether the user wants to stop."""


@dataclass(frozen=True)
class Job:
    """An episode to play.

    Attributes:
        seed: of the environment and of the player's own random numbers.
        parameters: of the controller, float64 [n]; None where the policy has no controller.
    """

    seed: int
    parameters: NDArray[np.float64] | None = None


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


class Policy(Protocol):
    """Chooses actions in n episodes that began together."""

    def begin(self, jobs: Sequence[Job]) -> None:
        """New episodes take the place of the old ones."""

    def act(self, observation: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Flat actions [n, A] for observations [n, ...]."""
        ...

    def keep(self, running: NDArray[np.int64]) -> None:
        """Only the episodes of these numbers go on."""

    def surprise(self) -> NDArray[np.float64]:
        """How much each observation surprised since the last action, float64 [n]."""
        ...


class RandomPolicy:
    """Random play, with which World Models collects its first frames.

    Args:
        parts: action parts.
        hold: steps that an action lasts.
        kind: `held` holds a uniformly random action for 1 to `hold` steps (released code for Take Cover). `varied` does
            the same with a longest time that is drawn from 1 to `hold` for each episode, evenly on a logarithmic
            scale: some episodes twitch, others stay or go one way for long. `wandering` lets every entry wander around
            zero: an Ornstein-Uhlenbeck process with a correlation time of `hold` steps, whose standard deviation is
            drawn from 0 to 0.5 for each episode. It resembles the authors' random controllers for CarRacing, which
            drive roughly straight on with a twitching wheel.
    """

    def __init__(self, parts: Sequence[ActionPart], hold: int, kind: Literal["held", "varied", "wandering"]) -> None:
        self.parts, self.hold, self.kind = tuple(parts), hold, kind
        self.width = sum(part.width for part in parts)

    def begin(self, jobs: Sequence[Job]) -> None:
        """New episodes take the place of the old ones."""
        self.random = [np.random.default_rng(job.seed) for job in jobs]
        drawn = np.array([generator.uniform() for generator in self.random])
        self.deviation = 0.5 * drawn
        self.longest = np.full(len(jobs), self.hold)
        if self.kind == "varied":
            self.longest = ((self.hold + 1) ** drawn).astype(np.int64)
        self.entries = np.zeros((len(jobs), self.width))
        self.left = np.zeros(len(jobs), np.int64)

    def act(self, observation: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Flat actions [n, A]; observations are not looked at."""
        if self.kind == "wandering":
            noise = np.stack([generator.standard_normal(self.width) for generator in self.random])
            kept = np.exp(-1 / self.hold)
            self.entries = kept * self.entries + np.sqrt(1 - kept**2) * self.deviation[:, None] * noise
        else:
            for e in np.flatnonzero(self.left == 0):
                self.entries[e] = self.random[e].uniform(-1, 1, self.width)
                self.left[e] = self.random[e].integers(1, self.longest[e] + 1)
            self.left -= 1
        return flat_actions(torch.from_numpy(self.entries.clip(-1, 1)), self.parts).numpy()

    def keep(self, running: NDArray[np.int64]) -> None:
        """Only the episodes of these numbers go on."""
        self.random = [self.random[e] for e in running]
        self.deviation, self.longest = self.deviation[running], self.longest[running]
        self.entries, self.left = self.entries[running], self.left[running]

    def surprise(self) -> NDArray[np.float64]:
        """Nothing surprises random play."""
        return np.zeros(len(self.random))


class ControllerPolicy:
    """World Models' agent: V sees with sampled latents, M remembers, and each episode has a controller of its own.

    With `curiosity` it also measures M's surprise: its loss on the latents, that is the negative log-density in nats,
    mean over their dimensions (World Models, section "Iterative Training Procedure").

    Args:
        config: of the agent.
        agent: V, M and C, on the CPU.
        precision: in which V sees.
    """

    def __init__(
        self, config: WorldModelsConfig, agent: WorldModelsAgent, precision: torch.dtype = torch.float32
    ) -> None:
        self.config, self.agent, self.precision = config, agent.eval(), precision
        self.model, self.controller, self.parts = agent.world_model, agent.controller, agent.interface.actions

    def __reduce__(self) -> tuple[Any, ...]:
        """What is sent to a process: weights as arrays, since tensors would be shared memory with a life of its own."""
        weights = {name: value.numpy() for name, value in self.agent.state_dict().items()}
        return _rebuild, (self.config, self.agent.interface, weights, self.precision)

    def begin(self, jobs: Sequence[Job]) -> None:
        """New episodes take the place of the old ones."""
        self.random = [np.random.default_rng(job.seed) for job in jobs]
        self.parameters = torch.from_numpy(np.stack([np.asarray(job.parameters, np.float32) for job in jobs]))
        self.state: MemoryState | None = None
        self.action = torch.zeros(len(jobs), sum(part.width for part in self.parts))
        self.novelty = np.zeros(len(jobs))

    @torch.no_grad()
    def act(self, observation: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Flat actions [n, A] for observations [n, ...]."""
        model = self.model
        image = torch.from_numpy(observation[model.name]).float() / 255
        with torch.autocast("cpu", self.precision, enabled=self.precision != torch.float32):
            mean, log_variance = model.vision.encode(image)
        noise = np.stack([generator.standard_normal(mean.shape[1], np.float32) for generator in self.random])
        latent = mean + torch.exp(0.5 * log_variance) * torch.from_numpy(noise)
        if self.state is None or self.config.controller_reads == "z":  # M is left out where C does not read it
            self.state = model.begin(latent)
        else:
            if self.config.curiosity:
                self.novelty = model.surprise(self.state, self.action, latent).double().numpy()
            self.state = model.remember(self.state, self.action, latent)
        outputs = self.controller(self.parameters, model.feature(self.state).unsqueeze(1))[:, 0]
        self.action = flat_actions(outputs, self.parts)
        return self.action.numpy()

    def keep(self, running: NDArray[np.int64]) -> None:
        """Only the episodes of these numbers go on."""
        assert self.state is not None
        chosen = torch.from_numpy(running)
        self.random = [self.random[e] for e in running]
        self.parameters, self.action = self.parameters[chosen], self.action[chosen]
        self.state, self.novelty = self.state.select(chosen), self.novelty[running]

    def surprise(self) -> NDArray[np.float64]:
        """How much each observation surprised M since the last action, float64 [n]."""
        return self.novelty


def _rebuild(
    config: WorldModelsConfig, interface: Interface, weights: dict[str, NDArray[Any]], precision: torch.dtype
) -> ControllerPolicy:
    """The policy of `ControllerPolicy.__reduce__`, in another process."""
    agent = config.build(interface)
    agent.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
    return ControllerPolicy(config, agent, precision)


class _Lane:
    """One environment and the episode that it plays."""

    def __init__(self, adapter: EnvironmentAdapter, job: Job, recorded: bool, info: Sequence[str]) -> None:
        self.adapter, self._info = adapter, info
        self.episode = Episode(0.0, 0)
        self.rows: list[dict[str, Any]] | None = [] if recorded else None
        self.observation = adapter.reset(job.seed)
        self.reward, self.is_last, self.is_terminal = np.float32(0), False, False

    def note(self, action: NDArray[np.float32], surprise: float) -> None:
        """Counts and records what was seen, and the action that was chosen upon it."""
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
    lanes = [_Lane(adapter, job, record, info) for adapter, job in zip(adapters, jobs, strict=False)]
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
            jobs, info = batch.jobs, self._info
            episodes = play_episodes(self._adapters, policy, jobs, batch.longest, batch.record, stop, info)
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
            return play_episodes(adapters, policies[0], request.jobs, request.longest, request.record, info=info)
        policies[:] = [request]
        return None

    try:
        serve(descriptor, handle)
    finally:
        for adapter in adapters:
            adapter.close()
