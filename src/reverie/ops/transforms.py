"""Squashing functions for targets and inputs of unknown scale (DreamerV3, Nature 2025, equation 1)."""

from __future__ import annotations

import torch
from torch import Tensor


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|): compresses large magnitudes, is the identity near zero. Any shape."""
    return torch.sign(x) * torch.log1p(x.abs())


def symexp(x: Tensor) -> Tensor:
    """sign(x) (exp|x| - 1), the inverse of `symlog`. Any shape."""
    return torch.sign(x) * torch.expm1(x.abs())
