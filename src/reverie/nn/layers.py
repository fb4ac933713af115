"""Linear, convolutional and normalizing layers with the initializers of the Dreamer line.

The compute dtype follows the input: weights are kept in float32 and cast to the dtype of what they multiply, norms
compute in float32. A caller chooses bfloat16 by casting what it feeds in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from reverie.errors import ConfigError
from reverie.ops.norms import rms_norm_silu

Norm = Literal["rms", "layer", "none"]
Activation = Literal["silu", "elu", "relu"]
ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "elu": functional.elu,
    "relu": functional.relu,
}


@dataclass(frozen=True)
class Initializer:
    """How a kernel is drawn.

    Attributes:
        distribution: `truncated_normal` (cut at two standard deviations, corrected to unit variance) or `uniform`.
        fan: divide the variance by the inputs (`in`) or the mean of inputs and outputs (`average`).
        scale: factor on the standard deviation; 0 gives a kernel of zeros.
    """

    distribution: Literal["truncated_normal", "uniform"] = "truncated_normal"
    fan: Literal["in", "average"] = "in"
    scale: float = 1.0

    def scaled(self, scale: float) -> Initializer:
        """The same initializer with another `scale`."""
        return Initializer(self.distribution, self.fan, scale)

    def fill(self, kernel: Tensor, fan_in: int, fan_out: int) -> None:
        """Draws `kernel` in place."""
        fan = fan_in if self.fan == "in" else (fan_in + fan_out) / 2
        deviation = self.scale / math.sqrt(fan)
        with torch.no_grad():
            if self.scale == 0:
                kernel.zero_()
            elif self.distribution == "uniform":
                kernel.uniform_(-math.sqrt(3) * deviation, math.sqrt(3) * deviation)
            else:
                # A normal cut at +-2 has standard deviation 0.87962566, whose inverse is 1.1368.
                nn.init.trunc_normal_(kernel, mean=0.0, std=1.0, a=-2.0, b=2.0)
                kernel.mul_(1.1368 * deviation)


GLOROT = Initializer("uniform", "average")
"""Uniform with the variance 2 / (inputs + outputs) (Glorot and Bengio, 2010), the default of TensorFlow."""


@dataclass(frozen=True)
class NetworkStyle:
    """What the layers of an agent's networks have in common.

    Attributes:
        norm: of hidden layers.
        activation: of hidden layers, after the norm.
        kernel: initializer of hidden layers.
        output_kernel: initializer of output layers.
    """

    norm: Norm
    activation: Activation
    kernel: Initializer
    output_kernel: Initializer

    def with_output(self, scale: float) -> NetworkStyle:
        """The same style with another scale of the output kernels; 0 for zeros."""
        return replace(self, output_kernel=self.output_kernel.scaled(scale))


def plain_style(activation: Activation) -> NetworkStyle:
    """Layers without a norm, whose kernels follow Glorot's rule: the agents before DreamerV3."""
    return NetworkStyle(norm="none", activation=activation, kernel=GLOROT, output_kernel=GLOROT)


class Linear(nn.Module):
    """x W + b over the last axis: [..., inputs] -> [..., outputs]."""

    def __init__(self, inputs: int, outputs: int, initializer: Initializer, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        initializer.fill(self.weight, inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return functional.linear(x, self.weight.to(x.dtype), bias)


class BlockLinear(nn.Module):
    """Block-diagonal linear layer: block k of the input reaches only block k of the output.

    The kernel is [blocks, inputs / blocks, outputs / blocks]. Its fan-in is the full input width, as in the official
    DreamerV3, not the width of a block.

    Raises:
        ConfigError: a width is not a multiple of the number of blocks.
    """

    def __init__(self, inputs: int, outputs: int, *, blocks: int, initializer: Initializer) -> None:
        super().__init__()
        for what, width in (("inputs", inputs), ("outputs", outputs)):
            if width % blocks:
                raise ConfigError(
                    f"a block-diagonal layer has {width} {what} and {blocks} blocks, which does not divide; "
                    f"choose sizes that are multiples of the number of blocks"
                )
        self.blocks = blocks
        self.weight = nn.Parameter(torch.empty(blocks, inputs // blocks, outputs // blocks))
        self.bias = nn.Parameter(torch.zeros(outputs))
        initializer.fill(self.weight, inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs], block after block."""
        lead = x.shape[:-1]
        blocked = x.reshape(-1, self.blocks, self.weight.shape[1]).transpose(0, 1)
        return self.blockwise(blocked).transpose(0, 1).reshape(*lead, -1)

    def blockwise(self, x: Tensor) -> Tensor:
        """The same for inputs and outputs with the blocks first: [blocks, N, inputs / blocks] -> [blocks, N, ...]."""
        bias = self.bias.view(self.blocks, 1, -1).to(x.dtype)
        return torch.baddbmm(bias, x, self.weight.to(x.dtype))


class NormActivation(nn.Module):
    """RMSNorm (eps 1e-4, scale), LayerNorm (eps 1e-3, scale and shift) or none over the last axis, then an activation.

    Raises:
        ConfigError: RMSNorm with another activation than SiLU, with which it is one operation.
    """

    def __init__(self, units: int, norm: Norm, activation: Activation = "silu") -> None:
        super().__init__()
        if norm == "rms" and activation != "silu":
            raise ConfigError(f"RMSNorm comes with the activation silu only, got {activation!r}")
        self.norm, self.activation = norm, ACTIVATIONS[activation]
        self.scale = None if norm == "none" else nn.Parameter(torch.ones(units))
        self.shift = nn.Parameter(torch.zeros(units)) if norm == "layer" else None

    def forward(self, x: Tensor) -> Tensor:
        """[..., units] -> [..., units]."""
        if self.scale is None:
            return self.activation(x)
        if self.norm == "rms":
            return rms_norm_silu(x, self.scale, 1e-4)
        y = functional.layer_norm(x.float(), x.shape[-1:], self.scale, self.shift, eps=1e-3)
        return self.activation(y).to(x.dtype)


class MLP(nn.Module):
    """Layers of Linear, norm, activation: [..., inputs] -> [..., units].

    With LayerNorm the linear layers have no bias of their own (DreamerV3, 2023); otherwise they have.
    """

    def __init__(self, inputs: int, *, units: int, layers: int, style: NetworkStyle) -> None:
        super().__init__()
        widths = [inputs] + [units] * layers
        self.linears = nn.ModuleList(
            Linear(a, b, style.kernel, bias=style.norm != "layer") for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.norms = nn.ModuleList(NormActivation(units, style.norm, style.activation) for _ in range(layers))
        self.outputs = units if layers else inputs

    @property
    def first(self) -> Linear:
        """The layer that sees the input, for callers that split it over parts of the input."""
        layer = self.linears[0]
        assert isinstance(layer, Linear)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., units]."""
        for linear, norm in zip(self.linears, self.norms, strict=True):
            x = norm(linear(x))
        return x


class Convolution(nn.Module):
    """Square convolution on images with the channels last: [N, H, W, C] -> [N, H/s, W/s, K] with 'same' padding.

    Args:
        inputs: channels C.
        outputs: channels K.
        kernel: side of the kernel.
        stride: 1 or 2; with stride 2 the sides must be even.
        transposed: a stride-2 transposed convolution, which doubles the sides instead.
        bias: whether it has one.
        padded: 'same' padding; without it the sides lose kernel - stride pixels (transposed: gain as many).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int,
        initializer: Initializer,
        stride: int = 1,
        transposed: bool = False,
        bias: bool = True,
        padded: bool = True,
    ) -> None:
        super().__init__()
        shape = (inputs, outputs) if transposed else (outputs, inputs)
        self.weight = nn.Parameter(torch.empty(*shape, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.stride, self.transposed = stride, transposed
        self.padding = (kernel - stride + 1) // 2 if padded else 0
        initializer.fill(self.weight, inputs * kernel**2, outputs * kernel**2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, H, W, C] -> [N, H', W', K]."""
        convolve = functional.conv_transpose2d if self.transposed else functional.conv2d
        bias = None if self.bias is None else self.bias.to(x.dtype)
        # A permuted view of channels-last data is exactly the memory format that the kernels want.
        weight = self.weight.to(x.dtype).contiguous(memory_format=torch.channels_last)
        y = convolve(x.permute(0, 3, 1, 2), weight, bias, stride=self.stride, padding=self.padding)
        return y.permute(0, 2, 3, 1)
