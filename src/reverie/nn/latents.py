"""Stochastic latent variables of a world model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
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

    def log_probabilities(self, logits: Tensor) -> Tensor:
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
