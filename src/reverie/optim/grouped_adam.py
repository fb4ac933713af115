"""Adam with global-norm clipping for each of several groups of parameters (DreamerV1, DreamerV2, DreamerV3 2023)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AdamGroup:
    """Settings of one group.

    Attributes:
        rate: learning rate.
        epsilon: added to the root of the squared gradients.
        clip: largest global norm of the gradient.
        decay: share by which every weight shrinks before each step, whatever the rate (DreamerV2).
        epsilon_before_correction: add epsilon to the root before the bias correction, as TensorFlow's and Keras' Adam
            do ("epsilon hat" of Kingma and Ba, 2015, end of section 2), instead of after it, as PyTorch and Optax do.
            After t steps the same number then acts like epsilon / sqrt(1 - 0.999^t) in the other place: 32 times as
            large in the first step, 3.2 times in step 100.
    """

    rate: float
    epsilon: float
    clip: float
    decay: float = 0.0
    epsilon_before_correction: bool = False


class GroupedAdam:
    """One `torch.optim.Adam` a group, each with its own rate and clipping.

    Args:
        groups: name -> (parameters, settings).
    """

    def __init__(self, groups: Mapping[str, tuple[Iterable[Tensor], AdamGroup]]) -> None:
        self.parameters = {name: [p for p in members if p.requires_grad] for name, (members, _) in groups.items()}
        self.clips = {name: settings.clip for name, (_, settings) in groups.items()}
        self.decays = {name: settings.decay for name, (_, settings) in groups.items()}
        self.early_epsilons = {
            name: settings.epsilon for name, (_, settings) in groups.items() if settings.epsilon_before_correction
        }
        self.steps = dict.fromkeys(groups, 0)
        self.optimizers = {
            name: torch.optim.Adam(
                self.parameters[name],
                lr=settings.rate,
                eps=settings.epsilon,
                foreach=True,
                capturable=self.parameters[name][0].is_cuda,
            )
            for name, (_, settings) in groups.items()
        }

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def step(self) -> dict[str, Tensor]:
        """Updates the parameters in place; metric `optimizer/gradient_norm` over all groups, before clipping."""
        squares = []
        for name, optimizer in self.optimizers.items():
            norm = torch.nn.utils.clip_grad_norm_(self.parameters[name], self.clips[name])
            if self.decays[name]:
                with torch.no_grad():
                    torch._foreach_mul_(self.parameters[name], 1 - self.decays[name])
            self.steps[name] += 1
            if name in self.early_epsilons:
                self._correct_epsilon(name)
            optimizer.step()
            squares.append(norm.square())
        return {"optimizer/gradient_norm": torch.stack(squares).sum().sqrt()}

    def _correct_epsilon(self, name: str) -> None:
        """Sets the epsilon that does after the bias correction what the group's own would do before it."""
        (group,) = self.optimizers[name].param_groups
        _, beta2 = group["betas"]
        group["eps"] = self.early_epsilons[name] / math.sqrt(1 - beta2 ** self.steps[name])

    def state_tensors(self) -> dict[str, Tensor]:
        """`group.index.key` -> tensor, for the state that Adam keeps of every parameter."""
        tensors = {}
        for name, optimizer in self.optimizers.items():
            for index, parameter in enumerate(self.parameters[name]):
                for key, value in optimizer.state[parameter].items():
                    tensors[f"{name}.{index}.{key}"] = value
        return tensors

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of `state_tensors`."""
        for name, optimizer in self.optimizers.items():
            optimizer.state.clear()
            self.steps[name] = 0
        for key, value in tensors.items():
            name, index, field = key.rsplit(".", 2)
            parameter = self.parameters[name][int(index)]
            self.optimizers[name].state[parameter][field] = value.detach().clone().to(parameter.device)
            if field == "step":
                self.steps[name] = max(self.steps[name], int(value))
