"""From observations to tokens: image stages, a vector network, and their concatenation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Literal

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from reverie.errors import ConfigError
from reverie.nn.layers import MLP, Convolution, NetworkStyle, NormActivation
from reverie.ops.distributions import one_hot
from reverie.ops.transforms import symlog
from reverie.spaces import ObservationPart

ImageNetwork = Literal["pooled", "strided", "unpadded"]
STAGE_FACTORS: dict[ImageNetwork, tuple[int, ...]] = {
    "pooled": (2, 3, 4, 4),
    "strided": (1, 2, 4, 8),
    "unpadded": (1, 2, 4, 8),
}
"""Channels of the four stages as multiples of `depth`: DreamerV3 of 2025 (max-pool), of 2023 (stride), and the agents
before it (stride without padding, for images of 64x64)."""
VectorScale = Literal["symlog", "raw"]
UNPADDED_SIDE = 64


def image_stages(height: int, width: int) -> int:
    """Number of stages that halve an image: four, or three where four would leave fewer than three pixels."""
    return 4 if min(height, width) >= 48 else 3


def padded_side(side: int, stages: int) -> int:
    """The next multiple of 2^stages; images are padded to it and reconstructions cropped back."""
    return -(-side // 2**stages) * 2**stages


def group_images(parts: Sequence[ObservationPart]) -> list[list[ObservationPart]]:
    """Image parts of equal height and width, which share one network with their channels side by side."""
    images = sorted((part for part in parts if part.kind == "image"), key=lambda part: (part.shape[:2], part.name))
    return [list(group) for _, group in groupby(images, key=lambda part: part.shape[:2])]


def encode_discrete(index: Tensor, classes: Sequence[int]) -> Tensor:
    """One-hot vectors of several variables side by side: int [..., V] -> float32 [..., sum of classes]."""
    if len(set(classes)) == 1:
        return one_hot(index, classes[0]).flatten(-2)
    return torch.cat([one_hot(index[..., i], count) for i, count in enumerate(classes)], -1)


class ImageEncoder(nn.Module):
    """Convolutional stages that halve the image: [N, H, W, C] in [-0.5, 0.5] -> [N, tokens].

    `pooled` (2025): convolution 5x5, 2x2 max-pool, RMSNorm, SiLU. `strided` (2023): convolution 4x4 with stride 2,
    LayerNorm, SiLU. `unpadded` (World Models, PlaNet, Dreamer v1, DreamerV2): convolution 4x4 with stride 2 and no
    padding, which leaves 2x2 of 64x64 pixels, and an activation.

    Raises:
        ConfigError: `unpadded` and an image of another size.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        depth: int,
        network: ImageNetwork,
        style: NetworkStyle,
    ) -> None:
        super().__init__()
        height, width, channels = shape
        if network == "unpadded":
            _check_side(height, width)
        stages = image_stages(height, width)
        self.padding = (padded_side(height, stages) - height, padded_side(width, stages) - width)
        self.pooled, padded = network == "pooled", network != "unpadded"
        widths = [channels] + [depth * factor for factor in STAGE_FACTORS[network][:stages]]
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.convolutions = nn.ModuleList(
            Convolution(a, b, kernel=5, initializer=style.kernel)
            if self.pooled
            else Convolution(
                a, b, kernel=4, initializer=style.kernel, stride=2, bias=style.norm == "none", padded=padded
            )
            for a, b in pairs
        )
        self.norms = nn.ModuleList(NormActivation(b, style.norm, style.activation) for _, b in pairs)
        cells = padded_side(height, stages) * padded_side(width, stages) // 4**stages if padded else 4
        self.outputs = cells * widths[-1]

    def forward(self, image: Tensor) -> Tensor:
        """[N, H, W, C] -> [N, tokens], flattened row by row with channels last."""
        down, right = self.padding
        if down or right:
            image = functional.pad(image.permute(0, 3, 1, 2), (0, right, 0, down), mode="replicate")
            image = image.permute(0, 2, 3, 1)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            image = convolution(image)
            if self.pooled:
                image = functional.max_pool2d(image.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
            image = norm(image)
        return image.flatten(1)


def _check_side(height: int, width: int) -> None:
    if (height, width) != (UNPADDED_SIDE, UNPADDED_SIDE):
        raise ConfigError(
            f"the image networks of this agent take {UNPADDED_SIDE}x{UNPADDED_SIDE} pixels, but the environment shows "
            f"{height}x{width}; resize with --image-size {UNPADDED_SIDE}"
        )


class Encoder(nn.Module):
    """Observation parts to one token vector a step: image tokens, then vector tokens.

    Vectors pass through symlog (DreamerV3, Nature 2025, "World model learning") or stay as they are (older agents),
    class indices become one-hot, images are scaled to [-0.5, 0.5].

    Args:
        parts: observation parts of the environment.
        depth: base number of image channels.
        units: width of the vector network.
        layers: its layers.
        network: kind of image network.
        style: of the vector network.
        image_style: of the image networks; by default the same.
        vectors: scale of the vectors.
    """

    def __init__(
        self,
        parts: Sequence[ObservationPart],
        *,
        depth: int,
        units: int,
        layers: int,
        network: ImageNetwork,
        style: NetworkStyle,
        image_style: NetworkStyle | None = None,
        vectors: VectorScale = "symlog",
    ) -> None:
        super().__init__()
        self.vectors = vectors
        self.image_groups = group_images(parts)
        self.images = nn.ModuleList()
        for group in self.image_groups:
            height, width, _ = group[0].shape
            channels = sum(part.shape[2] for part in group)
            shape = (height, width, channels)
            self.images.append(ImageEncoder(shape, depth=depth, network=network, style=image_style or style))
        self.flat_parts = sorted((part for part in parts if part.kind != "image"), key=lambda part: part.name)
        inputs = sum(sum(part.classes) if part.kind == "discrete" else part.shape[0] for part in self.flat_parts)
        self.vector = MLP(inputs, units=units, layers=layers, style=style) if inputs else None
        self.outputs = sum(image.outputs for image in self.images)  # type: ignore[misc]
        self.outputs += self.vector.outputs if self.vector else 0

    def forward(self, observation: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
        """Tokens of every step.

        Args:
            observation: part name -> [B, T, *shape] in the dtype of the part.
            dtype: compute dtype of the networks.

        Returns:
            [B, T, tokens] in `dtype`.
        """
        tokens = []
        for group, network in zip(self.image_groups, self.images, strict=True):
            image = torch.cat([observation[part.name] for part in group], -1)
            scaled = image.flatten(0, 1).to(dtype) / 255 - 0.5
            tokens.append(network(scaled).unflatten(0, image.shape[:2]))
        if self.vector is not None:
            flat = [
                encode_discrete(observation[part.name], part.classes)
                if part.kind == "discrete"
                else symlog(observation[part.name])
                if self.vectors == "symlog"
                else observation[part.name]
                for part in self.flat_parts
            ]
            tokens.append(self.vector(torch.cat(flat, -1).to(dtype)))
        return torch.cat(tokens, -1)
