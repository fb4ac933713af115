"""What every world model offers to those who dream in it, and the states that dreams pass through."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor


@dataclass
class TensorState:
    """A state of N rollouts: fields that are tensors [N, ...]."""

    def _tensors(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]

    @property
    def count(self) -> int:
        """N."""
        return self._tensors()[0].shape[0]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self._tensors()[0].device

    def select(self, index: Tensor) -> Self:
        """The rollouts of these numbers: int [M] -> a state of M rollouts."""
        return type(self)(*(value[index] for value in self._tensors()))

    def repeat(self, count: int) -> Self:
        """Every rollout `count` times, one after the other: [N, ...] -> [N count, ...]."""
        return type(self)(*(value.repeat_interleave(count, 0) for value in self._tensors()))

    def replace_where(self, mask: Tensor, other: Self) -> Self:
        """The rollouts of `other` where `mask` [N] is true, else these."""
        pairs = zip(self._tensors(), other._tensors(), strict=True)
        return type(self)(*(torch.where(mask.view(-1, *[1] * (a.dim() - 1)), b, a) for a, b in pairs))

    @classmethod
    def join(cls, states: list[Self]) -> Self:
        """The rollouts of all states, one after the other."""
        return cls(*(torch.cat(values) for values in zip(*(state._tensors() for state in states), strict=True)))


State = TypeVar("State", bound=TensorState)


class DreamModel(Protocol, Generic[State]):
    """A world model that can be dreamed in, a step at a time."""

    @property
    def features(self) -> int:
        """F, the width of `feature`."""
        ...

    @property
    def end_threshold(self) -> float:
        """Probability of the end above which an episode ends where ends are not drawn."""
        ...

    def feature(self, state: State) -> Tensor:
        """What policies and controllers read of a state: [N, F]."""
        ...

    def dream(
        self, state: State, action: Tensor, temperature: float = 1.0, most_likely: bool = False
    ) -> tuple[State, Tensor, Tensor]:
        """One step without an observation.

        Args:
            state: [N, ...].
            action: flat actions [N, A].
            temperature: of the latents; 1 is the model's own.
            most_likely: take the most likely latents instead of samples.

        Returns:
            The next state, the expected reward [N], and the probability that the episode continues [N].
        """
        ...

    def draw(self, state: State) -> dict[str, Tensor]:
        """What would be observed: part name -> [N, *shape], images uint8, all else in the environment's units."""
        ...
