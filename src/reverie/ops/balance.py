"""The KL loss with its two halves weighted apart (DreamerV2, algorithm 2; DreamerV3, equation 3)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def balanced_kl(
    posterior: Tensor, prior: Tensor, divergence: Callable[[Tensor, Tensor], Tensor], free_nats: float
) -> tuple[Tensor, Tensor]:
    """The dynamics and the representation half of the KL loss, each clipped from below at every step.

    Both halves have the same value. The gradient of the first trains only the prior, that of the second only the
    posterior. A half whose value lies below `free_nats` has no gradient.

    Args:
        posterior: parameters (e.g. log-probabilities) of the posterior, [B, T, ...].
        prior: parameters of the prior, same shape.
        divergence: KL(first || second) -> [B, T].
        free_nats: lower bound of each half, nats.

    Returns:
        dynamics loss max(KL(sg posterior || prior), free) and representation loss max(KL(posterior || sg prior), free),
        both [B, T].
    """
    dynamics = divergence(posterior.detach(), prior).clamp(min=free_nats)
    representation = divergence(posterior, prior.detach()).clamp(min=free_nats)
    return dynamics, representation
