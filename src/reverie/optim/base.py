"""What an agent asks of its optimizer."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Optimizer(Protocol):
    """Updates parameters from their gradients; its whole state is named tensors, so that no pickle is needed."""

    def zero_grad(self) -> None:
        """Forgets all gradients."""

    def step(self) -> dict[str, Tensor]:
        """Updates the parameters in place and returns scalar metrics."""

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything that must be saved, by name."""

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of `state_tensors`, in place."""
