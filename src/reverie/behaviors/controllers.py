"""Controllers small enough for evolution: the C of World Models (Ha and Schmidhuber, 2018), a population at a time.

A controller is a function of its parameters, which stand in one flat vector of `count` numbers per candidate. It is
evaluated for P candidates with R rollouts each in one batch. Actions are tanh of the last layer, in [-1, 1]; what an
environment makes of them (gas, brake, thresholds) is not decided here. The order of the numbers in the vector is that
of the released code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from reverie.errors import ConfigError
from reverie.spaces import ActionPart


class Controller(Protocol):
    """What evolution needs of a controller."""

    @property
    def count(self) -> int:
        """Parameters of one candidate."""
        ...

    def __call__(self, parameters: Tensor, inputs: Tensor) -> Tensor:
        """Actions of P candidates: [P, count] and [P, R, F] -> [P, R, A]."""
        ...


@dataclass(frozen=True)
class LinearController:
    """tanh(x W + b): 867 parameters in CarRacing (F = 288, A = 3), 1,088 without bias in Take Cover (F = 1,088, A = 1).

    The vector of a candidate holds b [A], then W [F, A] row by row.

    Attributes:
        features: F, width of the input.
        actions: A.
        bias: whether there is b; the released code has none for Take Cover.
    """

    features: int
    actions: int
    bias: bool = True

    @property
    def count(self) -> int:
        """Parameters of one candidate."""
        return (self.features + self.bias) * self.actions

    def __call__(self, parameters: Tensor, inputs: Tensor) -> Tensor:
        """Actions of P candidates in R rollouts each, in the dtype of the inputs.

        Args:
            parameters: [P, count].
            inputs: [P, R, F].

        Returns:
            [P, R, A] in [-1, 1].

        Raises:
            ConfigError: a shape differs.
        """
        _check(parameters, inputs, count=self.count, features=self.features)
        return _tanh_layer(parameters.to(inputs.dtype), inputs, self.actions, bias=self.bias)


@dataclass(frozen=True)
class HiddenController:
    """tanh(tanh(x W1 + b1) W2 + b2): the controller with one hidden layer, 1,443 parameters with F = 32 and A = 3.

    The vector of a candidate holds b1 [hidden], W1 [F, hidden] row by row, b2 [A], W2 [hidden, A] row by row.

    Attributes:
        features: F, width of the input.
        actions: A.
        hidden: units of the hidden layer; 40 in the paper.
    """

    features: int
    actions: int
    hidden: int = 40

    @property
    def count(self) -> int:
        """Parameters of one candidate."""
        return (self.features + 1) * self.hidden + (self.hidden + 1) * self.actions

    def __call__(self, parameters: Tensor, inputs: Tensor) -> Tensor:
        """Actions of P candidates in R rollouts each, in the dtype of the inputs.

        Args:
            parameters: [P, count].
            inputs: [P, R, F].

        Returns:
            [P, R, A] in [-1, 1].

        Raises:
            ConfigError: a shape differs.
        """
        _check(parameters, inputs, count=self.count, features=self.features)
        first, second = parameters.to(inputs.dtype).tensor_split([(self.features + 1) * self.hidden], -1)
        return _tanh_layer(second, _tanh_layer(first, inputs, self.hidden), self.actions)


def _tanh_layer(parameters: Tensor, x: Tensor, outputs: int, bias: bool = True) -> Tensor:
    """tanh(x W + b), the vector holding b first: [P, (F + bias) outputs], [P, R, F] -> [P, R, outputs]."""
    kernel = parameters[:, outputs * bias :].unflatten(-1, (x.shape[-1], outputs))
    if not bias:
        return torch.tanh(torch.bmm(x, kernel))
    return torch.tanh(torch.baddbmm(parameters[:, None, :outputs], x, kernel))


def _check(parameters: Tensor, inputs: Tensor, count: int, features: int) -> None:
    """Refuses parameters that are not [P, count] and inputs that are not [P, R, F]."""
    if parameters.dim() != 2 or parameters.shape[1] != count:
        raise ConfigError(
            f"the controller takes parameters [P, {count}], but got {list(parameters.shape)}; "
            f"give one row of {count} numbers per candidate"
        )
    if inputs.dim() != 3 or inputs.shape[0] != parameters.shape[0] or inputs.shape[2] != features:
        raise ConfigError(
            f"the controller takes inputs [P, R, F] = [{parameters.shape[0]}, R, {features}], but got "
            f"{list(inputs.shape)}; give R rows of {features} features to each of the {parameters.shape[0]} candidates"
        )


def flat_actions(outputs: Tensor, parts: Sequence[ActionPart]) -> Tensor:
    """What a controller's outputs mean: continuous entries as they are, the largest of each discrete variable.

    Args:
        outputs: [..., A] in [-1, 1].
        parts: action parts in their order.

    Returns:
        Flat actions float32 [..., A].
    """
    pieces, offset = [], 0
    for part in parts:
        for width in (part.size,) if part.kind == "continuous" else part.classes:
            piece = outputs[..., offset : offset + width]
            if part.kind == "discrete":
                piece = torch.nn.functional.one_hot(piece.argmax(-1), width)
            pieces.append(piece.float())
            offset += width
    return torch.cat(pieces, -1)
