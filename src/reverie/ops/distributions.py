"""Densities, entropies and samples of the two families the agents use: categorical variables and diagonal normals.

Categorical logits are [..., S, C]: S independent variables of C classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


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
    """One-hot vectors by comparison, with no host synchronisation: int [...] -> [..., classes]."""
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
