"""What all agents share that learn a world model and act by imagining in it.

The verbs, in this order in every agent: act, observe, imagine, update, save, load.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import record_function

from reverie.behaviors.behavior import PHASE, Behavior, Rollout
from reverie.behaviors.exploration import Exploration, held_action, random_action
from reverie.models.rssm import LatentState
from reverie.models.world_model import WorldModel
from reverie.nn.latents import CategoricalLatent
from reverie.optim.base import Optimizer
from reverie.spaces import Interface
from reverie.tensor_files import load_tensors, save_tensors

Purpose = Literal["evaluation", "experience", "random", "held"]
"""What actions are for: to show what was learned, to collect experience with the agent's own noise, at random, or at
random with actions that last."""


@dataclass
class PolicyState:
    """What the agent carries between decisions: the latent state and the action it led to, [E, ...]."""

    latent: LatentState
    action: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """The state as named tensors."""
        return {
            "deterministic": self.latent.deterministic,
            "stochastic": self.latent.stochastic,
            "action": self.action,
        }

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor]) -> PolicyState:
        """Inverse of `tensors`."""
        return PolicyState(LatentState(tensors["deterministic"], tensors["stochastic"]), tensors["action"])


class ImaginationAgent(nn.Module):
    """A world model, a behavior that acts on it and may learn inside it, and their optimizer.

    Args:
        interface: observation and action parts.
        world_model: learns from replayed sequences.
        behavior: learns from imagined ones, or plans.
        replay_context: number of leading steps of a replayed window that only give the state to start from, 0 or 1.
        exploration: noise on the actions that collect experience; None where the behavior has enough of its own.

    """

    optimizer: Optimizer

    def __init__(
        self,
        interface: Interface,
        world_model: WorldModel,
        behavior: Behavior,
        replay_context: int,
        exploration: Exploration | None = None,
    ) -> None:
        super().__init__()
        self.interface, self.replay_context = interface, replay_context
        self.world_model, self.behavior, self.exploration = world_model, behavior, exploration
        self.compute_dtype = torch.float32

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def latent_fields(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Name, shape and dtype of the latents that the replay keeps beside every step; none without a context step."""
        if not self.replay_context:
            return {}
        latent = self._stored_latent
        index = np.dtype(np.uint8 if latent.classes <= 256 else np.int16)
        return {
            "deterministic": ((self.world_model.rssm.deterministic,), np.dtype(np.float16)),
            "stochastic": ((latent.variables,), index),
        }

    @property
    def _stored_latent(self) -> CategoricalLatent:
        """The latents of an agent with a context step, which are categorical."""
        assert isinstance(self.world_model.rssm.latent, CategoricalLatent)
        return self.world_model.rssm.latent

    def stored_latents(self, states: LatentState) -> dict[str, Tensor]:
        """States [..., D] and [..., S C] in the compact form of `latent_fields`."""
        if not self.replay_context:
            return {}
        return {
            "deterministic": states.deterministic.detach().to(torch.float16),
            "stochastic": self._stored_latent.compress(states.stochastic),
        }

    def count_parameters(self) -> dict[str, int]:
        """Number of trained weights by module, and their `total`."""
        modules = self.world_model.networks() | self.behavior.networks()
        counts = {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()}
        return counts | {"total": sum(counts.values())}

    def initial_state(self, num_envs: int) -> PolicyState:
        """The state before the first observation, for `num_envs` environments."""
        latent = self.world_model.rssm.initial(num_envs, self.device, self.compute_dtype)
        return PolicyState(latent, torch.zeros(num_envs, self.interface.action_width, device=self.device))

    @torch.no_grad()
    def act(
        self,
        observation: Mapping[str, Tensor],
        is_first: Tensor,
        state: PolicyState | None = None,
        deterministic: bool = False,
        purpose: Purpose = "evaluation",
    ) -> tuple[Tensor, PolicyState]:
        """Chooses an action for every environment.

        Args:
            observation: part name -> [E, *shape] on the agent's device.
            is_first: bool [E], true where an episode begins.
            state: what the previous call returned; None at the very beginning.
            deterministic: most likely latents and actions; by default both are sampled or not as in the papers.
            purpose: experience is collected with the agent's noise, or at random.

        Returns:
            Flat actions float32 [E, A], and the state for the next call.
        """
        latent = self.watch(observation, is_first, state=state, deterministic=deterministic)
        if purpose in ("random", "held"):
            action = random_action(self.interface.actions, latent.count, latent.device)
            if purpose == "held" and state is not None:
                action = held_action(action, state.action, is_first)
            return action, PolicyState(latent, action)
        most_likely = deterministic or (purpose == "evaluation" and self.behavior.evaluates_with_mode)
        action = self.behavior.choose(self.world_model, latent, most_likely)
        if purpose == "experience" and self.exploration is not None:
            action = self.exploration(action)
        return action, PolicyState(latent, action)

    def watch(
        self,
        observation: Mapping[str, Tensor],
        is_first: Tensor,
        state: PolicyState | None = None,
        deterministic: bool = False,
    ) -> LatentState:
        """The latent state [E, ...] after one more observation of every environment; arguments as for `act`."""
        state = state or self.initial_state(is_first.shape[0])
        seen = self.world_model.prepare(observation, deterministic)
        batch = {name: value.unsqueeze(1) for name, value in seen.items()} | {"is_first": is_first.unsqueeze(1)}
        states, _ = self.world_model.observe(
            batch, state.action.unsqueeze(1), state.latent, dtype=self.compute_dtype, deterministic=deterministic
        )
        return states.at(0)

    def observe(
        self, batch: Mapping[str, Tensor], deterministic: bool = False
    ) -> tuple[dict[str, Tensor], LatentState, Tensor]:
        """Filters a replayed window.

        Args:
            batch: observation parts, `action`, `reward` and flags, [B, context + T, ...]; with a context step also
                its latents `deterministic` and `stochastic`.
            deterministic: most likely latents.

        Returns:
            The batch without its context as the model sees it (`WorldModel.prepare`), the states [B, T, ...] and what
            describes the posterior, [B, T, outputs of the latent].
        """
        rssm, dtype = self.world_model.rssm, self.compute_dtype
        action = batch["action"]
        if self.replay_context:
            state = LatentState(
                batch["deterministic"][:, 0].to(dtype), self._stored_latent.expand(batch["stochastic"][:, 0], dtype)
            )
            previous_action = action[:, :-1]
            batch = {name: value[:, 1:] for name, value in batch.items() if name not in self.latent_fields}
        else:
            state = rssm.initial(action.shape[0], self.device, dtype)
            previous_action = torch.cat([torch.zeros_like(action[:, :1]), action[:, :-1]], 1)
            is_first = torch.cat([torch.ones_like(batch["is_first"][:, :1]), batch["is_first"][:, 1:]], 1)
            batch = {**batch, "is_first": is_first}
        batch = self.world_model.prepare(batch, deterministic)
        states, logits = self.world_model.observe(
            batch, previous_action, state, dtype=dtype, deterministic=deterministic
        )
        return dict(batch), states, logits

    def imagine(self, start: LatentState, deterministic: bool = False) -> Rollout:
        """What the behavior would do from `start` [N, ...], in the world model."""
        return self.behavior.imagine(self.world_model, start, deterministic)

    def loss(
        self, batch: Mapping[str, Tensor], deterministic: bool = False
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], LatentState]:
        """All weighted loss terms of one replayed batch.

        Args:
            batch: see `observe`.
            deterministic: most likely latents and actions, for comparisons with reference numbers.

        Returns:
            Terms by name ([B, T] each, [B, T - 1] for `replay_value`), scalar metrics, and the states [B, T, ...].
        """
        with record_function(PHASE + "observe"):
            batch, states, posterior_logits = self.observe(batch, deterministic)
        with record_function(PHASE + "world model loss"):
            terms, metrics = self.world_model.loss(batch, states, posterior_logits)
        more_terms, more_metrics = self.behavior.learn(self.world_model, states, batch, deterministic=deterministic)
        return terms | more_terms, metrics | more_metrics, states

    def update(self, batch: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One gradient step on everything; static shapes, no host synchronization.

        Args:
            batch: see `observe`.

        Returns:
            Scalar metrics as tensors, and fresh latents for the replay: `deterministic` float16 [B, T, D] and
            `stochastic` [B, T, S], if the agent uses a context step.
        """
        self.optimizer.zero_grad()
        terms, metrics, states = self.loss(batch)
        total = torch.stack([term.mean() for term in terms.values()]).sum()
        with record_function(PHASE + "backward"):
            total.backward()
        with record_function(PHASE + "optimizer"):
            metrics |= self.optimizer.step()
            self.behavior.after_update()
        if self.exploration is not None:
            self.exploration.after_update()
            metrics |= self.exploration.metrics()
        metrics |= {f"loss/{name}": term.detach().mean() for name, term in terms.items()}
        metrics["loss/total"] = total.detach()
        return metrics, self.stored_latents(states)

    def save(self, path: Path) -> None:
        """Writes all weights, the slow critic's and the return scale to a safetensors file."""
        save_tensors(self.state_dict(), path)

    def load(self, path: Path) -> None:
        """Reads what `save` wrote.

        Raises:
            CheckpointError: the file is damaged, or its tensors are not those of this configuration.
        """
        load_tensors(self.state_dict(), path)
