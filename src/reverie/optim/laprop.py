"""LaProp with adaptive gradient clipping, the optimizer of DreamerV3 (Nature 2025, "Optimizer")."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class LaProp:
    """RMSProp scaling followed by momentum (Ziyin et al., 2020), after clipping each gradient to its parameter's size.

    For each tensor, with t counted from 1:

        g  <- g / max(1, |g| / (clip max(minimum_norm, |p|)))        clipping, norms over the whole tensor
        nu <- beta2 nu + (1 - beta2) g^2
        mu <- beta1 mu + (1 - beta1) g / (sqrt(nu / (1 - beta2^t)) + epsilon)
        p  <- p - rate(t) mu / (1 - beta1^t)

    with rate(t) = rate min(1, (t - 1) / warmup) / (1 + ((t - 1) / decay)^2), so that the first update of a run with
    warm-up changes nothing, as in the official code. The decay, and the floor at which it ends, are ours. All steps
    work on lists of tensors at once, and the counter lives on the device: a step never waits for the host.

    Args:
        parameters: to update.
        rate: learning rate.
        clip: largest ratio of gradient norm to parameter norm.
        warmup: updates over which the rate rises linearly from zero.
        decay: updates after which the rate has fallen to a half, after twice as many to a fifth; 0 for never.
        floor: rate below which it does not fall.
        beta1, beta2: decay of momentum and of squared gradients.
        epsilon: added to the root of the squared gradients.
        minimum_norm: minimum parameter norm that the clipping assumes.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        rate: float = 4e-5,
        clip: float = 0.3,
        warmup: int = 1000,
        decay: int = 0,
        floor: float = 0.0,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-20,
        minimum_norm: float = 1e-3,
    ) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.rate, self.clip, self.warmup, self.decay, self.floor = rate, clip, warmup, decay, floor
        self.beta1, self.beta2, self.epsilon, self.minimum_norm = beta1, beta2, epsilon, minimum_norm
        self.momentum = [torch.zeros_like(p) for p in self.parameters]
        self.square = [torch.zeros_like(p) for p in self.parameters]
        self.count = torch.zeros((), device=self.parameters[0].device)

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> dict[str, Tensor]:
        """Updates the parameters in place; metrics `optimizer/gradient_norm` and `optimizer/clipped`."""
        raw = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        norms = torch.stack(list(torch._foreach_norm(raw)))
        sizes = torch.stack(list(torch._foreach_norm(self.parameters)))
        excess = norms / (self.clip * sizes.clamp(min=self.minimum_norm))
        gradients = torch._foreach_mul(raw, (1 / excess.clamp(min=1)).unbind())
        share = (self.count / self.warmup).clamp(max=1) if self.warmup else torch.ones_like(self.count)
        if self.decay:
            share = share * (1 / (1 + (self.count / self.decay).square())).clamp(min=min(1.0, self.floor / self.rate))
        self.count += 1
        torch._foreach_mul_(self.square, self.beta2)
        torch._foreach_addcmul_(self.square, gradients, gradients, 1 - self.beta2)
        scale = torch._foreach_mul(self.square, 1 / (1 - self.beta2**self.count))
        torch._foreach_sqrt_(scale)
        torch._foreach_add_(scale, self.epsilon)
        torch._foreach_div_(gradients, scale)
        torch._foreach_lerp_(self.momentum, gradients, 1 - self.beta1)
        change = torch._foreach_mul(self.momentum, -self.rate * share / (1 - self.beta1**self.count))
        torch._foreach_add_(self.parameters, change)
        return {
            "optimizer/gradient_norm": norms.square().sum().sqrt(),
            "optimizer/clipped": (excess > 1).float().mean(),
        }

    def state_tensors(self) -> dict[str, Tensor]:
        """`count`, and `momentum.i` and `square.i` of the i-th parameter."""
        tensors = {"count": self.count}
        tensors |= {f"momentum.{i}": m for i, m in enumerate(self.momentum)}
        return tensors | {f"square.{i}": s for i, s in enumerate(self.square)}

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Copies the tensors of `state_tensors` back."""
        for name, tensor in self.state_tensors().items():
            tensor.copy_(tensors[name])
