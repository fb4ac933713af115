"""The gates of the recurrent cells of DreamerV2 and DreamerV3."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _GatedUpdate(torch.autograd.Function):
    """h' = h + u (c - h) with c = tanh(s(reset) candidate) and u = s(update - 1), s the logistic function.

    With g the gradient of h': dh = g (1 - u), d update = g (c - h) u (1 - u), and with e = g u (1 - c^2) the gradient
    of the argument of tanh, d candidate = e s(reset), d reset = e candidate s(reset) (1 - s(reset)).
    """

    @staticmethod
    def forward(ctx: Any, state: Tensor, reset: Tensor, candidate: Tensor, update: Tensor) -> Tensor:
        opened = torch.sigmoid(reset)
        proposal = torch.tanh(opened * candidate)
        rate = torch.sigmoid(update - 1)
        ctx.save_for_backward(state, opened, candidate, proposal, rate)
        return torch.lerp(state, proposal, rate)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        state, opened, candidate, proposal, rate = ctx.saved_tensors
        moved = gradient * rate
        argument = torch.ops.aten.tanh_backward(moved, proposal)
        update = torch.ops.aten.sigmoid_backward(gradient * (proposal - state), rate)
        reset = torch.ops.aten.sigmoid_backward(argument * candidate, opened)
        return gradient - moved, reset, argument * opened, update


def gated_update(state: Tensor, reset: Tensor, candidate: Tensor, update: Tensor) -> Tensor:
    """One step of a GRU whose reset gate multiplies the candidate and whose update gate has a bias of -1.

    Args:
        state: h, any shape.
        reset: pre-activation of the reset gate, same shape.
        candidate: pre-activation of the proposed state, same shape.
        update: pre-activation of the update gate, same shape.

    Returns:
        The next h.
    """
    return _GatedUpdate.apply(state, reset, candidate, update)
