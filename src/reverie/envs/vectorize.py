"""The choice between stepping environments in this process and in workers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Literal

import gymnasium
import numpy as np

from reverie.envs.episodes import episode_seed
from reverie.envs.make import EnvironmentSource, as_source
from reverie.envs.pool import EnvironmentPool, InProcessPool, processors, require_copies
from reverie.envs.spaces import random_action
from reverie.envs.worker_pool import WorkerPool
from reverie.errors import ConfigError

Vectorization = Literal["auto", "in-process", "workers"]
Place = Literal["in-process", "workers"]

# Worker processes cost about 0.3 ms of talking per step. On 4 cores they make environments with steps below 0.25 ms
# slower (CartPole 20 times) and those above 5 ms (CarRacing, pixel dm_control) about twice as fast; 1 ms is in between.
WORKER_THRESHOLD_SECONDS = 1e-3
# Cheap environments are measured for longer, so that a pause of the garbage collector does not count for much.
LEAST_MEASURED_STEPS, MOST_MEASURED_STEPS = 20, 200
MEASURING_SECONDS = 0.05
MEASURING_LIMIT_SECONDS = 2.0
# An environment that sleeps or waits for another program gives the processor up of its own accord at nearly every step.
WAITS_PER_STEP = 0.5


def make_pool(
    source: EnvironmentSource | str | gymnasium.Env[Any, Any] | Callable[..., gymnasium.Env[Any, Any]],
    num_envs: int,
    seed: int,
    vectorization: Vectorization = "auto",
    *,
    render: bool = False,
    num_workers: int | None = None,
    timeout: float | None = None,
    info: tuple[str, ...] = (),
) -> EnvironmentPool:
    """Make a pool of environments.

    Args:
        source: recipe for the environments, or an id, a function or an environment.
        num_envs: number E of environments.
        seed: seed of all episodes, 0 or more.
        vectorization: `in-process`, `workers`, or `auto`, which leaves it to `choose_place`. The pool's `vectorization`
            and `step_seconds` show the outcome.
        render: prepare `pool.render()`.
        num_workers: number of worker processes; by default one per processor and at most one per environment.
        timeout: seconds after which a worker that does not answer is restarted; by default never.
        info: names of numbers of the steps' info for `Steps.info` to hold; see `info_number`.

    Raises:
        ConfigError: if the settings do not fit together.
        EnvironmentProblem: if the environment cannot be made or breaks its contract.
        SpaceError: if one of its spaces is not supported.
    """
    source = as_source(source)
    if vectorization not in ("auto", "in-process", "workers"):
        raise ConfigError(f"vectorization is {vectorization!r}, but it must be 'auto', 'in-process' or 'workers'")
    require_copies(source, num_envs)
    seconds: float | None = None
    place = vectorization
    if place == "auto":
        place, seconds = choose_place(source, num_envs, seed)
    pool: EnvironmentPool
    if place == "workers":
        pool = WorkerPool(source, num_envs, seed, render=render, num_workers=num_workers, timeout=timeout, info=info)
    else:
        pool = InProcessPool(source, num_envs, seed, render=render, info=info)
    pool.step_seconds = seconds
    return pool


def choose_place(source: EnvironmentSource, num_envs: int, seed: int) -> tuple[Place, float | None]:
    """Where to step environments: in workers if a step takes longer than 1 ms, which is measured, else in this process.

    With one environment or one processor workers gain nothing, and nothing is measured.

    Args:
        source: recipe for the environments.
        num_envs: number E of environments.
        seed: of the measured episodes and actions.

    Returns:
        The place, and the seconds that were measured, see `measure_step_seconds`, or None.
    """
    if num_envs < 2 or source.kind == "object" or processors() < 2 or os.name != "posix":
        return "in-process", None
    seconds = measure_step_seconds(source, seed)
    return ("workers" if seconds > WORKER_THRESHOLD_SECONDS else "in-process"), seconds


def measure_step_seconds(source: EnvironmentSource, seed: int) -> float:
    """Mean time in seconds of a random step of one environment, resets between episodes included.

    It is the time for which the processor computes in this process, so that other programs on the machine do not count.
    Where the environment gives the processor up itself at most steps (it sleeps, or waits for a simulator in another
    process or a device), what it waits for counts too: several environments in workers wait at the same time.
    """
    adapter = source.make()
    try:
        generator = np.random.default_rng(seed)
        adapter.reset(episode_seed(seed, 0, 0))
        # The first step often loads or compiles something, so it does not count.
        ended = _random_step_ends(adapter, generator)
        taken, waits = 0, _waits()
        begin, computed = time.perf_counter(), time.process_time()
        elapsed = 0.0
        while elapsed < MEASURING_LIMIT_SECONDS and (
            taken < LEAST_MEASURED_STEPS or (elapsed < MEASURING_SECONDS and taken < MOST_MEASURED_STEPS)
        ):
            if ended:
                adapter.reset(episode_seed(seed, 0, taken + 1))
            ended = _random_step_ends(adapter, generator)
            taken += 1
            elapsed = time.perf_counter() - begin
        if _waits() - waits >= WAITS_PER_STEP * taken:
            return elapsed / taken
        return min(elapsed, time.process_time() - computed) / taken
    finally:
        adapter.close()


def _waits() -> int:
    """How often this thread (where the system does not count threads: this process) has given the processor up."""
    import resource  # not on Windows, where nothing is measured

    return resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)).ru_nvcsw


def _random_step_ends(adapter: Any, generator: np.random.Generator) -> bool:
    _, _, terminated, truncated, _ = adapter.step(random_action(adapter.interface, generator))
    return terminated or truncated
