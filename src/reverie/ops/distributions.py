"""Densities, entropies and samples of the families the agents use: categorical variables and diagonal normals.

Of the normals there are two bounded kinds: squashed by tanh, and truncated to [-1, 1].

Categorical logits are [..., S, C]: S independent variables of C classes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from torch import Tensor

_NODES = 33


def mixed_log_probabilities(logits: Tensor, uniform_mix: float) -> Tensor:
    """log((1 - m) softmax(logits) + m / C) over the last axis, float32 (DreamerV3: m = 1 %).

    The mixture keeps every class possible, so that no KL divergence grows without bound.
    """
    if uniform_mix == 0:
        return logits.float().log_softmax(-1)
    return torch.log(mixed_probabilities(logits, uniform_mix))


def mixed_probabilities(logits: Tensor, uniform_mix: float) -> Tensor:
    """(1 - m) softmax(logits) + m / C over the last axis, float32: [..., C] -> [..., C]."""
    probability = logits.float().softmax(-1)
    return probability if uniform_mix == 0 else probability * (1 - uniform_mix) + uniform_mix / logits.shape[-1]


def sample_index(probabilities: Tensor) -> Tensor:
    """Class indices drawn by inverting the cumulative distribution, one uniform number a variable.

    Args:
        probabilities: [..., C], summing to one; no gradient is recorded.

    Returns:
        int64 [...].
    """
    cumulative = probabilities.detach().cumsum(-1)
    uniform = torch.rand_like(cumulative[..., :1]) * cumulative[..., -1:]
    return (cumulative <= uniform).sum(-1).clamp(max=probabilities.shape[-1] - 1)


def one_hot(index: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """One-hot vectors by comparison, with no host synchronization: int [...] -> [..., classes]."""
    return (index.unsqueeze(-1) == torch.arange(classes, device=index.device)).to(dtype)


def straight_through(index: Tensor, probabilities: Tensor) -> Tensor:
    """One-hot of `index` in the forward pass, gradient of `probabilities` in the backward pass. -> [..., C]."""
    hard = one_hot(index, probabilities.shape[-1], probabilities.dtype)
    return hard + (probabilities - probabilities.detach())


def categorical_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) summed over the S variables: log-probabilities [..., S, C] -> [...], nats."""
    return (log_p.exp() * (log_p - log_q)).sum((-2, -1))


def categorical_entropy(log_p: Tensor) -> Tensor:
    """Entropy summed over the S variables: log-probabilities [..., S, C] -> [...], nats."""
    return -(log_p.exp() * log_p).sum((-2, -1))


def categorical_log_probability(log_p: Tensor, one_hots: Tensor) -> Tensor:
    """Log-probability of one-hot samples summed over the S variables: [..., S, C] twice -> [...], nats."""
    return torch.where(one_hots > 0.5, log_p, 0.0).sum((-2, -1))


def normal_log_probability(value: Tensor, mean: Tensor, standard_deviation: Tensor) -> Tensor:
    """Log-density of a diagonal normal summed over the last axis: [..., N] -> [...], nats."""
    z = (value - mean) / standard_deviation
    return (-0.5 * z.square() - standard_deviation.log() - 0.5 * math.log(2 * math.pi)).sum(-1)


def normal_entropy(standard_deviation: Tensor) -> Tensor:
    """Differential entropy of a diagonal normal summed over the last axis: [..., N] -> [...], nats."""
    return (standard_deviation.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


def normal_kl(mean: Tensor, deviation: Tensor, other_mean: Tensor, other_deviation: Tensor) -> Tensor:
    """KL of one diagonal normal from another, summed over the last axis: [..., N] each -> [...], nats."""
    ratio = (deviation / other_deviation).square()
    distance = ((mean - other_mean) / other_deviation).square()
    return 0.5 * (ratio + distance - 1 - ratio.log()).sum(-1)


def tanh_log_slope(x: Tensor) -> Tensor:
    """ln(1 - tanh(x)^2), elementwise and without overflow: 2 (ln 2 - x - softplus(-2 x))."""
    return 2 * (math.log(2) - x - functional.softplus(-2 * x))


def tanh_normal_log_probability(value: Tensor, mean: Tensor, standard_deviation: Tensor) -> Tensor:
    """Log-density of tanh(u) with u from a diagonal normal, summed over the last axis: [..., N] -> [...], nats.

    Values are kept a millionth from -1 and 1, where u would be infinite.
    """
    inside = torch.atanh(value.clamp(-1 + 1e-6, 1 - 1e-6))
    return normal_log_probability(inside, mean, standard_deviation) - tanh_log_slope(inside).sum(-1)


def tanh_normal_entropy(mean: Tensor, standard_deviation: Tensor) -> Tensor:
    """Differential entropy of tanh(u), summed over the last axis: [..., N] twice -> [...], nats.

    It is the entropy of the normal plus the mean of ln(1 - tanh(u)^2), which has no closed form: here it is a sum over
    `_NODES` equally spaced points of u within five deviations, off by less than a hundredth for deviations up to 5.
    """
    points = torch.linspace(-5, 5, _NODES, device=mean.device)
    weights = torch.softmax(-0.5 * points.square(), 0)
    spread = mean.unsqueeze(-1) + standard_deviation.unsqueeze(-1) * points
    return normal_entropy(standard_deviation) + (tanh_log_slope(spread) @ weights).sum(-1)


def truncated_normal_sample(mean: Tensor, standard_deviation: Tensor) -> Tensor:
    """A reparameterized sample of a normal truncated to [-1, 1], by inverting its cumulative distribution. [...]."""
    low, high = _cut(mean, standard_deviation)
    low_share, high_share = torch.special.ndtr(low), torch.special.ndtr(high)
    share = low_share + torch.rand_like(mean) * (high_share - low_share)
    sample = mean + standard_deviation * torch.special.ndtri(share.clamp(1e-6, 1 - 1e-6))
    # Rounding may leave the range; what brings it back passes the gradient on.
    return sample + (sample.clamp(-1 + 1e-6, 1 - 1e-6) - sample).detach()


def truncated_normal_log_probability(value: Tensor, mean: Tensor, standard_deviation: Tensor) -> Tensor:
    """Log-density of a normal truncated to [-1, 1], summed over the last axis: [..., N] -> [...], nats."""
    low, high = _cut(mean, standard_deviation)
    inside = (torch.special.ndtr(high) - torch.special.ndtr(low)).clamp(min=1e-8)
    return normal_log_probability(value, mean, standard_deviation) - inside.log().sum(-1)


def truncated_normal_entropy(mean: Tensor, standard_deviation: Tensor) -> Tensor:
    """Differential entropy of a normal truncated to [-1, 1], summed over the last axis: [..., N] twice -> [...], nats.

    With a and b the bounds in deviations from the mean, p the standard density and Z the mass between them:
    ln(sqrt(2 pi e) deviation Z) + (a p(a) - b p(b)) / (2 Z).
    """
    low, high = _cut(mean, standard_deviation)
    inside = (torch.special.ndtr(high) - torch.special.ndtr(low)).clamp(min=1e-8)
    edges = (low * _standard_density(low) - high * _standard_density(high)) / (2 * inside)
    return normal_entropy(standard_deviation) + (inside.log() + edges).sum(-1)


def _cut(mean: Tensor, standard_deviation: Tensor) -> tuple[Tensor, Tensor]:
    """The bounds -1 and 1 in deviations from the mean."""
    return (-1 - mean) / standard_deviation, (1 - mean) / standard_deviation


def _standard_density(x: Tensor) -> Tensor:
    return torch.exp(-0.5 * x.square()) / math.sqrt(2 * math.pi)
