"""From latent states back to observations, and the reconstruction loss of each observation part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from reverie.errors import ConfigError
from reverie.nn.encoders import STAGE_FACTORS, ImageNetwork, group_images, image_stages, padded_side
from reverie.nn.layers import MLP, BlockLinear, Convolution, Initialiser, Linear, NormActivation
from reverie.ops.transforms import symexp, symlog
from reverie.spaces import ObservationPart


class PooledImageDecoder(nn.Module):
    """Image decoder of the 2025 version: block-diagonal entry, then nearest upsampling and 5x5 convolutions.

    h enters through a block-diagonal layer (each block owns a slice of the channels), z through two dense layers;
    their sum is normalised. The last stage ends in a sigmoid.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        deterministic: int,
        stochastic: int,
        depth: int,
        units: int,
        blocks: int,
        initialiser: Initialiser,
    ) -> None:
        super().__init__()
        height, width, channels = shape
        stages = image_stages(height, width)
        self.shape, self.deterministic, self.blocks = shape, deterministic, blocks
        self.grid = (padded_side(height, stages) // 2**stages, padded_side(width, stages) // 2**stages)
        widths = [depth * factor for factor in STAGE_FACTORS["pooled"][:stages]][::-1]
        cells = math.prod(self.grid) * widths[0]
        if widths[0] % blocks:
            raise ConfigError(
                f"the image decoder begins with {widths[0]} channels (4 x depth) and {blocks} blocks, which does not "
                f"divide; choose another depth or number of blocks"
            )
        self.from_deterministic = BlockLinear(deterministic, cells, blocks, initialiser)
        self.from_stochastic = Linear(stochastic, 2 * units, initialiser)
        self.norm_stochastic = NormActivation(2 * units, "rms")
        self.to_grid = Linear(2 * units, cells, initialiser)
        self.norm_grid = NormActivation(widths[0], "rms")
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.convolutions = nn.ModuleList(Convolution(a, b, 5, initialiser) for a, b in pairs)
        self.norms = nn.ModuleList(NormActivation(b, "rms") for b in widths[1:])
        self.output = Convolution(widths[-1], channels, 5, initialiser)

    def forward(self, feature: Tensor) -> Tensor:
        """[N, D + S C] -> float32 [N, H, W, C] in [0, 1]."""
        deterministic, stochastic = feature.split([self.deterministic, feature.shape[-1] - self.deterministic], -1)
        rows, columns = self.grid
        own = self.from_deterministic(deterministic).unflatten(-1, (self.blocks, rows, columns, -1))
        own = own.permute(0, 2, 3, 1, 4).flatten(3)
        rest = self.to_grid(self.norm_stochastic(self.from_stochastic(stochastic))).view_as(own)
        x = self.norm_grid(own + rest)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(convolution(_double(x)))
        x = torch.sigmoid(self.output(_double(x)).float())
        return x[:, : self.shape[0], : self.shape[1]]


class StridedImageDecoder(nn.Module):
    """Image decoder of the 2023 version: a linear layer, then 4x4 transposed convolutions; 0.5 is added at the end."""

    def __init__(
        self, shape: tuple[int, int, int], features: int, depth: int, hidden: Initialiser, output: Initialiser
    ) -> None:
        super().__init__()
        height, width, channels = shape
        stages = image_stages(height, width)
        self.shape = shape
        self.grid = (padded_side(height, stages) // 2**stages, padded_side(width, stages) // 2**stages)
        widths = [depth * factor for factor in STAGE_FACTORS["strided"][:stages]][::-1]
        self.to_grid = Linear(features, math.prod(self.grid) * widths[0], output)
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.convolutions = nn.ModuleList(Convolution(a, b, 4, hidden, 2, True, bias=False) for a, b in pairs)
        self.norms = nn.ModuleList(NormActivation(b, "layer") for b in widths[1:])
        self.output = Convolution(widths[-1], channels, 4, output, 2, True)

    def forward(self, feature: Tensor) -> Tensor:
        """[N, D + S C] -> float32 [N, H, W, C], near [0, 1] but not bounded."""
        x = self.to_grid(feature).unflatten(-1, (*self.grid, -1))
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(convolution(x))
        return self.output(x).float()[:, : self.shape[0], : self.shape[1]] + 0.5


def _double(x: Tensor) -> Tensor:
    """Nearest-neighbour upsampling by two: [N, H, W, C] -> [N, 2H, 2W, C]."""
    n, h, w, c = x.shape
    return x[:, :, None, :, None].expand(n, h, 2, w, 2, c).reshape(n, 2 * h, 2 * w, c)


class Decoder(nn.Module):
    """Latent features to a prediction and a loss for every observation part.

    Losses are summed over the entries of a part, with no factor one half (DreamerV3, Nature 2025, equation 4):
    squared error on [0, 1] for images, squared error to symlog values for vectors, cross entropy for classes.

    Args:
        parts: observation parts.
        deterministic: D.
        stochastic: S C.
        depth, units, layers, blocks: sizes of the networks.
        network: kind of image network.
        hidden: initialiser of hidden layers.
        output: initialiser of output layers.
    """

    def __init__(
        self,
        parts: Sequence[ObservationPart],
        deterministic: int,
        stochastic: int,
        depth: int,
        units: int,
        layers: int,
        blocks: int,
        network: ImageNetwork,
        hidden: Initialiser,
        output: Initialiser,
    ) -> None:
        super().__init__()
        features = deterministic + stochastic
        self.image_groups = group_images(parts)
        self.images = nn.ModuleList()
        for group in self.image_groups:
            height, width, _ = group[0].shape
            shape = (height, width, sum(part.shape[2] for part in group))
            if network == "pooled":
                self.images.append(PooledImageDecoder(shape, deterministic, stochastic, depth, units, blocks, hidden))
            else:
                self.images.append(StridedImageDecoder(shape, features, depth, hidden, output))
        self.flat_parts = sorted((part for part in parts if part.kind != "image"), key=lambda part: part.name)
        norm: Literal["rms", "layer"] = "rms" if network == "pooled" else "layer"
        self.vector = MLP(features, units, layers, norm, hidden) if self.flat_parts else None
        self.heads = nn.ModuleList(
            Linear(
                units if layers else features,
                sum(part.classes) if part.kind == "discrete" else part.shape[0],
                output,
            )
            for part in self.flat_parts
        )

    def forward(self, feature: Tensor) -> dict[str, Tensor]:
        """Raw outputs: images in [0, 1], symlog values of vectors, logits of classes.

        Args:
            feature: [B, T, D + S C].

        Returns:
            part name -> float32 [B, T, ...].
        """
        outputs: dict[str, Tensor] = {}
        for group, network in zip(self.image_groups, self.images, strict=True):
            image = network(feature.flatten(0, 1)).unflatten(0, feature.shape[:2])
            pieces = image.split([part.shape[2] for part in group], -1)
            outputs.update({part.name: piece for part, piece in zip(group, pieces, strict=True)})
        if self.vector is not None:
            hidden = self.vector(feature)
            for part, head in zip(self.flat_parts, self.heads, strict=True):
                outputs[part.name] = head(hidden).float()
        return outputs

    def losses(self, outputs: Mapping[str, Tensor], observation: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Reconstruction loss of every part: name -> [B, T]."""
        losses = {}
        for group in self.image_groups:
            for part in group:
                target = observation[part.name].float() / 255
                losses[part.name] = (outputs[part.name] - target).square().sum((-3, -2, -1))
        for part in self.flat_parts:
            output, target = outputs[part.name], observation[part.name]
            if part.kind == "vector":
                losses[part.name] = (output - symlog(target)).square().sum(-1)
            else:
                losses[part.name] = _class_losses(output, target, part.classes)
        return losses

    def predictions(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs in the units of the environment: images in [0, 1], vectors by symexp, most likely classes."""
        images = {part.name: outputs[part.name] for group in self.image_groups for part in group}
        flat = {
            part.name: symexp(outputs[part.name])
            if part.kind == "vector"
            else torch.stack([x.argmax(-1) for x in outputs[part.name].split(list(part.classes), -1)], -1)
            for part in self.flat_parts
        }
        return images | flat


def _class_losses(logits: Tensor, target: Tensor, classes: Sequence[int]) -> Tensor:
    """Cross entropy summed over variables: logits [B, T, sum of classes], target int [B, T, V] -> [B, T]."""
    pieces = logits.split(list(classes), -1)
    losses = [
        functional.cross_entropy(piece.flatten(0, -2), target[..., i].flatten().long(), reduction="none")
        for i, piece in enumerate(pieces)
    ]
    return torch.stack(losses).sum(0).view(target.shape[:-1])
