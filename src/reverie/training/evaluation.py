"""Plays episodes with an agent and records them."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from reverie.agents.imagination_agent import PolicyState
from reverie.dream.film import Audience
from reverie.envs import EnvironmentPool, EnvironmentSource, Steps, Vectorization, make_pool
from reverie.envs.vectorize import choose_place
from reverie.errors import ConfigError
from reverie.training.settings import MOST_EPISODES, check_seed

MAX_PARALLEL = 16
EVALUATION_SEED = 1_000_003
"""Added to the seed of a run, so that no evaluation plays an episode that was trained on."""
EPISODE_LIMIT = 10_000
"""Decisions after which an evaluated episode is cut off where nothing is known about the lengths of episodes."""
EPISODES_PER_SEED = 10**9
"""Episodes with seeds of their own, for evaluations in environments that are used for training, too."""
LEAST_LIMIT, TIMES_LONGEST = 500, 10
"""The limit where training knows the lengths: so many times its longest episode, and at least so many decisions."""
RECORDED_STEPS = 100
"""Longest beginning of an episode that is recorded."""


def episode_limit(longest: int | None) -> int:
    """Decisions after which an evaluated episode is cut off, so that one that never ends cannot hold up a run.

    A trained agent may last much longer than it did while it learned, so the limit is ten times the longest episode of
    training. In a task that never ends it stays the same all along, so that evaluations can be compared.

    Args:
        longest: decisions in the longest episode that ended in training, 0 if none did, None if that is not known.
    """
    return EPISODE_LIMIT if longest is None else max(LEAST_LIMIT, TIMES_LONGEST * longest)


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
        limit: decisions after which an episode was cut off.
        cut_off: how many episodes were cut off there.
        info: name -> that number of the last step's info, of each episode that has it.
    """

    returns: list[float]
    lengths: list[int]
    deterministic: bool
    episodes: list[dict[str, np.ndarray]] = field(default_factory=list)
    limit: int = EPISODE_LIMIT
    cut_off: int = 0
    info: dict[str, list[float]] = field(default_factory=dict)

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
            "episode_limit": self.limit,
            "cut_off": self.cut_off,
            **({"info": mean_numbers(self.info)} if self.info else {}),
        }

    def metrics(self) -> dict[str, float]:
        """What TensorBoard and `metrics.jsonl` get."""
        return {
            "evaluation/return": self.mean,
            "evaluation/return_std": self.standard_deviation,
            "evaluation/length": float(np.mean(self.lengths)),
            **{f"evaluation/info/{name}": value for name, value in mean_numbers(self.info).items()},
        }

    def summary(self) -> str:
        """Mean, standard deviation, and how many episodes were cut off, in words."""
        text = f"{self.mean:.1f} ± {self.standard_deviation:.1f} over {len(self.returns)} episodes"
        if not self.cut_off:
            return text
        return f"{text}, {self.cut_off} of them cut off after {self.limit:,} decisions for lack of --time-limit"


@dataclass(frozen=True)
class Playing:
    """How far an evaluation is.

    Attributes:
        finished: episodes that have ended.
        episodes: those that are wanted.
        decisions: made in all episodes so far.
        share: of the work that is done, from 0 to 1, if the other episodes are as long as those that have ended, or as
            the limit as long as none has.
    """

    finished: int
    episodes: int
    decisions: int
    share: float


def add_numbers(into: dict[str, list[float]], steps: Steps, e: int) -> None:
    """Keeps the numbers of the info of environment `e`, whose episode has ended; those that it lacks are left out."""
    for name, values in steps.info.items():
        if not np.isnan(values[e]):
            into.setdefault(name, []).append(float(values[e]))


def mean_numbers(numbers: Mapping[str, list[float]]) -> dict[str, float]:
    """Means over episodes."""
    return {name: float(np.mean(values)) for name, values in numbers.items() if values}


def warn_of_missing(wanted: tuple[str, ...], found: Mapping[str, list[float]], environment: str) -> None:
    """Warns of numbers that were asked for and that the info of no ended episode had in its last step."""
    missing = [name for name in wanted if name not in found]
    if missing:
        warnings.warn(
            f"the info of {environment} had no number {', '.join(map(repr, missing))} at the end of any episode; "
            f"`reverie check` lists the numbers that there are",
            stacklevel=3,
        )


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
    action, state = agent.act(observation, is_first, state, deterministic=deterministic)
    return action.float().cpu().numpy(), state


def play(
    agent: Actor,
    pool: EnvironmentPool,
    episodes: int,
    deterministic: bool = False,
    record: int = 0,
    progress: Callable[[int], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
    limit: int = EPISODE_LIMIT,
    watch: Callable[[Playing], None] | None = None,
    audience: Audience | None = None,
    first_episode: int = 0,
) -> Evaluation:
    """Plays episodes in a pool, the same number (give or take one) in each environment, so that none counts for more.

    Args:
        agent: acts.
        pool: environments, whose present episodes are left.
        episodes: number of episodes.
        deterministic: take most likely latents and actions; by default as in the agent's paper.
        record: of how many episodes to keep the beginning.
        progress: called with the number of finished episodes.
        stop: asked before every step; once it says true, only the episodes finished so far are returned.
        limit: decisions after which an episode is cut off.
        watch: called after every step with how far it is.
        audience: sees every step; the pool must have been made with `render`.
        first_episode: index of the first episode of each environment, which gives its seed.
    """
    quota = np.full(pool.num_envs, episodes // pool.num_envs)
    quota[: episodes % pool.num_envs] += 1
    result = Evaluation([], [], deterministic, limit=limit)
    totals, lengths = np.zeros(pool.num_envs), np.zeros(pool.num_envs, int)
    rows: list[list[dict[str, np.ndarray]]] = [[] for _ in range(pool.num_envs)]
    steps, state = pool.start_new_episodes(np.full(pool.num_envs, first_episode)), None
    taken = 0
    if audience:
        audience.see(pool, steps, lengths, totals=totals, playing=quota > 0)
    while len(result.returns) < episodes and not (stop() or (audience and audience.gone)):
        action, state = act(agent, steps, state, deterministic=deterministic)
        if record > len(result.episodes):
            for e in np.flatnonzero((quota > 0) & (np.array([len(r) for r in rows]) < RECORDED_STEPS)):
                rows[e].append(_row(steps, action, int(e)))
        cut = ~steps.is_last & (lengths >= limit)
        pool.cut_off(cut)
        for e in np.flatnonzero((steps.is_last | cut) & (quota > 0)):
            quota[e] -= 1
            result.returns.append(float(totals[e]))
            result.lengths.append(int(lengths[e]))
            result.cut_off += int(cut[e])
            add_numbers(result.info, steps, int(e))
            if record > len(result.episodes) and rows[e]:
                result.episodes.append({key: np.stack([row[key] for row in rows[e]]) for key in rows[e][0]})
            rows[e] = []
            if audience:
                audience.end(int(e))
            if progress:
                progress(len(result.returns))
        if len(result.returns) == episodes:
            break
        steps = pool.step(action)
        taken += 1
        totals = np.where(steps.is_first, 0, totals + steps.reward)
        lengths = np.where(steps.is_first, 0, lengths + 1)
        if audience:
            audience.see(pool, steps, lengths, totals=totals, playing=quota > 0)
        if watch:
            watch(_how_far(result, episodes, taken, quota=quota, lengths=lengths))
    return result


def _how_far(result: Evaluation, episodes: int, taken: int, quota: np.ndarray, lengths: np.ndarray) -> Playing:
    """What `play` tells after so many steps, with the episodes [E] that each environment still has to end."""
    usual = float(np.mean(result.lengths)) if result.lengths else result.limit
    left = np.where(quota > 0, np.maximum(quota * usual - lengths, 1), 0).max()
    decisions = sum(result.lengths) + int(lengths[quota > 0].sum())
    return Playing(len(result.returns), episodes, decisions, share=float(taken / (taken + left)))


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
    limit: int | None = None,
    longest: int | None = None,
    watch: Callable[[Playing], None] | None = None,
    num_envs: int | None = None,
    pool: EnvironmentPool | None = None,
    info: tuple[str, ...] = (),
    audience: Audience | None = None,
) -> Evaluation:
    """Plays episodes without touching the random state of a run; see `play` and `make_pool`.

    Args:
        agent: acts.
        source: recipe for the environments.
        episodes: number of episodes.
        seed: of the episodes and of sampling.
        deterministic: see `play`.
        record: see `play`.
        progress: see `play`.
        stop: see `play`.
        vectorization: see `make_pool`.
        limit: decisions after which an episode is cut off; by default the environment's own time limit, and where it
            has none that of `episode_limit`, which warns if it cuts an episode off.
        longest: longest episode of training, for `episode_limit`.
        watch: see `play`.
        num_envs: fresh environments that are played side by side; by default as `side_by_side` says.
        pool: environments to play in instead of fresh ones; what they did before is lost.
        info: names of numbers of the last step's info to keep; see `info_number`.
        audience: see `play`; a live one sees the episodes one after the other, with other random numbers.

    Raises:
        ConfigError: no episode is wanted or too many, the seed has more than 32 bits, or the limit is below 1.
    """
    if not 1 <= episodes <= MOST_EPISODES:
        raise ConfigError(f"episodes must be at least 1 and at most {MOST_EPISODES:,}, got {episodes}")
    check_seed(seed)
    if limit is not None and limit < 1:
        raise ConfigError(f"episode_limit must be at least 1, got {limit}")
    devices = [agent.device] if agent.device.type == "cuda" else []
    seed += EVALUATION_SEED
    with torch.random.fork_rng(devices), contextlib.ExitStack() as stack:
        first = 0
        if pool is None:
            lanes = 1 if audience and audience.live else num_envs or side_by_side(source, episodes)
            render = audience is not None
            made = make_pool(source, min(lanes, episodes), seed, vectorization=vectorization, render=render, info=info)
            pool = stack.enter_context(made)
        else:
            first = seed * EPISODES_PER_SEED
        torch.manual_seed(seed)
        most = limit or pool.time_limit or episode_limit(longest)
        result = play(
            agent,
            pool,
            episodes,
            deterministic=deterministic,
            record=record,
            progress=progress,
            stop=stop,
            limit=most,
            watch=watch,
            audience=audience,
            first_episode=first,
        )
    warn_of_missing(info, result.info, source.name)
    if result.cut_off and limit is None:
        warnings.warn(
            f"{result.cut_off} of {len(result.returns)} evaluated episodes had not ended after {most:,} decisions and "
            f"were cut off; if episodes of {source.name} never end, give a time limit (--time-limit, in Python "
            f"time_limit=), and to evaluate longer ones, --episode-limit (episode_limit=)",
            stacklevel=2,
        )
    return result


def settle_vectorization(
    vectorization: Vectorization, source: EnvironmentSource, episodes: int, seed: int
) -> Vectorization:
    """What `auto` means for so many episodes, so that it is measured once and not at every evaluation."""
    return choose_place(source, side_by_side(source, episodes), seed)[0] if vectorization == "auto" else vectorization


def side_by_side(source: EnvironmentSource, episodes: int) -> int:
    """How many fresh environments `evaluate` plays at once where nobody says: one per episode, at most 16."""
    return 1 if source.kind == "object" else min(episodes, MAX_PARALLEL)
