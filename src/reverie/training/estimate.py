"""How long a run will take on this machine, from a few timed updates and decisions of an agent like its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from reverie.agents.registry import AgentConfig
from reverie.spaces import Interface
from reverie.training.benchmark import random_batch, random_observation, wait

SLOW_UPDATE = 5.0
"""Seconds of a first update after which a second one, without the costs of a first, is not waited for."""


@dataclass(frozen=True)
class Costs:
    """Seconds of one update, and of one decision for all environments."""

    update: float
    decision: float

    def seconds(self, updates: int, decisions: int) -> float:
        """Seconds of so many updates and decisions, without environments and evaluations."""
        return updates * self.update + decisions * self.decision


def time_costs(
    config: AgentConfig, interface: Interface, device: torch.device, dtype: torch.dtype, num_envs: int
) -> Costs:
    """Times an agent of its own, with random data, so that neither weights nor random states of a run are touched."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        agent = config.build(interface).to(device)
        agent.compute_dtype = dtype
        agent.optimizer = config.build_optimizer(agent)
        batch = random_batch(agent, config.batch_size, config.batch_length)
        observation = random_observation(interface, (num_envs,), device)
        is_first = torch.zeros(num_envs, dtype=torch.bool, device=device)
        return Costs(
            _seconds(lambda: agent.update(batch), device),
            _seconds(lambda: agent.act(observation, is_first, purpose="experience"), device),
        )


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the second of two calls, or of the first where that is slow."""
    for _ in range(2):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        seconds = time.perf_counter() - start
        if seconds > SLOW_UPDATE:
            break
    return seconds


def duration(seconds: float) -> str:
    """Seconds as a person says them: `40 s`, `12 min`, `3 h 20 min`, `8 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes and hours < 10 else f"{hours} h"
    return f"{hours / 24:,.0f} days"
