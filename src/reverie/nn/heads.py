"""Heads: a network on the latent feature and the distribution that its outputs parametrize."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from reverie.nn.layers import MLP, Linear, NetworkStyle
from reverie.nn.policies import BoundedNormal, Continuous
from reverie.ops import distributions
from reverie.ops.transforms import symexp, symlog
from reverie.ops.two_hot import symexp_bins, symlog_bins, two_hot_cross_entropy, two_hot_mean
from reverie.spaces import ActionPart

BinSpacing = Literal["symexp", "symlog"]


class TwoHotHead(nn.Module):
    """Scalar regression as classification over 255 bins (DreamerV3): the reward head and the critic.

    `symexp` (2025) spaces the bins exponentially and works in raw space. `symlog` (2023) spaces them evenly over
    symlog values and transforms the mean back.

    Args:
        features: width of the input.
        units, layers: of the hidden network.
        spacing: which of the two.
        style: of the layers; the output kernel is zero in all versions.
        bins: number of bins.
    """

    bins: Tensor

    def __init__(
        self,
        features: int,
        *,
        units: int,
        layers: int,
        spacing: BinSpacing,
        style: NetworkStyle,
        bins: int = 255,
    ) -> None:
        super().__init__()
        self.network = MLP(features, units=units, layers=layers, style=style)
        self.output = Linear(self.network.outputs, bins, style.output_kernel)
        self.in_symlog = spacing == "symlog"
        positions = symlog_bins(bins) if self.in_symlog else symexp_bins(bins)
        self.register_buffer("bins", positions, persistent=False)

    def forward(self, feature: Tensor) -> Tensor:
        """[..., features] -> float32 logits [..., bins]."""
        return self.output(self.network(feature)).float()

    def mean(self, logits: Tensor) -> Tensor:
        """Expected value: [..., bins] -> [...]."""
        mean = two_hot_mean(logits, self.bins)
        return symexp(mean) if self.in_symlog else mean

    def loss(self, logits: Tensor, *targets: Tensor) -> Tensor:
        """Sum of the cross entropies to the two-hot codes of each target: [..., bins], [...] each -> [...]."""
        values = [symlog(target) for target in targets] if self.in_symlog else targets
        return two_hot_cross_entropy(logits, values, self.bins)


class NormalHead(nn.Module):
    """Scalar regression by a normal with deviation one (PlaNet, Dreamer v1, DreamerV2): reward head and critic.

    Args:
        features: width of the input.
        units, layers: of the hidden network.
        style: of the layers.
    """

    def __init__(self, features: int, *, units: int, layers: int, style: NetworkStyle) -> None:
        super().__init__()
        self.network = MLP(features, units=units, layers=layers, style=style)
        self.output = Linear(self.network.outputs, 1, style.output_kernel)

    def forward(self, feature: Tensor) -> Tensor:
        """[..., features] -> float32 [...]."""
        return self.output(self.network(feature)).float().squeeze(-1)

    def mean(self, output: Tensor) -> Tensor:
        """Expected value, which is the output itself: [...]."""
        return output

    def loss(self, output: Tensor, *targets: Tensor) -> Tensor:
        """Sum over the targets of minus the log-density, up to a constant: half the squared error, [...]."""
        return sum((0.5 * (output - target).square() for target in targets), torch.zeros_like(output))


ScalarHead = TwoHotHead | NormalHead


class ContinueHead(nn.Module):
    """Probability that the episode continues: a Bernoulli logit. Arguments as for `NormalHead`."""

    def __init__(self, features: int, *, units: int, layers: int, style: NetworkStyle) -> None:
        super().__init__()
        self.network = MLP(features, units=units, layers=layers, style=style)
        self.output = Linear(self.network.outputs, 1, style.output_kernel)

    def forward(self, feature: Tensor) -> Tensor:
        """[..., features] -> float32 logit [...]."""
        return self.output(self.network(feature)).float().squeeze(-1)

    def loss(self, logit: Tensor, target: Tensor) -> Tensor:
        """Cross entropy to a target probability: [...] -> [...], nats."""
        return functional.binary_cross_entropy_with_logits(logit, target, reduction="none")


class ActionDistribution:
    """Distribution over the flat action vector, a product over its parts.

    Continuous parts are diagonal normals of the given family. Discrete parts are independent categorical variables,
    sampled as one-hot vectors with straight-through gradients.

    Args:
        parameters: float32 outputs of the policy, [..., P]; mean and raw deviation for a continuous part, logits for
            a discrete one.
        parts: action parts in their order.
        uniform_mix: share of the uniform distribution in discrete parts.
        continuous: family of the continuous parts.
    """

    def __init__(
        self,
        parameters: Tensor,
        parts: Sequence[ActionPart],
        *,
        uniform_mix: float,
        continuous: Continuous,
    ) -> None:
        self.parameters, self._continuous = parameters, continuous
        self._factors: list[tuple[str, tuple[Tensor, ...]]] = []
        self.widths: list[int] = []
        offset = 0
        for part in parts:
            if part.kind == "continuous":
                mean, raw = parameters[..., offset : offset + 2 * part.size].chunk(2, -1)
                self._append("normal", continuous.describe(mean, raw), part.size)
                offset += 2 * part.size
                continue
            for count, classes in _runs(part.classes):
                logits = parameters[..., offset : offset + count * classes].unflatten(-1, (count, classes))
                log_p = distributions.mixed_log_probabilities(logits, uniform_mix)
                self._append("categorical", (log_p,), count * classes)
                offset += count * classes

    def _append(self, kind: str, values: tuple[Tensor, ...], width: int) -> None:
        self._factors.append((kind, values))
        self.widths.append(width)

    def sample(self, deterministic: bool = False) -> Tensor:
        """An action [..., A]: reparameterized (normal) or straight-through (categorical); the mode if asked for."""
        pieces = []
        for kind, values in self._factors:
            if kind == "normal":
                family = self._continuous
                pieces.append(family.mode(values[0]) if deterministic else family.sample(*values))
            else:
                probabilities = values[0].exp()
                detached = probabilities.detach()
                index = detached.argmax(-1) if deterministic else distributions.sample_index(detached)
                pieces.append(distributions.straight_through(index, probabilities).flatten(-2))
        return torch.cat(pieces, -1)

    def log_probability(self, action: Tensor) -> Tensor:
        """Log-probability (density) of [..., A], summed over parts -> [...], nats."""
        total = torch.zeros((), device=action.device)
        for (kind, values), piece in zip(self._factors, action.split(self.widths, -1), strict=True):
            if kind == "normal":
                total = total + self._continuous.log_probability(piece, *values)
            else:
                total = total + distributions.categorical_log_probability(values[0], piece.view_as(values[0]))
        return total

    def entropy(self) -> Tensor:
        """Entropy summed over parts -> [...], nats (differential for continuous parts)."""
        total = torch.zeros((), device=self.parameters.device)
        for kind, values in self._factors:
            entropy = self._continuous.entropy if kind == "normal" else distributions.categorical_entropy
            total = total + entropy(*values)
        return total


def _runs(classes: Sequence[int]) -> list[tuple[int, int]]:
    """Runs of neighboring variables with equally many classes: (3, 3, 5) -> [(2, 3), (1, 5)]."""
    runs: list[tuple[int, int]] = []
    for count in classes:
        if runs and runs[-1][1] == count:
            runs[-1] = (runs[-1][0] + 1, count)
        else:
            runs.append((1, count))
    return runs


class PolicyHead(nn.Module):
    """The actor: a network on the latent feature and output layers for every action part.

    Args:
        features: width of the input.
        parts: action parts.
        units, layers: of the hidden network.
        style: of the layers (2025: output kernels of a hundredth of the usual scale).
        uniform_mix: share of the uniform distribution in discrete parts.
        continuous: family of the continuous parts.
    """

    def __init__(
        self,
        features: int,
        parts: Sequence[ActionPart],
        *,
        units: int,
        layers: int,
        style: NetworkStyle,
        uniform_mix: float = 0.01,
        continuous: Continuous | None = None,
    ) -> None:
        super().__init__()
        self.parts, self.uniform_mix, self.continuous = tuple(parts), uniform_mix, continuous or BoundedNormal()
        self.network = MLP(features, units=units, layers=layers, style=style)
        # One layer per parameter, because the optimizer clips the gradient of each kernel on its own.
        self.outputs = nn.ModuleDict()
        for part in parts:
            names = ("mean", "deviation") if part.kind == "continuous" else ("logits",)
            for name in names:
                key = f"{part.name.replace('_', '__').replace('.', '_')}:{name}"
                self.outputs[key] = Linear(self.network.outputs, part.width, style.output_kernel)

    def forward(self, feature: Tensor) -> Tensor:
        """[..., features] -> float32 parameters [..., P] of the action distribution."""
        hidden = self.network(feature)
        return torch.cat([layer(hidden) for layer in self.outputs.values()], -1).float()

    def distribution(self, parameters: Tensor) -> ActionDistribution:
        """The distribution that `forward`'s output describes."""
        return ActionDistribution(parameters, self.parts, uniform_mix=self.uniform_mix, continuous=self.continuous)
