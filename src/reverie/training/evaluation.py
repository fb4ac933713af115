"""Plays episodes with an agent and records them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from reverie.agents.imagination_agent import PolicyState
from reverie.envs import EnvironmentPool, EnvironmentSource, Steps, Vectorization, make_pool
from reverie.errors import ConfigError

MAX_PARALLEL = 16
EVALUATION_SEED = 1_000_003
"""Added to the seed of a run, so that no evaluation plays an episode that was trained on."""
EPISODE_LIMIT = 100_000
"""Decisions after which an evaluated episode counts as ended, so that one that never ends cannot hold up a run."""
RECORDED_STEPS = 100
"""Longest beginning of an episode that is recorded."""


class Actor(Protocol):
    """What can play: an agent, or a controller with a world model."""

    @property
    def device(self) -> torch.device:
        """Where its networks are."""
        ...

    def act(
        self,
        observation: Mapping[str, torch.Tensor],
        is_first: torch.Tensor,
        state: Any = None,
        deterministic: bool = False,
    ) -> tuple[torch.Tensor, Any]:
        """See `ImaginationAgent.act`; the state is the player's own."""
        ...


@dataclass
class Evaluation:
    """What the played episodes gave.

    Attributes:
        returns: undiscounted return of each episode.
        lengths: agent decisions in each episode.
        deterministic: whether most likely actions were taken.
        episodes: the beginnings of the first episodes, name -> [T, ...] each.
    """

    returns: list[float]
    lengths: list[int]
    deterministic: bool
    episodes: list[dict[str, np.ndarray]] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def standard_deviation(self) -> float:
        """Standard deviation of the returns over episodes."""
        return float(np.std(self.returns))

    def to_json(self) -> dict[str, Any]:
        """Plain data for `scores.json`."""
        return {
            "episodes": len(self.returns),
            "returns": self.returns,
            "lengths": self.lengths,
            "mean": self.mean,
            "std": self.standard_deviation,
            "deterministic": self.deterministic,
        }


def to_tensors(values: dict[str, np.ndarray], device: torch.device) -> dict[str, torch.Tensor]:
    """Arrays to tensors on a device, copied without waiting where memory can be pinned."""
    if device.type == "cpu":
        return {name: torch.from_numpy(value) for name, value in values.items()}
    return {name: torch.from_numpy(value).pin_memory().to(device, non_blocking=True) for name, value in values.items()}


def act(
    agent: Actor, steps: Steps, state: PolicyState | None, deterministic: bool = False
) -> tuple[np.ndarray, PolicyState]:
    """One decision for each environment of a pool: flat actions float32 [E, A] and the agent's next state."""
    observation = to_tensors(steps.observation, agent.device)
    is_first = torch.from_numpy(steps.is_first).to(agent.device)
    action, state = agent.act(observation, is_first, state, deterministic)
    return action.float().cpu().numpy(), state


def play(
    agent: Actor,
    pool: EnvironmentPool,
    episodes: int,
    deterministic: bool = False,
    record: int = 0,
    progress: Callable[[int], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Plays episodes in a pool, the same number (give or take one) in each environment, so that none counts for more.

    Args:
        agent: acts.
        pool: fresh environments.
        episodes: number of episodes.
        deterministic: take most likely latents and actions; by default as in the agent's paper.
        record: of how many episodes to keep the beginning.
        progress: called with the number of finished episodes.
        stop: asked before every step; once it says true, only the episodes finished so far are returned.
    """
    quota = np.full(pool.num_envs, episodes // pool.num_envs)
    quota[: episodes % pool.num_envs] += 1
    result = Evaluation([], [], deterministic)
    totals, lengths = np.zeros(pool.num_envs), np.zeros(pool.num_envs, int)
    rows: list[list[dict[str, np.ndarray]]] = [[] for _ in range(pool.num_envs)]
    steps, state = pool.reset(), None
    while len(result.returns) < episodes and not stop():
        action, state = act(agent, steps, state, deterministic)
        if record > len(result.episodes):
            for e in np.flatnonzero((quota > 0) & (np.array([len(r) for r in rows]) < RECORDED_STEPS)):
                rows[e].append(_row(steps, action, int(e)))
        for e in np.flatnonzero((steps.is_last | (lengths >= EPISODE_LIMIT)) & (quota > 0)):
            quota[e] -= 1
            result.returns.append(float(totals[e]))
            result.lengths.append(int(lengths[e]))
            totals[e], lengths[e] = 0, 0
            if record > len(result.episodes) and rows[e]:
                result.episodes.append({key: np.stack([row[key] for row in rows[e]]) for key in rows[e][0]})
            rows[e] = []
            if progress:
                progress(len(result.returns))
        steps = pool.step(action)
        totals = np.where(steps.is_first, 0, totals + steps.reward)
        lengths = np.where(steps.is_first, 0, lengths + 1)
    return result


def _row(steps: Steps, action: np.ndarray, e: int) -> dict[str, np.ndarray]:
    flags = {"is_first": steps.is_first[e], "is_last": steps.is_last[e], "is_terminal": steps.is_terminal[e]}
    observation = {name: value[e] for name, value in steps.observation.items()}
    return {**observation, **flags, "reward": steps.reward[e], "action": action[e]}


def evaluate(
    agent: Actor,
    source: EnvironmentSource,
    episodes: int,
    seed: int,
    deterministic: bool = False,
    record: int = 0,
    progress: Callable[[int], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
    vectorization: Vectorization = "auto",
) -> Evaluation:
    """Plays episodes in fresh environments without touching the random state of a run; see `play` and `make_pool`.

    Raises:
        ConfigError: no episode is wanted, or the seed is negative.
    """
    if episodes < 1 or seed < 0:
        raise ConfigError(f"episodes must be at least 1 and the seed not negative, got {episodes} and {seed}")
    num_envs = 1 if source.kind == "object" else min(episodes, MAX_PARALLEL)
    devices = [agent.device] if agent.device.type == "cuda" else []
    seed += EVALUATION_SEED
    with torch.random.fork_rng(devices), make_pool(source, num_envs, seed, vectorization) as pool:
        torch.manual_seed(seed)
        return play(agent, pool, episodes, deterministic, record, progress, stop)
