"""The KL loss with its two halves weighted apart (DreamerV2, algorithm 2; DreamerV3, equation 3).

PlaNet and Dreamer v1 have the plain KL, which is both halves with the weight one.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def balanced_kl(
    posterior: Tensor,
    prior: Tensor,
    divergence: Callable[[Tensor, Tensor], Tensor],
    free_nats: float,
    average: bool = False,
) -> tuple[Tensor, Tensor]:
    """The dynamics and the representation half of the KL loss, each clipped from below.

    Both halves have the same value. The gradient of the first trains only the prior, that of the second only the
    posterior; their sum has exactly the gradient of the plain KL. What lies below `free_nats` has no gradient.

    Args:
        posterior: parameters (e.g. log-probabilities) of the posterior, [B, T, ...].
        prior: parameters of the prior, same shape.
        divergence: KL(first || second) -> [B, T].
        free_nats: lower bound of each half, nats.
        average: clip the mean over the batch (Dreamer v1, DreamerV2) instead of every step (PlaNet, DreamerV3).

    Returns:
        dynamics loss max(KL(sg posterior || prior), free) and representation loss max(KL(posterior || sg prior), free),
        both [B, T]; with `average` all entries of each are the same.
    """
    dynamics = divergence(posterior.detach(), prior)
    representation = divergence(posterior, prior.detach())
    if average:
        dynamics, representation = dynamics.mean().expand_as(dynamics), representation.mean().expand_as(dynamics)
    return dynamics.clamp(min=free_nats), representation.clamp(min=free_nats)
