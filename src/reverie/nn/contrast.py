"""Contrastive representation learning: features that are told apart by the observation (Dreamer v1, section 4)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from reverie.nn.layers import MLP, Linear, NetworkStyle


class ContrastiveHead(nn.Module):
    """A normal distribution over latent features given the encoder's tokens, trained to prefer the right features.

    Args:
        tokens: K, width of the encoder's output.
        features: F.
        units, layers: of the hidden network.
        style: of the layers.
        sequences, steps: features of how many neighboring sequences and steps each token is compared with.
    """

    def __init__(
        self,
        tokens: int,
        features: int,
        *,
        units: int,
        layers: int,
        style: NetworkStyle,
        sequences: int = 10,
        steps: int = 30,
    ) -> None:
        super().__init__()
        self.network = MLP(tokens, units=units, layers=layers, style=style)
        self.output = Linear(self.network.outputs, 2 * features, style.output_kernel)
        self.sequences, self.steps = sequences, steps

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation, which begins near 1 and is at least 0.01: [..., K] -> float32 [..., F] twice."""
        mean, raw = self.output(self.network(tokens)).float().chunk(2, -1)
        return mean, functional.softplus(raw + math.log(math.e - 1)) + 0.01

    def loss(self, tokens: Tensor, feature: Tensor) -> Tensor:
        """Noise-contrastive loss: ln sum_j q(s_j | e) - ln q(s | e), where the j include s itself.

        Args:
            tokens: e, [B, T, K].
            feature: s, [B, T, F].

        Returns:
            [B, T], nats; at least zero.
        """
        batch, steps = tokens.shape[:2]
        mean, deviation = (x.flatten(0, 1) for x in self(tokens))
        feature = feature.float().flatten(0, 1)
        # sum ((s - m) / d)^2 for all pairs, as three products: [B T, B T].
        precision = deviation.square().reciprocal()
        squares = precision @ feature.square().T - 2 * (precision * mean) @ feature.T
        squares = squares + (precision * mean.square()).sum(-1, keepdim=True)
        score = -0.5 * squares - deviation.log().sum(-1, keepdim=True)
        compared = _neighbors(batch, self.sequences, feature.device).repeat_interleave(steps, 0)
        compared = compared.repeat_interleave(steps, 1) & _neighbors(steps, self.steps, feature.device).repeat(
            batch, batch
        )
        negative = score.masked_fill(~compared, -torch.inf).logsumexp(-1)
        return (negative - score.diagonal()).view(batch, steps)


def _neighbors(count: int, amount: int, device: torch.device) -> Tensor:
    """Which of `count` places on a circle lie in the window of `amount` about each: bool [count, count]."""
    place = torch.arange(count, device=device)
    offset = place[None] - place[:, None] + (amount - 1) // 2
    return offset.remainder(count) < amount
