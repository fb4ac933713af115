"""What every behavior offers to the agent that it acts for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from reverie.models.rssm import LatentState
from reverie.models.world_model import WorldModel

PHASE = "reverie: "
"""Prefix of the profiler labels of an update's phases."""


@dataclass
class Rollout:
    """What was imagined from N = B T starts, time first, so that a range of steps is one piece of memory.

    Attributes:
        features: of every state, [H + 1, N, F].
        actions: [H, N, A].
        parameters: of the policy's distributions, with gradient, [H, N, P]; P is 0 where nothing but a plan acts.
    """

    features: Tensor
    actions: Tensor
    parameters: Tensor


class Behavior(nn.Module, ABC):
    """Acts on a world model, and may learn inside it.

    Attributes:
        evaluates_with_mode: whether evaluation takes the most likely actions, as the papers before DreamerV3 do.
    """

    evaluates_with_mode = False

    @abstractmethod
    def choose(self, world_model: WorldModel, state: LatentState, most_likely: bool) -> Tensor:
        """Actions in states [E, ...] -> float32 [E, A]."""

    @abstractmethod
    def imagine(self, world_model: WorldModel, start: LatentState, deterministic: bool = False) -> Rollout:
        """What would be done from N states, [N, ...].

        Args:
            world_model: its `rssm` makes the transitions.
            start: where the rollouts begin.
            deterministic: most likely latents and actions instead of samples.
        """

    @abstractmethod
    def learn(
        self, world_model: WorldModel, states: LatentState, batch: Mapping[str, Tensor], deterministic: bool
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Loss terms and scalar metrics of replayed states; both empty where there is nothing to learn.

        Args:
            world_model: gets no gradient from imagined steps.
            states: filtered, with gradient, [B, T, ...].
            batch: observation parts, `action`, `reward` and flags, [B, T, ...].
            deterministic: most likely latents and actions.
        """

    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """Trained networks by name."""

    def after_update(self) -> None:
        """Called after every step of the optimizer."""
