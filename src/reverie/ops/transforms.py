"""Squashing functions for targets and inputs of unknown scale, and images with fewer bits."""

from __future__ import annotations

import torch
from torch import Tensor


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|) (DreamerV3, Nature 2025, equation 1): compresses large magnitudes. Any shape."""
    return torch.sign(x) * torch.log1p(x.abs())


def symexp(x: Tensor) -> Tensor:
    """sign(x) (exp|x| - 1), the inverse of `symlog`. Any shape."""
    return torch.sign(x) * torch.expm1(x.abs())


def quantize(image: Tensor, bits: int, deterministic: bool = False) -> Tensor:
    """An image rounded down to 2^bits levels, with uniform noise that fills each level (PlaNet, appendix A).

    floor(x / 2^(8 - bits)) / 2^bits + u with u drawn from [0, 2^-bits), times 255.

    Args:
        image: uint8, any shape.
        bits: 1 to 8.
        deterministic: the middle of the level instead of noise.

    Returns:
        float32 from 0 to 255, the same shape.
    """
    level = torch.div(image.float(), 2 ** (8 - bits), rounding_mode="floor")
    noise = torch.full_like(level, 0.5) if deterministic else torch.rand_like(level)
    return (level + noise) * (255 / 2**bits)
