"""From latent states back to observations, and the reconstruction loss of each observation part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from reverie.errors import ConfigError
from reverie.nn.encoders import (
    STAGE_FACTORS,
    ImageNetwork,
    VectorScale,
    group_images,
    image_stages,
    padded_side,
)
from reverie.nn.layers import (
    ACTIVATIONS,
    MLP,
    BlockLinear,
    Convolution,
    Linear,
    NetworkStyle,
    NormActivation,
)
from reverie.ops.transforms import symexp, symlog
from reverie.spaces import ObservationPart


class PooledImageDecoder(nn.Module):
    """Image decoder of the 2025 version: block-diagonal entry, then nearest upsampling and 5x5 convolutions.

    h enters through a block-diagonal layer (each block owns a slice of the channels), z through two dense layers;
    their sum is normalized. The last stage ends in a sigmoid.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        deterministic: int,
        stochastic: int,
        depth: int,
        units: int,
        blocks: int,
        style: NetworkStyle,
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
        kernel, norm, activation = style.kernel, style.norm, style.activation
        self.from_deterministic = BlockLinear(deterministic, cells, blocks=blocks, initializer=kernel)
        self.from_stochastic = Linear(stochastic, 2 * units, kernel)
        self.norm_stochastic = NormActivation(2 * units, norm, activation)
        self.to_grid = Linear(2 * units, cells, kernel)
        self.norm_grid = NormActivation(widths[0], norm, activation)
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.convolutions = nn.ModuleList(Convolution(a, b, kernel=5, initializer=kernel) for a, b in pairs)
        self.norms = nn.ModuleList(NormActivation(b, norm, activation) for b in widths[1:])
        self.output = Convolution(widths[-1], channels, kernel=5, initializer=style.output_kernel)

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

    def __init__(self, shape: tuple[int, int, int], features: int, *, depth: int, style: NetworkStyle) -> None:
        super().__init__()
        height, width, channels = shape
        stages = image_stages(height, width)
        self.shape = shape
        self.grid = (padded_side(height, stages) // 2**stages, padded_side(width, stages) // 2**stages)
        widths = [depth * factor for factor in STAGE_FACTORS["strided"][:stages]][::-1]
        self.to_grid = Linear(features, math.prod(self.grid) * widths[0], style.output_kernel)
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.convolutions = nn.ModuleList(
            Convolution(a, b, kernel=4, initializer=style.kernel, stride=2, transposed=True, bias=False)
            for a, b in pairs
        )
        self.norms = nn.ModuleList(NormActivation(b, style.norm, style.activation) for b in widths[1:])
        self.output = Convolution(
            widths[-1], channels, kernel=4, initializer=style.output_kernel, stride=2, transposed=True
        )

    def forward(self, feature: Tensor) -> Tensor:
        """[N, D + S C] -> float32 [N, H, W, C], near [0, 1] but not bounded."""
        x = self.to_grid(feature).unflatten(-1, (*self.grid, -1))
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(convolution(x))
        return self.output(x).float()[:, : self.shape[0], : self.shape[1]] + 0.5


class UnpaddedImageDecoder(nn.Module):
    """Image decoder of the agents before DreamerV3: a linear layer, then transposed convolutions to 64x64 pixels.

    The layer gives 1x1x32 depth; kernels of 5, 5, 6 and 6 with stride 2 give 5, 13, 30 and 64 pixels a side. As in
    `StridedImageDecoder` 0.5 is added at the end.
    """

    def __init__(self, channels: int, features: int, *, depth: int, style: NetworkStyle) -> None:
        super().__init__()
        widths = [32 * depth, 4 * depth, 2 * depth, depth, channels]
        self.to_grid = Linear(features, widths[0], style.kernel)
        stages = zip(widths[:-1], widths[1:], (5, 5, 6, 6), strict=True)
        self.convolutions = nn.ModuleList(
            Convolution(a, b, kernel=k, initializer=style.kernel, stride=2, transposed=True, padded=False)
            for a, b, k in stages
        )
        self.activation = ACTIVATIONS[style.activation]

    def forward(self, feature: Tensor) -> Tensor:
        """[N, D + S C] -> float32 [N, 64, 64, C], near [0, 1] but not bounded."""
        x = self.to_grid(feature)[:, None, None]
        for stage, convolution in enumerate(self.convolutions):
            x = convolution(self.activation(x) if stage else x)
        return x.float() + 0.5


def _double(x: Tensor) -> Tensor:
    """Nearest-neighbor upsampling by two: [N, H, W, C] -> [N, 2H, 2W, C]."""
    n, h, w, c = x.shape
    return x[:, :, None, :, None].expand(n, h, 2, w, 2, c).reshape(n, 2 * h, 2 * w, c)


class Decoder(nn.Module):
    """Latent features to a prediction and a loss for every observation part.

    Losses are summed over the entries of a part: squared error on [0, 1] for images, squared error to symlog or raw
    values for vectors, cross entropy for classes. DreamerV3 has no factor one half before the squares (Nature 2025,
    equation 4); in the older agents they are log-densities of normals with deviation one, up to a constant.

    Args:
        parts: observation parts.
        deterministic: D.
        stochastic: S C.
        depth, units, layers, blocks: sizes of the networks.
        network: kind of image network.
        style: of the vector network.
        image_style: of the image networks; by default the same.
        vectors: scale in which vectors are predicted.
        square: factor before squared errors, 1 or 0.5.
    """

    def __init__(
        self,
        parts: Sequence[ObservationPart],
        *,
        deterministic: int,
        stochastic: int,
        depth: int,
        units: int,
        layers: int,
        blocks: int,
        network: ImageNetwork,
        style: NetworkStyle,
        image_style: NetworkStyle | None = None,
        vectors: VectorScale = "symlog",
        square: float = 1.0,
    ) -> None:
        super().__init__()
        self.vectors, self.square = vectors, square
        features, image_style = deterministic + stochastic, image_style or style
        self.image_groups = group_images(parts)
        self.images = nn.ModuleList()
        for group in self.image_groups:
            height, width, _ = group[0].shape
            shape = (height, width, sum(part.shape[2] for part in group))
            if network == "pooled":
                image: nn.Module = PooledImageDecoder(
                    shape,
                    deterministic=deterministic,
                    stochastic=stochastic,
                    depth=depth,
                    units=units,
                    blocks=blocks,
                    style=image_style,
                )
            elif network == "unpadded":
                image = UnpaddedImageDecoder(shape[2], features, depth=depth, style=image_style)
            else:
                image = StridedImageDecoder(shape, features, depth=depth, style=image_style)
            self.images.append(image)
        self.flat_parts = sorted((part for part in parts if part.kind != "image"), key=lambda part: part.name)
        self.vector = MLP(features, units=units, layers=layers, style=style) if self.flat_parts else None
        self.heads = nn.ModuleList(
            Linear(
                units if layers else features,
                sum(part.classes) if part.kind == "discrete" else part.shape[0],
                style.output_kernel,
            )
            for part in self.flat_parts
        )

    def forward(self, feature: Tensor) -> dict[str, Tensor]:
        """Raw outputs: images in [0, 1], symlog or raw values of vectors, logits of classes.

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
                losses[part.name] = self._scaled((outputs[part.name] - target).square().sum((-3, -2, -1)))
        for part in self.flat_parts:
            output, target = outputs[part.name], observation[part.name]
            if part.kind == "vector":
                aim = symlog(target) if self.vectors == "symlog" else target
                losses[part.name] = self._scaled((output - aim).square().sum(-1))
            else:
                losses[part.name] = _class_losses(output, target, part.classes)
        return losses

    def _scaled(self, squares: Tensor) -> Tensor:
        return squares if self.square == 1 else squares * self.square

    def predictions(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs in the units of the environment: images in [0, 1], vectors, most likely classes."""
        images = {part.name: outputs[part.name] for group in self.image_groups for part in group}
        flat = {
            part.name: (symexp(outputs[part.name]) if self.vectors == "symlog" else outputs[part.name])
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
