"""Mixtures of Gaussians, one for each latent dimension, and the divergence of a diagonal Gaussian (World Models, 2018).

Z is the number of latent dimensions, K the number of components. Each dimension has weights, means and deviations of
its own, as in the released code of World Models; the dimensions are independent given the recurrent state.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reverie.ops.distributions import sample_index

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def mixture_log_probability(value: Tensor, log_weights: Tensor, means: Tensor, log_deviations: Tensor) -> Tensor:
    """Log-density of each dimension: log sum_k w_k N(value; mean_k, deviation_k), in nats.

    Args:
        value: [..., Z].
        log_weights: [..., Z, K], up to a constant: they are normalized over the last axis.
        means: [..., Z, K].
        log_deviations: logarithms of the standard deviations, [..., Z, K], not bounded.

    Returns:
        [..., Z].
    """
    distance = (value.unsqueeze(-1) - means) * torch.exp(-log_deviations)
    component = log_weights.log_softmax(-1) - 0.5 * distance.square() - log_deviations
    return component.logsumexp(-1) - _HALF_LOG_TWO_PI


def sample_mixture(
    log_weights: Tensor, means: Tensor, log_deviations: Tensor, temperature: float, most_likely: bool = False
) -> Tensor:
    """A sample of each dimension at a temperature t (World Models, "MDN-RNN (M) Model").

    A component is drawn from softmax(log_weights / t), then a normal number around its mean with the deviation times
    sqrt(t): the temperature multiplies the variance. No gradient reaches the choice of the component.

    Args:
        log_weights: [..., Z, K], up to a constant.
        means: [..., Z, K].
        log_deviations: [..., Z, K].
        temperature: t > 0; 1 samples from the mixture itself.
        most_likely: take the mean of the heaviest component instead of a sample.

    Returns:
        [..., Z].
    """
    if most_likely:
        index = log_weights.argmax(-1, keepdim=True)
        return means.gather(-1, index).squeeze(-1)
    index = sample_index((log_weights / temperature).softmax(-1)).unsqueeze(-1)
    mean = means.gather(-1, index).squeeze(-1)
    deviation = log_deviations.gather(-1, index).squeeze(-1).exp()
    return mean + deviation * math.sqrt(temperature) * torch.randn_like(mean)


def gaussian_kl_to_standard(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) summed over the last axis: [..., Z] twice -> [...], nats."""
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(-1)
