"""The acting half of training: steps environments with the agent and fills the replay."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from reverie.agents.imagination_agent import ImaginationAgent, PolicyState, Purpose
from reverie.envs import EnvironmentPool, Steps
from reverie.errors import CheckpointError, EnvironmentProblem
from reverie.replay import Field, SequenceReplay
from reverie.spaces import Interface
from reverie.training.evaluation import add_numbers, mean_numbers, to_tensors

FLAGS = ("is_first", "is_last", "is_terminal")


def replay_fields(interface: Interface, latents: dict[str, tuple[tuple[int, ...], np.dtype]]) -> list[Field]:
    """The fields of a replay row: observation parts, action, reward, flags, and the agent's latents."""
    fields = [Field(part.name, part.shape, part.dtype) for part in interface.observations]
    fields += [Field("action", (interface.action_width,), np.dtype(np.float32))]
    fields += [Field("reward", (), np.dtype(np.float32))]
    fields += [Field(flag, (), np.dtype(np.bool_)) for flag in FLAGS]
    return fields + [Field(name, shape, dtype, latent=True) for name, (shape, dtype) in latents.items()]


class Collector:
    """Environments, the agent's state in them, and the running totals of their episodes.

    Args:
        agent: acts.
        pool: environments; reset here.
        replay: receives a row of every environment per step.

    Attributes:
        episodes: how many have ended.
        longest: steps of the longest of them, 0 before the first; None if a run began before this was kept.
        broken: an environment failed in the middle of a step, so the open episodes cannot be continued.
        info: the numbers of the last step's info of each episode that ended since `take_finished`, by name.
    """

    def __init__(self, agent: ImaginationAgent, pool: EnvironmentPool, replay: SequenceReplay) -> None:
        self.agent, self.pool, self.replay = agent, pool, replay
        self.steps: Steps = pool.reset()
        self.policy_state: PolicyState | None = None
        self.totals, self.lengths = np.zeros(pool.num_envs), np.zeros(pool.num_envs, np.int64)
        self.finished: list[tuple[float, int]] = []
        self.episodes = 0
        self.longest: int | None = 0
        self.broken = False
        self._episode_index = pool.episodes
        self.info: dict[str, list[float]] = {}

    def collect(self, purpose: Purpose = "experience") -> int:
        """Acts once in every environment and returns the number of environment steps that this made.

        An environment that begins a new episode makes no step, so it may be fewer than there are environments.

        Args:
            purpose: `experience` with the agent's actions, `random`, or `held`, random ones that last.
        """
        observation = to_tensors(self.steps.observation, self.agent.device)
        is_first = torch.from_numpy(self.steps.is_first).to(self.agent.device)
        chosen, state = self.agent.act(observation, is_first, self.policy_state, purpose=purpose)
        action, self.policy_state = chosen.float().cpu().numpy(), state
        row = {name: getattr(self.steps, name) for name in ("reward", *FLAGS)}
        stored = {name: value.cpu().numpy() for name, value in self.agent.stored_latents(state.latent).items()}
        self.replay.add({**self.steps.observation, **row, "action": action, **stored})
        self.broken = True
        self.steps = self.pool.step(action)
        self.broken, self._episode_index = False, self.pool.episodes
        began = self.steps.is_first
        self.totals = np.where(began, 0.0, self.totals + self.steps.reward)
        self.lengths = np.where(began, 0, self.lengths + 1)
        for e in np.flatnonzero(self.steps.is_last):
            self.finished.append((float(self.totals[e]), int(self.lengths[e])))
            self.episodes += 1
            self.longest = max(self.longest or 0, int(self.lengths[e]))
            add_numbers(self.info, self.steps, int(e))
        return int((~began).sum())

    def take_finished(self) -> dict[str, float]:
        """Metrics of the episodes that ended since the last call; empty if none did."""
        if not self.finished:
            return {}
        returns, lengths = zip(*self.finished, strict=True)
        self.finished = []
        numbers, self.info = mean_numbers(self.info), {}
        return {
            "episode/return": float(np.mean(returns)),
            "episode/return_max": float(np.max(returns)),
            "episode/return_min": float(np.min(returns)),
            "episode/length": float(np.mean(lengths)),
            "episode/count": float(len(returns)),
            **{f"info/{name}": value for name, value in numbers.items()},
        }

    def state(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Everything that a checkpoint must keep: plain JSON data, and tensors."""
        data = {
            "episode_index": self._episode_index.tolist(),
            "totals": self.totals.tolist(),
            "lengths": self.lengths.tolist(),
            "finished": self.finished,
            "episodes": self.episodes,
            "longest": self.longest,
            "broken": self.broken,
            "info": self.info,
        }
        tensors = {f"observation.{name}": torch.from_numpy(v) for name, v in self.steps.observation.items()}
        tensors |= {name: torch.from_numpy(np.ascontiguousarray(getattr(self.steps, name))) for name in FLAGS}
        if self.policy_state is not None:
            tensors |= {f"policy.{name}": value for name, value in self.policy_state.tensors().items()}
        return data, tensors

    def restore(self, data: dict[str, Any], tensors: dict[str, torch.Tensor]) -> bool:
        """Brings agent and environments back to where `state` was taken.

        Deterministic environments are restored by repeating the actions of their open episodes. Where that does not
        lead to the same observation, those episodes are closed as truncated and new ones begun.

        Returns:
            Whether the environments are exactly where they were.

        Raises:
            CheckpointError: the data is for a different number of environments.
        """
        if any(len(data[name]) != self.pool.num_envs for name in ("episode_index", "totals", "lengths")):
            raise CheckpointError(f"the checkpoint is damaged: it is not of {self.pool.num_envs} environments")
        self.episodes = data["episodes"]
        self.longest = data.get("longest", None if self.episodes else 0)
        self.finished = [(float(total), int(length)) for total, length in data["finished"]]
        self.info = {name: list(values) for name, values in data.get("info", {}).items()}
        policy = {name[7:]: value for name, value in tensors.items() if name.startswith("policy.")}
        if policy:
            moved = {name: value.to(self.agent.device) for name, value in policy.items()}
            self.policy_state = PolicyState.from_tensors(moved)
            dtype = self.agent.compute_dtype
            latent = self.policy_state.latent
            latent.deterministic, latent.stochastic = latent.deterministic.to(dtype), latent.stochastic.to(dtype)
        episodes, broken = np.array(data["episode_index"]), data.get("broken", False)
        if not broken and self._repeat_episodes(episodes, tensors):
            self.totals, self.lengths = np.array(data["totals"]), np.array(data["lengths"])
            return True
        self.replay.close_episodes()
        self._begin_episodes(episodes + 1)
        reason = (
            "failed in the middle of a step" if broken else "did not return to where it was by repeating its actions"
        )
        warnings.warn(
            f"the environment {reason}; the episodes that were open at the checkpoint count as truncated and new ones "
            f"begin",
            stacklevel=2,
        )
        return False

    @contextlib.contextmanager
    def lend(self) -> Iterator[EnvironmentPool]:
        """The environments for another purpose; afterwards they are brought back as `restore` does."""
        data, tensors = self.state()
        yield self.pool
        self.restore(data, tensors)

    def begin_episodes(self) -> None:
        """Closes the open episodes as truncated and begins new ones, with which a run can continue from other rows."""
        self.replay.close_episodes()
        self._begin_episodes(self._episode_index)

    def _begin_episodes(self, episodes: np.ndarray) -> None:
        self.steps = self.pool.start_new_episodes(episodes)
        self.broken, self._episode_index = False, self.pool.episodes
        self.totals, self.lengths = np.zeros(self.pool.num_envs), np.zeros(self.pool.num_envs, np.int64)

    def _repeat_episodes(self, episodes: np.ndarray, tensors: dict[str, torch.Tensor]) -> bool:
        actions = self.replay.current_episodes()
        if any(taken is None for taken in actions):
            return False
        try:
            steps = self.pool.restore(episodes, [taken for taken in actions if taken is not None])
        except EnvironmentProblem:
            return False
        same = all(np.array_equal(getattr(steps, name), tensors[name].numpy()) for name in FLAGS)
        same &= all(
            np.array_equal(value, tensors[f"observation.{name}"].numpy()) for name, value in steps.observation.items()
        )
        self.steps, self._episode_index = steps, episodes
        return same
