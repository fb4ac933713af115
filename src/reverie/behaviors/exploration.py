"""Noise on the actions while experience is collected (PlaNet and Dreamer v1, appendix A of each)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from reverie.ops.distributions import one_hot
from reverie.spaces import ActionPart


def random_action(parts: Sequence[ActionPart], count: int, device: torch.device) -> Tensor:
    """Uniform flat actions: [count, A], continuous dimensions in [-1, 1], discrete variables one-hot."""
    pieces = []
    for part in parts:
        if part.kind == "continuous":
            pieces.append(torch.rand(count, part.size, device=device) * 2 - 1)
        else:
            draws = [(torch.randint(classes, (count,), device=device), classes) for classes in part.classes]
            pieces += [one_hot(index, classes) for index, classes in draws]
    return torch.cat(pieces, -1)


HOLDS = (4, 1, 8, 2)
"""Mean steps for which environments hold a random action, in turns."""


def held_action(drawn: Tensor, previous: Tensor, is_first: Tensor) -> Tensor:
    """Random actions that last: environment e holds each for a geometric time with mean HOLDS[e mod 4], in steps.

    Actions drawn independently at every step cancel each other where a task has inertia: of 16,000 random steps of
    Acrobot's 500-step episodes, 1 episode in 32 reaches the goal, and 13 in 35 with a mean of 4 steps. Some
    environments draw at every step, since not every task bears held actions (temporally extended exploration: Dabney
    et al., 2021).

    Args:
        drawn: fresh random actions [E, A].
        previous: those of the step before [E, A].
        is_first: bool [E], true where an episode begins and nothing is held.

    Returns:
        [E, A].
    """
    holds = torch.tensor(HOLDS, device=drawn.device)[torch.arange(drawn.shape[0], device=drawn.device) % len(HOLDS)]
    held = (torch.rand(drawn.shape[0], device=drawn.device) < 1 - 1 / holds) & ~is_first
    return torch.where(held.unsqueeze(-1), previous, drawn)


class Exploration(nn.Module):
    """Gaussian noise on continuous actions, and now and then a random choice in discrete variables.

    Args:
        parts: action parts.
        noise: deviation of the noise; what leaves [-1, 1] is clipped.
        epsilon: probability with which a discrete variable is drawn uniformly, at the beginning.
        final: the same at the end of the decay.
        decay: updates over which it falls linearly; 0 keeps it at `epsilon`.
    """

    updates: Tensor

    def __init__(
        self, parts: Sequence[ActionPart], noise: float = 0.3, epsilon: float = 0.0, final: float = 0.0, decay: int = 0
    ) -> None:
        super().__init__()
        self.parts, self.noise = tuple(parts), noise
        self.initial, self.final, self.decay = epsilon, final, decay
        self.register_buffer("updates", torch.zeros(()))

    @property
    def epsilon(self) -> Tensor:
        """The probability of a random choice now, a scalar tensor."""
        if not self.decay:
            return torch.full_like(self.updates, self.initial)
        return self.initial + (self.final - self.initial) * (self.updates / self.decay).clamp(max=1)

    def forward(self, action: Tensor) -> Tensor:
        """Flat actions [E, A] with noise -> [E, A]."""
        pieces = []
        for part, piece in zip(self.parts, action.split([part.width for part in self.parts], -1), strict=True):
            if part.kind == "continuous":
                pieces.append((piece + self.noise * torch.randn_like(piece)).clamp(-1, 1))
                continue
            for variable in piece.split(list(part.classes), -1):
                chance = torch.rand_like(variable[:, :1]) < self.epsilon
                index = torch.randint(variable.shape[-1], variable.shape[:1], device=variable.device)
                pieces.append(torch.where(chance, one_hot(index, variable.shape[-1], variable.dtype), variable))
        return torch.cat(pieces, -1)

    def metrics(self) -> dict[str, Tensor]:
        """`policy/epsilon`, where there are discrete variables."""
        return {"policy/epsilon": self.epsilon} if any(part.kind == "discrete" for part in self.parts) else {}

    def after_update(self) -> None:
        """Counts an update."""
        self.updates += 1
