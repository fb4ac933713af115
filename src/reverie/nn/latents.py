"""Stochastic latent variables of a world model.

Every kind has the same methods: `sample` draws from what a network put out, `distribution` turns the outputs into the
tensor that `divergence` and `entropy` take.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as functional
from torch import Tensor

from reverie.ops import distributions


@dataclass(frozen=True)
class CategoricalLatent:
    """S independent categorical variables of C classes (DreamerV2, section 2; 1 % uniform mix in DreamerV3).

    Attributes:
        variables: S.
        classes: C.
        uniform_mix: share of the uniform distribution in every variable.
    """

    variables: int
    classes: int
    uniform_mix: float = 0.01

    @property
    def width(self) -> int:
        """S C, the width of a flat sample."""
        return self.variables * self.classes

    @property
    def outputs(self) -> int:
        """S C, the logits that describe the variables."""
        return self.width

    def distribution(self, logits: Tensor) -> Tensor:
        """Flat logits [..., S C] -> mixed log-probabilities, float32 [..., S, C]."""
        return distributions.mixed_log_probabilities(
            logits.unflatten(-1, (self.variables, self.classes)), self.uniform_mix
        )

    def sample(self, logits: Tensor, deterministic: bool = False, temperature: float = 1.0) -> Tensor:
        """A flat one-hot sample with straight-through gradient; the most likely classes if `deterministic`.

        Args:
            logits: [..., S C].
            deterministic: take the mode.
            temperature: divides the logits; above 1 samples are more random than the model, below 1 less.

        Returns:
            [..., S C] in the dtype of `logits`.
        """
        logits_by_variable = logits.unflatten(-1, (self.variables, self.classes))
        if temperature != 1:
            logits_by_variable = logits_by_variable / temperature
        probabilities = distributions.mixed_probabilities(logits_by_variable, self.uniform_mix)
        index = self._choose(probabilities.detach(), deterministic)
        if probabilities.requires_grad:
            return distributions.straight_through(index, probabilities).flatten(-2).to(logits.dtype)
        return distributions.one_hot(index, self.classes, logits.dtype).flatten(-2)

    @staticmethod
    def _choose(probabilities: Tensor, deterministic: bool) -> Tensor:
        return probabilities.argmax(-1) if deterministic else distributions.sample_index(probabilities)

    def divergence(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """KL(p || q) summed over variables: log-probabilities [..., S, C] -> [...], nats."""
        return distributions.categorical_kl(log_p, log_q)

    def entropy(self, log_p: Tensor) -> Tensor:
        """Entropy summed over variables: log-probabilities [..., S, C] -> [...], nats."""
        return distributions.categorical_entropy(log_p)

    def compress(self, sample: Tensor) -> Tensor:
        """Class indices of a flat one-hot sample, for the replay: [..., S C] -> uint8 or int16 [..., S]."""
        index = sample.detach().unflatten(-1, (self.variables, self.classes)).argmax(-1)
        return index.to(torch.uint8 if self.classes <= 256 else torch.int16)

    def expand(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        """Inverse of `compress`: [..., S] -> one-hot [..., S C]."""
        return distributions.one_hot(index.long(), self.classes, dtype).flatten(-2)


@dataclass(frozen=True)
class GaussianLatent:
    """S independent normal variables (PlaNet, section 3; Dreamer v1).

    Attributes:
        variables: S, which is also the width of a sample.
        scale: how the network's output x becomes the deviation: `softplus`(x) (PlaNet, Dreamer v1), or 2 s(x / 2) with
            the logistic function s (`sigmoid`, DreamerV2), plus `least`.
        least: minimum deviation.
        mean_only: take the mean in the place of every sample, for a model without chance (PlaNet, section 3).
    """

    variables: int
    scale: Literal["softplus", "sigmoid"] = "softplus"
    least: float = 0.1
    mean_only: bool = False

    @property
    def width(self) -> int:
        """S, the width of a sample."""
        return self.variables

    @property
    def outputs(self) -> int:
        """2 S: means, then what becomes the deviations."""
        return 2 * self.variables

    def distribution(self, outputs: Tensor) -> Tensor:
        """Network outputs [..., 2 S] -> means and deviations side by side, float32 [..., 2 S]."""
        mean, raw = outputs.float().chunk(2, -1)
        deviation = functional.softplus(raw) if self.scale == "softplus" else 2 * torch.sigmoid(raw / 2)
        return torch.cat([mean, deviation + self.least], -1)

    def sample(self, outputs: Tensor, deterministic: bool = False, temperature: float = 1.0) -> Tensor:
        """A reparameterized sample; the means if `deterministic`.

        Args:
            outputs: [..., 2 S].
            deterministic: take the means.
            temperature: multiplies the variance; above 1 samples are more random than the model, below 1 less.

        Returns:
            [..., S] in the dtype of `outputs`.
        """
        mean, deviation = self.distribution(outputs).chunk(2, -1)
        if deterministic or self.mean_only:
            return mean.to(outputs.dtype)
        noise = torch.randn_like(mean)
        return (mean + deviation * (noise if temperature == 1 else noise * math.sqrt(temperature))).to(outputs.dtype)

    def divergence(self, p: Tensor, q: Tensor) -> Tensor:
        """KL(p || q) summed over variables: distributions [..., 2 S] -> [...], nats."""
        return distributions.normal_kl(*p.chunk(2, -1), *q.chunk(2, -1))

    def entropy(self, p: Tensor) -> Tensor:
        """Differential entropy summed over variables: distributions [..., 2 S] -> [...], nats."""
        return distributions.normal_entropy(p.chunk(2, -1)[1])

    def standard(self, like: Tensor) -> Tensor:
        """The distribution with mean zero and deviation one, in the shape of another [..., 2 S]."""
        mean, deviation = like.chunk(2, -1)
        return torch.cat([torch.zeros_like(mean), torch.ones_like(deviation)], -1)


Latent = CategoricalLatent | GaussianLatent
