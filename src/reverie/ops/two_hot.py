"""Regression as classification over fixed bins (DreamerV3, Nature 2025, "Critic learning").

A scalar is written as weights on its two neighboring bins, so that the weighted bin positions give the scalar back.
The functions never build the dense target of one column a bin: they gather the few log-probabilities they need.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from reverie.ops.transforms import symexp


def symexp_bins(count: int, limit: float = 20.0) -> Tensor:
    """Bin positions symexp(linspace(-limit, limit, count)), exactly symmetric about an exact zero.

    Args:
        count: number of bins, odd.
        limit: largest magnitude before symexp; 20 covers values to about 4.85e8.

    Returns:
        float32 [count], rising.
    """
    if count % 2 == 0:
        raise ValueError(f"expected an odd number of bins so that one of them is zero, got {count}")
    negative = symexp(torch.linspace(-limit, 0, count // 2 + 1, dtype=torch.float32))
    return torch.cat([negative, -negative[:-1].flip(0)])


def symlog_bins(count: int, limit: float = 20.0) -> Tensor:
    """Bin positions linspace(-limit, limit, count) in symlog space, as in the 2023 version. float32 [count]."""
    return torch.linspace(-limit, limit, count, dtype=torch.float32)


def two_hot_weights(value: Tensor, bins: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The two bins beside each value and their weights.

    Values outside the bins put all weight on the end bin.

    Args:
        value: any shape.
        bins: [K], rising.

    Returns:
        Indices below and above (int64) and weights below and above (float32), each of the shape of `value`.
    """
    last = bins.shape[0] - 1
    value = value.contiguous()
    below = (torch.searchsorted(bins, value, right=True) - 1).clamp(0, last)
    above = torch.searchsorted(bins, value, right=False).clamp(0, last)
    # Where the value is a bin, `right=False` finds that same bin; both indices agree and all weight goes below.
    same = below == above
    to_below = torch.where(same, 1.0, (bins[below] - value).abs())
    to_above = torch.where(same, 1.0, (bins[above] - value).abs())
    total = to_below + to_above
    return below, above, to_above / total, to_below / total


class _TwoHotCrossEntropy(torch.autograd.Function):
    """Sum over several targets of the cross entropy with their two-hot codes.

    The gradient for each row is n softmax(logits) minus the codes, n the number of targets. Writing it by hand saves
    the passes over the logits that autograd would make for log-softmax and each gather.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        normalizer = logits.logsumexp(-1, keepdim=True)
        chosen = logits.gather(-1, index)
        targets = weight.sum(-1)
        ctx.save_for_backward(logits, normalizer, index, weight)
        return normalizer.squeeze(-1) * targets - (chosen * weight).sum(-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        logits, normalizer, index, weight = ctx.saved_tensors
        probability = (logits - normalizer).exp_()
        probability *= weight.sum(-1, keepdim=True) * gradient.unsqueeze(-1)
        return probability.scatter_add_(-1, index, -weight * gradient.unsqueeze(-1)), None, None


def two_hot_cross_entropy(logits: Tensor, values: Sequence[Tensor], bins: Tensor) -> Tensor:
    """Sum over `values` of the cross entropy between their two-hot codes and softmax(logits).

    Args:
        logits: float32 [..., K].
        values: targets in the space of the bins, each [...]; no gradient flows into them.
        bins: [K], rising.

    Returns:
        [...], nats.
    """
    codes = [two_hot_weights(value.detach(), bins) for value in values]
    index = torch.stack([i for below, above, _, _ in codes for i in (below, above)], -1)
    weight = torch.stack([w for _, _, low, high in codes for w in (low, high)], -1)
    return _TwoHotCrossEntropy.apply(logits, index, weight)


def two_hot_mean(logits: Tensor, bins: Tensor) -> Tensor:
    """Expected bin position under softmax(logits): [..., K] -> [...].

    For bins symmetric about zero the negative and positive halves are added pairwise, so that uniform probabilities
    give exactly zero although the outer bins reach 1e8; a plain sum would leave a rounding error of that scale.
    """
    half = bins.shape[0] // 2
    probability = logits.softmax(-1)
    pairs = probability[..., half + 1 :] - probability[..., :half].flip(-1)
    return pairs @ bins[half + 1 :] + probability[..., half] * bins[half]
