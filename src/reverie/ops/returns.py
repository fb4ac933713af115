"""Lambda-returns."""

from __future__ import annotations

import torch
from torch import Tensor


def lambda_return(
    reward: Tensor, discount: Tensor, value: Tensor, mix: float | Tensor, final: Tensor | None = None
) -> Tensor:
    """Exponentially weighted mixture of n-step returns (DreamerV3, Nature 2025, equation 6).

    R_t = reward_t + discount_t ((1 - mix_t) value_t + mix_t R_{t+1}), with `final` in the place of R_T.
    The arrays are aligned: the caller decides which reward, discount and value belong to step t, which is where the
    agents of the Dreamer line differ.

    Args:
        reward: [B, T].
        discount: [B, T], zero where the episode terminates.
        value: [B, T], bootstrap of each step.
        mix: lambda, a number or [B, T].
        final: [B], the return beyond the last step; by default the last bootstrap value.

    Returns:
        [B, T].
    """
    mix = torch.as_tensor(mix, dtype=reward.dtype, device=reward.device).expand_as(reward)
    # R_t = instant_t + carried_t R_{t+1}, from the last step backward, [B] each
    instant = (reward + discount * (1 - mix) * value).unbind(1)
    carried = (discount * mix).unbind(1)
    running = value[:, -1] if final is None else final
    returns = []
    for step in reversed(range(len(instant))):
        running = instant[step] + carried[step] * running
        returns.append(running)
    return torch.stack(returns[::-1], 1)


def state_returns(reward: Tensor, discount: Tensor, value: Tensor, mix: float) -> Tensor:
    """Lambda-returns where the value of a state holds its own reward (Dreamer v1, equation 6; DreamerV2, equation 4).

    R_t = reward_t + discount_t ((1 - mix) value_{t+1} + mix R_{t+1}) for all states but the last, whose value is the
    bootstrap.

    Args:
        reward: of L states, [B, L].
        discount: [B, L].
        value: [B, L].
        mix: lambda.

    Returns:
        [B, L - 1].
    """
    return lambda_return(reward[:, :-1], discount[:, :-1], value[:, 1:], mix=mix)
