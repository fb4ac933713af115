"""The scale of returns, tracked over training (DreamerV3, Nature 2025, equation 7)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ReturnNormalizer(nn.Module):
    """Range between two percentiles of the returns, as exponential moving averages that start at zero.

    Args:
        rate: share of the newest batch in the average; 0.01 in DreamerV3.
        low, high: percentiles, in [0, 1].
        limit: minimum scale, so that small returns are not blown up.
    """

    low: Tensor
    high: Tensor

    def __init__(self, rate: float = 0.01, low: float = 0.05, high: float = 0.95, limit: float = 1.0) -> None:
        super().__init__()
        self.rate, self.limit = rate, limit
        self.register_buffer("percentiles", torch.tensor([low, high]), persistent=False)
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    @torch.no_grad()
    def update(self, returns: Tensor) -> None:
        """Moves the averages toward the percentiles of `returns`, any shape."""
        low, high = torch.quantile(returns.detach().float().flatten(), self.get_buffer("percentiles"))
        self.low.lerp_(low, self.rate)
        self.high.lerp_(high, self.rate)

    @property
    def scale(self) -> Tensor:
        """max(limit, high - low), a scalar tensor."""
        return (self.high - self.low).clamp(min=self.limit)
