"""Families of distributions over continuous actions, by which the agents of the Dreamer line differ.

Each describes itself by two tensors [..., N] made of the policy's outputs, a mean and a raw deviation; all else is a
function of these two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as functional
from torch import Tensor

from reverie.ops import distributions


class Continuous(Protocol):
    """A family of distributions over N continuous action dimensions."""

    def describe(self, mean: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the underlying normal, from the policy's outputs: [..., N] each."""
        ...

    def sample(self, mean: Tensor, deviation: Tensor) -> Tensor:
        """A reparameterized sample [..., N]."""
        ...

    def mode(self, mean: Tensor) -> Tensor:
        """The action to take without chance, [..., N]."""
        ...

    def log_probability(self, action: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        """Log-density summed over dimensions: [..., N] -> [...], nats."""
        ...

    def entropy(self, mean: Tensor, deviation: Tensor) -> Tensor:
        """Differential entropy summed over dimensions: [...], nats."""
        ...


@dataclass(frozen=True)
class BoundedNormal:
    """A normal with mean tanh(x) and deviation low + (high - low) s(y + 2), s the logistic function (DreamerV3).

    Samples are neither squashed nor clipped; environment and world model clip.

    Attributes:
        low, high: minimum and maximum deviation.
    """

    low: float = 0.1
    high: float = 1.0

    def describe(self, mean: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """See `Continuous`."""
        return torch.tanh(mean), (self.high - self.low) * torch.sigmoid(raw + 2) + self.low

    def sample(self, mean: Tensor, deviation: Tensor) -> Tensor:
        """See `Continuous`."""
        return mean + deviation * torch.randn_like(mean)

    def mode(self, mean: Tensor) -> Tensor:
        """The mean."""
        return mean

    def log_probability(self, action: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        """See `Continuous`."""
        return distributions.normal_log_probability(action, mean, deviation)

    def entropy(self, mean: Tensor, deviation: Tensor) -> Tensor:
        """See `Continuous`."""
        return distributions.normal_entropy(deviation)


@dataclass(frozen=True)
class TanhNormal:
    """tanh of a normal with mean 5 tanh(x / 5) and deviation softplus(y + ln(e^initial - 1)) + least (Dreamer v1).

    Attributes:
        initial: deviation where the network puts out zero.
        least: minimum deviation.
        limit: bound of the mean.
    """

    initial: float = 5.0
    least: float = 1e-4
    limit: float = 5.0

    def describe(self, mean: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """See `Continuous`."""
        offset = math.log(math.expm1(self.initial))
        return self.limit * torch.tanh(mean / self.limit), functional.softplus(raw + offset) + self.least

    def sample(self, mean: Tensor, deviation: Tensor) -> Tensor:
        """See `Continuous`."""
        return torch.tanh(mean + deviation * torch.randn_like(mean))

    def mode(self, mean: Tensor) -> Tensor:
        """Tanh of the mean; the released code takes the most likely of a hundred samples."""
        return torch.tanh(mean)

    def log_probability(self, action: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        """See `Continuous`."""
        return distributions.tanh_normal_log_probability(action, mean, deviation)

    def entropy(self, mean: Tensor, deviation: Tensor) -> Tensor:
        """See `Continuous`."""
        return distributions.tanh_normal_entropy(mean, deviation)


@dataclass(frozen=True)
class TruncatedNormal:
    """A normal with mean tanh(x) and deviation 2 s(y / 2) + least, truncated to [-1, 1] (DreamerV2).

    Attributes:
        least: minimum deviation of the normal.
    """

    least: float = 0.1

    def describe(self, mean: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """See `Continuous`."""
        return torch.tanh(mean), 2 * torch.sigmoid(raw / 2) + self.least

    def sample(self, mean: Tensor, deviation: Tensor) -> Tensor:
        """See `Continuous`."""
        return distributions.truncated_normal_sample(mean, deviation)

    def mode(self, mean: Tensor) -> Tensor:
        """The mean of the normal, which lies within the bounds."""
        return mean

    def log_probability(self, action: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        """See `Continuous`."""
        return distributions.truncated_normal_log_probability(action, mean, deviation)

    def entropy(self, mean: Tensor, deviation: Tensor) -> Tensor:
        """See `Continuous`."""
        return distributions.truncated_normal_entropy(mean, deviation)
