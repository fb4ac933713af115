"""Looks at an environment before anybody trains in it: parts, speed, faults, episodes, and what a run will cost."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

import reverie
from reverie.agents.registry import PIPELINES, default_preset, make_config, preset_values
from reverie.envs import EnvironmentAdapter, EnvironmentSource, make_pool
from reverie.envs.action_codec import random_action
from reverie.envs.episodes import episode_seed, info_numbers
from reverie.envs.images import part_names
from reverie.envs.space_tree import leaves
from reverie.errors import ConfigError, EnvironmentProblem
from reverie.spaces import Interface
from reverie.training.collector import replay_fields
from reverie.training.device import choose_device, choose_precision
from reverie.training.estimate import duration, time_costs
from reverie.training.memory import peak_memory
from reverie.training.settings import TrainSettings

REPEATED_STEPS = 200
"""Steps of the first episode that are taken again to see whether they lead to the same."""
SPEED_SHARE = 0.1
"""Share of the time for random play that goes into measuring environments side by side."""
KEPT_CHECKPOINTS, BYTES_PER_WEIGHT = 2, 12
"""A run keeps so many checkpoints, with so many bytes for each weight and its two moments."""


@dataclass(frozen=True)
class PartReport:
    """What an agent sees, or what it does, in one named part.

    Attributes:
        name: of the part.
        kind: `image`, `vector` or `discrete`; `continuous` or `discrete` for an action.
        shape: of an observation; (number of dimensions or variables,) of an action.
        classes: choices of each variable of a discrete part.
        declared: lowest and highest value that the space allows, in the units of the environment.
        seen: lowest and highest value that was observed, as the agent gets it; None for an action.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    classes: tuple[int, ...] = ()
    declared: tuple[float, float] | None = None
    seen: tuple[float, float] | None = None

    def __str__(self) -> str:
        size = " x ".join(map(str, self.shape))
        what = f"discrete, {_choices(self.classes)}"
        if self.kind != "discrete":
            unit = "pixels" if self.kind == "image" else _plural("number", self.shape[0])
            what = f"{self.kind}, {size} {unit}"
        text = f"{self.name}: {what}"
        if self.declared is not None:
            text += f", {self.declared[0]:.6g} to {self.declared[1]:.6g}"
        if self.seen is not None:
            text += f" (seen {self.seen[0]:.6g} to {self.seen[1]:.6g})"
        return text


@dataclass(frozen=True)
class Fault:
    """Something that the environment does wrong.

    Attributes:
        kind: `problem` where training would end with an error, `bounds` for observations outside their space, `random`
            where the same seed and actions lead to something else.
        episode: of random play, from 0.
        step: of the episode; 0 is its first observation.
        sentence: what is wrong, and what to do.
    """

    kind: Literal["problem", "bounds", "random"]
    episode: int
    step: int
    sentence: str

    def __str__(self) -> str:
        return f"episode {self.episode}, step {self.step}: {self.sentence}"


@dataclass(frozen=True)
class Estimate:
    """What a run with a preset will take on this machine.

    Attributes:
        agent, preset: of the run.
        steps: environment steps.
        updates: gradient steps.
        parameters: weights of the agent.
        seconds: of updates, decisions and the environment, without evaluations.
        memory: bytes of this process at its largest, after an update, and of the full replay; None if not known.
        disk: bytes of the full replay and of the checkpoints.
        device: where it was timed.
    """

    agent: str
    preset: str
    steps: int
    updates: int
    parameters: int
    seconds: float
    memory: int | None
    disk: int
    device: str

    def __str__(self) -> str:
        memory = "" if self.memory is None else f", {self.memory / 1e9:.2g} GB of memory"
        return (
            f"{self.agent}, preset {self.preset}: {self.steps:,} steps, {self.updates:,} updates of "
            f"{self.parameters:,} weights, about {duration(self.seconds)} on {self.device} and the time of "
            f"evaluations{memory}, {self.disk / 1e9:.2g} GB of disk"
        )


@dataclass
class EnvironmentReport:
    """What `reverie.check` found.

    Attributes:
        name: of the environment.
        observations, actions: parts, in the order in which agents see them.
        time_limit: decisions after which Gymnasium's own limit truncates an episode, None without one.
        action_repeat: environment frames per decision.
        notes: what was warned of when the environment was made.
        faults: in the order of their episodes and steps.
        steps: of random play.
        seconds: that it took.
        lengths: decisions of the episodes that ended.
        returns: of the same.
        terminated: how many of them were terminated; the others were truncated.
        info: names of the numbers in the info of the last steps, for `--info`.
        num_envs, vectorization, steps_per_second: of environments side by side as in training; 0 if not measured.
        estimate: of a run, None if it was not asked for or a fault forbids it.
    """

    name: str
    observations: tuple[PartReport, ...] = ()
    actions: tuple[PartReport, ...] = ()
    time_limit: int | None = None
    action_repeat: int = 1
    notes: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    lengths: list[int] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    terminated: int = 0
    info: tuple[str, ...] = ()
    num_envs: int = 1
    vectorization: str = "in-process"
    steps_per_second: float = 0.0
    estimate: Estimate | None = None

    @property
    def fault(self) -> Fault | None:
        """The first fault, or None."""
        return self.faults[0] if self.faults else None

    @property
    def ok(self) -> bool:
        """Whether an agent can be trained here: no fault would end it with an error."""
        return all(fault.kind != "problem" for fault in self.faults)

    def __str__(self) -> str:
        limit = f"time limit of {self.time_limit:,} steps" if self.time_limit else "no time limit"
        repeat = f", {self.action_repeat} frames per decision" if self.action_repeat > 1 else ""
        rows = [("environment", f"{self.name}, {limit}{repeat}")]
        rows += [("observation", str(part)) for part in self.observations]
        rows += [("action", str(part)) for part in self.actions]
        rows += [("note", note) for note in self.notes]
        rows += [("random play", self._random_play()), ("info numbers", ", ".join(self.info) or "none")]
        if self.steps_per_second:
            each = f"{self.num_envs} {_plural('environment', self.num_envs)} {self.vectorization}"
            rows.append(("speed", f"{self.steps_per_second:,.0f} steps per second, {each}"))
        rows += [("fault", str(fault)) for fault in self.faults] or [("fault", "none found")]
        rows += [("estimate", str(self.estimate))] if self.estimate else []
        return "\n".join(f"{name:<17} {text}" for name, text in rows)

    def _random_play(self) -> str:
        text = f"{self.steps:,} steps in {self.seconds:.1f} s"
        if not self.lengths:
            remedy = "" if self.time_limit else "; if none ever ends, give a time limit"
            return f"{text}, no episode ended{remedy}"
        count, truncated = len(self.lengths), len(self.lengths) - self.terminated
        return (
            f"{text}, {count:,} {_plural('episode', count)} ended ({self.terminated:,} terminated, {truncated:,} "
            f"truncated), length {min(self.lengths):,} to {max(self.lengths):,}, mean {np.mean(self.lengths):,.1f}; "
            f"return {np.mean(self.returns):.4g} ± {np.std(self.returns):.3g}"
        )


def check_environment(
    source: EnvironmentSource,
    *,
    agent: str = "dreamer-v3",
    preset: str | None = None,
    steps: int = 2_000,
    seconds: float = 10.0,
    seed: int = 0,
    estimate: bool = True,
    device: str = "auto",
    progress: Callable[[int], None] = lambda steps: None,
) -> EnvironmentReport:
    """Plays at random in an environment and reports what an agent will meet there.

    Args:
        source: recipe for the environment.
        agent: whose run is estimated.
        preset: of that run; by default as in training.
        steps: of random play, at most.
        seconds: that it takes, at most, except for the time of a single step.
        seed: of episodes and actions.
        estimate: estimate what a run will take; that times updates of the agent.
        device: of the estimated run.
        progress: called with the number of steps.

    Raises:
        ReverieError: the environment cannot be made, or no agent can handle its spaces.
        ConfigError: an option is out of range.
    """
    if steps < 1 or not seconds > 0 or seed < 0:
        raise ConfigError(
            f"steps and seconds must be above 0 and the seed not negative, got {steps}, {seconds}, {seed}"
        )
    if estimate and agent in PIPELINES:
        raise ConfigError(f"{agent} is trained in stages, whose time is not estimated; choose another agent")
    report = EnvironmentReport(source.name)
    with _heard(report.notes.append):
        adapter = source.make()
    try:
        play = _RandomPlay(adapter, report, seed)
        play.run(steps, seconds, progress)
        interface = adapter.interface
    finally:
        adapter.close()
    if not report.ok:
        return report
    _repeat(source, report, play)
    report.faults.sort(key=lambda fault: (fault.episode, fault.step))
    target = choose_device(device)
    preset = preset or default_preset(agent, target.type)
    values = preset_values(agent, preset, interface)
    _measure_speed(
        source, report, values.get("num_envs", TrainSettings.num_envs), seconds=seconds * SPEED_SHARE, seed=seed
    )
    if estimate and report.ok:
        report.estimate = _estimate(agent, preset, values, interface=interface, report=report, device=target)
    return report


class _RandomPlay:
    """Random episodes of one environment, and the beginning of the first one to be repeated."""

    def __init__(self, adapter: EnvironmentAdapter, report: EnvironmentReport, seed: int) -> None:
        self.adapter, self.report, self.seed = adapter, report, seed
        self.actions: list[NDArray[np.float32]] = []
        self.seen: list[tuple[dict[str, NDArray[Any]], float, bool]] = []
        self._low: dict[str, float] = {}
        self._high: dict[str, float] = {}
        self._info: set[str] = set()
        self._episode = self._step = 0

    def run(self, steps: int, seconds: float, progress: Callable[[int], None]) -> None:
        """Plays until so many steps or seconds are over, or the environment fails; fills the report."""
        begun = time.perf_counter()
        try:
            with _heard(self._note_bounds):
                self._run(steps, begun + seconds, progress)
        except EnvironmentProblem as problem:
            self.report.faults.append(Fault("problem", self._episode, self._step, sentence=str(problem)))
        self.report.seconds = time.perf_counter() - begun
        self._describe()

    def _run(self, steps: int, deadline: float, progress: Callable[[int], None]) -> None:
        report, generator = self.report, np.random.default_rng(self.seed)
        while report.steps < steps and time.perf_counter() < deadline:
            self._step, total, ended = 0, 0.0, False
            self._look(self.adapter.reset(episode_seed(self.seed, 0, self._episode)), 0.0, False)
            while not ended and report.steps < steps and time.perf_counter() < deadline:
                action = random_action(self.adapter.interface, generator)
                if self._episode == 0 and self._step < REPEATED_STEPS:
                    self.actions.append(action)
                self._step += 1
                observation, reward, terminated, truncated, info = self.adapter.step(action)
                ended = terminated or truncated
                self._look(observation, float(reward), ended)
                total += float(reward)
                report.steps += 1
                progress(report.steps)
            if ended:
                report.lengths.append(self._step)
                report.returns.append(total)
                report.terminated += terminated
                self._info.update(info_numbers(info))
            self._episode += 1

    def _look(self, observation: dict[str, NDArray[Any]], reward: float, ended: bool) -> None:
        if self._episode == 0 and len(self.seen) <= REPEATED_STEPS:
            self.seen.append((observation, reward, ended))
        for name, values in observation.items():
            self._low[name] = min(self._low.get(name, math.inf), float(values.min()))
            self._high[name] = max(self._high.get(name, -math.inf), float(values.max()))

    def _note_bounds(self, sentence: str) -> None:
        self.report.faults.append(Fault("bounds", self._episode, self._step, sentence=sentence))

    def _describe(self) -> None:
        """What is known of the parts."""
        adapter, report = self.adapter, self.report
        declared = _declared(adapter)
        report.observations = tuple(
            PartReport(
                part.name,
                part.kind,
                part.shape,
                classes=part.classes,
                declared=declared.get(part.name),
                seen=(self._low[part.name], self._high[part.name]) if part.name in self._low else None,
            )
            for part in adapter.interface.observations
        )
        variables = iter(adapter.action_variables)
        for part in adapter.interface.actions:
            own = [next(variables) for _ in range(part.size)]
            bounds = (float(min(v.low for v in own)), float(max(v.high for v in own)))
            shown = bounds if part.kind == "continuous" else None
            report.actions += (PartReport(part.name, part.kind, (part.size,), classes=part.classes, declared=shown),)
        report.time_limit, report.action_repeat = adapter.time_limit, adapter.action_repeat
        report.info = tuple(sorted(self._info))


def _declared(adapter: EnvironmentAdapter) -> dict[str, tuple[float, float]]:
    """Lowest and highest value that the space of each numeric observation part allows."""
    found: dict[str, tuple[float, float]] = {}
    for path, leaf in leaves(adapter.environment.observation_space):
        low, high = getattr(leaf, "low", None), getattr(leaf, "high", None)
        if low is not None and high is not None:
            bounds = float(np.min(low)), float(np.max(high))
            found |= dict.fromkeys((*part_names(path), *(f"observation/{name}" for name in part_names(path))), bounds)
    return found


def _repeat(source: EnvironmentSource, report: EnvironmentReport, play: _RandomPlay) -> None:
    """Takes the first steps again, in a new environment where one can be made; the first difference is a fault."""
    adapter = source.make()
    step = 0
    try:
        difference = _difference(play.seen[0], (adapter.reset(episode_seed(play.seed, 0, 0)), 0.0, False))
        while not difference and step < min(len(play.actions), len(play.seen) - 1):
            step += 1
            observation, reward, terminated, truncated, _ = adapter.step(play.actions[step - 1])
            difference = _difference(play.seen[step], (observation, float(reward), terminated or truncated))
    except EnvironmentProblem as problem:
        report.faults.append(Fault("problem", 0, step, sentence=f"when the episode was repeated: {problem}"))
        return
    finally:
        adapter.close()
    if difference:
        report.faults.append(
            Fault(
                "random",
                0,
                step,
                sentence=f"the same seed and the same actions led to another {difference}, so runs cannot be repeated, "
                f"and one that is resumed begins new episodes; draw random numbers from self.np_random after "
                f"super().reset(seed=seed)",
            )
        )


def _difference(
    before: tuple[Mapping[str, NDArray[Any]], float, bool], after: tuple[Mapping[str, NDArray[Any]], float, bool]
) -> str:
    """What differs between two moments, in words; empty if nothing."""
    for name, values in before[0].items():
        if not np.array_equal(values, after[0][name]):
            return f"observation {name!r}"
    return "reward" if before[1] != after[1] else "end of the episode" if before[2] != after[2] else ""


def _measure_speed(
    source: EnvironmentSource, report: EnvironmentReport, num_envs: int, seconds: float, seed: int
) -> None:
    """Steps per second of as many environments as training has, where training would step them."""
    if source.kind == "object":
        report.steps_per_second = report.steps / report.seconds
        return
    generator = np.random.default_rng(seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said before
            with make_pool(source, num_envs, seed) as pool:
                pool.reset()
                begun, count, elapsed = time.perf_counter(), 0, 0.0
                while elapsed < seconds and count < 1_000:
                    pool.step(np.stack([random_action(pool.interface, generator) for _ in range(num_envs)]))
                    count += 1
                    elapsed = time.perf_counter() - begun
                report.num_envs, report.vectorization = num_envs, pool.vectorization
                report.steps_per_second = count * num_envs / elapsed
    except EnvironmentProblem as problem:
        report.faults.append(Fault("problem", 0, 0, sentence=f"with {num_envs} environments side by side: {problem}"))


def _estimate(
    agent: str,
    preset: str,
    values: Mapping[str, Any],
    interface: Interface,
    report: EnvironmentReport,
    device: torch.device,
) -> Estimate:
    """What a run with the preset's own number of steps takes."""
    known = {entry.name for entry in fields(TrainSettings)}
    settings = TrainSettings(**{name: value for name, value in values.items() if name in known})
    config = make_config(agent, {}, preset, interface=interface)
    costs = time_costs(config, interface, device, dtype=choose_precision("auto", device), num_envs=report.num_envs)
    with torch.random.fork_rng():
        built = config.build(interface)
    parameters = built.count_parameters()["total"]
    row = sum(entry.bytes for entry in replay_fields(interface, built.latent_fields))
    replay = row * min(config.replay_capacity, settings.steps)
    usual = float(np.mean(report.lengths)) if report.lengths else float(report.time_limit or math.inf)
    updates = config.schedule().updates_after(settings.steps, int(settings.steps / usual))
    seconds = costs.seconds(updates, settings.steps // report.num_envs) + settings.steps / report.steps_per_second
    peak = peak_memory()
    memory = None if peak is None else peak + replay
    disk = replay + (KEPT_CHECKPOINTS * BYTES_PER_WEIGHT + 4) * parameters
    return Estimate(
        agent,
        preset,
        settings.steps,
        updates=updates,
        parameters=parameters,
        seconds=seconds,
        memory=memory,
        disk=disk,
        device=str(device),
    )


@contextmanager
def _heard(hear: Callable[[str], None]) -> Iterator[None]:
    """Hands the library's own warnings to `hear` as soon as they are given; all others pass unchanged."""
    ours, shown = Path(reverie.__file__).parent, warnings.showwarning

    def show(message: Warning | str, category: type[Warning], filename: str, *more: Any) -> None:
        if Path(filename).is_relative_to(ours):
            hear(str(message))
        else:
            shown(message, category, filename, *more)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _choices(classes: tuple[int, ...]) -> str:
    """Choices of the variables of a discrete part, in words."""
    if len(classes) == 1:
        return f"{classes[0]} choices"
    if len(set(classes)) == 1:
        return f"{len(classes)} variables of {classes[0]} choices"
    return f"{len(classes)} variables of {', '.join(map(str, classes))} choices"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
