"""Latent overshooting: the prior learns to look several steps ahead (PlaNet, section 4)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from reverie.models.rssm import RSSM, LatentState


def overshooting_loss(
    rssm: RSSM,
    states: LatentState,
    posterior: Tensor,
    batch: Mapping[str, Tensor],
    distance: int,
    free_nats: float,
) -> Tensor:
    """KL of posteriors from priors that were rolled forward from earlier posteriors, averaged over distances.

    For each t and each d from 2 to `distance` the prior begins in the filtered state of t and follows the actions that
    were taken; at t + d it is compared with the posterior there, which gets no gradient. Rollouts that would cross the
    beginning of an episode do not count. Distance 1 is the KL that every world model has.

    Args:
        rssm: makes the transitions.
        states: filtered, [B, T, ...].
        posterior: their distributions, [B, T, ...].
        batch: `action` and `is_first`, [B, T, ...].
        distance: largest d, at least 2.
        free_nats: lower bound of each KL, nats.

    Returns:
        [B, T], zero where no rollout arrives.
    """
    batch_size, steps = batch["is_first"].shape
    kernels = rssm.cell.prepare(states.deterministic.dtype)
    total = states.deterministic.new_zeros(batch_size, steps, dtype=torch.float32)
    inside = torch.ones_like(batch["is_first"])
    ahead = states  # those d steps after each filtered state, [B, T - d, ...]
    for d in range(1, min(distance, steps - 1) + 1):
        count = steps - d
        # one more transition with the action that was taken: p(s_{t+d} | s_t, a_t, ..., a_{t+d-1})
        action = batch["action"][:, d - 1 : steps - 1].flatten(0, 1)
        moved = rssm.imagine_step(ahead.at(slice(0, count)).flatten(), action, kernels)
        ahead = type(states)(*(x.unflatten(0, (batch_size, count)) for x in (moved.deterministic, moved.stochastic)))
        inside = inside[:, :count] & ~batch["is_first"][:, d:]
        if d > 1:
            # KL(sg q(z_{t+d}) || p(z_{t+d} | s_t)), where no episode begins in between: [B, T - d]
            prior = rssm.latent.distribution(rssm.predict(ahead.deterministic))
            divergence = rssm.latent.divergence(posterior[:, d:].detach(), prior).clamp(min=free_nats)
            total[:, d:] += divergence * inside / (distance - 1)
    return total
