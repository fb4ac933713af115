"""Recurrent cells of the RSSM: what carries the deterministic state h from one step to the next.

Every cell has the same three methods, so that a world model can use any of them:

* `embed_action` runs once for all steps, because it does not depend on the recurrent state;
* `prepare` brings kernels into the layout and dtype of the steps, once a sequence;
* `forward` makes one step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reverie.errors import ConfigError
from reverie.nn.layers import BlockLinear, Initialiser, Linear, NormActivation
from reverie.ops.gates import gated_update


def _bound(action: Tensor) -> Tensor:
    """The action divided by max(1, |action|), elementwise, with no gradient through the divisor."""
    return action / action.detach().abs().clamp(min=1)


class BlockGRU(nn.Module):
    """GRU with block-diagonal recurrent weights (DreamerV3, Nature 2025, "Recurrent state-space model").

    Three projections of h, z and the action meet in a hidden layer, in which each block sees its own slice of h and
    all of the projections. The gates are computed block by block.

    Args:
        deterministic: D, a multiple of `blocks`.
        stochastic: width of a flat latent sample.
        action: A, width of the flat action.
        hidden: units of each projection.
        blocks: G.
        initialiser: of every kernel.

    Raises:
        ConfigError: D is not a multiple of G.
    """

    def __init__(
        self, deterministic: int, stochastic: int, action: int, hidden: int, blocks: int, initialiser: Initialiser
    ) -> None:
        super().__init__()
        if deterministic % blocks:
            raise ConfigError(
                f"the recurrent state has deterministic = {deterministic} units and blocks = {blocks}, which does not "
                f"divide; choose a width that is a multiple of the number of blocks"
            )
        self.deterministic, self.blocks = deterministic, blocks
        self.from_deterministic = Linear(deterministic, hidden, initialiser)
        self.from_stochastic = Linear(stochastic, hidden, initialiser)
        self.from_action = Linear(action, hidden, initialiser)
        self.norm_deterministic = NormActivation(hidden, "rms")
        self.norm_stochastic = NormActivation(hidden, "rms")
        self.norm_action = NormActivation(hidden, "rms")
        self.hidden = BlockLinear(deterministic + blocks * 3 * hidden, deterministic, blocks, initialiser)
        self.norm_hidden = NormActivation(deterministic, "rms")
        self.gates = BlockLinear(deterministic, 3 * deterministic, blocks, initialiser)

    def embed_action(self, action: Tensor) -> Tensor:
        """Action projection: [..., A] -> [..., hidden]."""
        return self.norm_action(self.from_action(_bound(action)))

    def prepare(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """The hidden layer's kernel in two pieces: own slice of h [G, D/G, D/G], shared projections [3 hidden, D]."""
        own = self.deterministic // self.blocks
        kernel = self.hidden.weight.to(dtype)
        return kernel[:, :own], kernel[:, own:].transpose(0, 1).flatten(1)

    def forward(
        self, deterministic: Tensor, stochastic: Tensor, action_embedding: Tensor, kernels: tuple[Tensor, ...]
    ) -> Tensor:
        """One step: h [N, D], z [N, S C], action embedding [N, hidden] -> next h [N, D]."""
        own_kernel, shared_kernel = kernels
        shared = torch.cat(
            [
                self.norm_deterministic(self.from_deterministic(deterministic)),
                self.norm_stochastic(self.from_stochastic(stochastic)),
                action_embedding,
            ],
            -1,
        )
        # Each block of the hidden layer sees [own slice of h, shared]; `shared` is not repeated for every block.
        blocked = deterministic.unflatten(-1, (self.blocks, -1)).transpose(0, 1)
        from_own = torch.bmm(blocked, own_kernel).transpose(0, 1).flatten(1)
        from_shared = torch.addmm(self.hidden.bias.to(shared.dtype), shared, shared_kernel)
        x = self.norm_hidden(from_shared + from_own).unflatten(-1, (self.blocks, -1)).transpose(0, 1)
        reset, candidate, update = self.gates.blockwise(x).chunk(3, -1)
        return gated_update(blocked, reset, candidate, update).transpose(0, 1).flatten(1)


class NormGRU(nn.Module):
    """Dense GRU with LayerNorm inside, fed by one hidden layer (DreamerV2; DreamerV3, arXiv 2023).

    The reset gate multiplies the candidate before its tanh, and the update gate has a bias of -1.

    Args:
        deterministic: D.
        stochastic: width of a flat latent sample.
        action: A.
        hidden: units of the input layer.
        initialiser: of every kernel.
    """

    def __init__(self, deterministic: int, stochastic: int, action: int, hidden: int, initialiser: Initialiser) -> None:
        super().__init__()
        self.stochastic = stochastic
        self.input = Linear(stochastic + action, hidden, initialiser, bias=False)
        self.norm_input = NormActivation(hidden, "layer")
        self.gates = Linear(deterministic + hidden, 3 * deterministic, initialiser, bias=False)
        self.norm_gates = nn.LayerNorm(3 * deterministic, eps=1e-3)

    def embed_action(self, action: Tensor) -> Tensor:
        """Contribution of the action to the input layer, before its norm: [..., A] -> [..., hidden]."""
        return _bound(action) @ self.input.weight[:, self.stochastic :].T.to(action.dtype)

    def prepare(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """The input layer's kernel for z: [S C, hidden]."""
        return (self.input.weight[:, : self.stochastic].T.to(dtype),)

    def forward(
        self, deterministic: Tensor, stochastic: Tensor, action_embedding: Tensor, kernels: tuple[Tensor, ...]
    ) -> Tensor:
        """One step: h [N, D], z [N, S C], action embedding [N, hidden] -> next h [N, D]."""
        x = self.norm_input(torch.addmm(action_embedding, stochastic, kernels[0]))
        gates = self.norm_gates(self.gates(torch.cat([deterministic, x], -1)).float()).to(x.dtype)
        return gated_update(deterministic, *gates.chunk(3, -1))
