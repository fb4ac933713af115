"""Recurrent cells of the RSSM: what carries the deterministic state h from one step to the next.

Every cell has the same three methods, so that a world model can use any of them, and says in `remembers` whether h
outlives a step:

* `embed_action` runs once for all steps, because it does not depend on the recurrent state;
* `prepare` brings kernels into the layout and dtype of the steps, once a sequence;
* `forward` makes one step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reverie.errors import ConfigError
from reverie.nn.layers import BlockLinear, Linear, NetworkStyle, NormActivation
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
        style: of every layer.

    Raises:
        ConfigError: D is not a multiple of G.
    """

    remembers = True

    def __init__(
        self, deterministic: int, *, stochastic: int, action: int, hidden: int, blocks: int, style: NetworkStyle
    ) -> None:
        super().__init__()
        norm, activation, kernel = style.norm, style.activation, style.kernel
        if deterministic % blocks:
            raise ConfigError(
                f"the recurrent state has deterministic = {deterministic} units and blocks = {blocks}, which does not "
                f"divide; choose a width that is a multiple of the number of blocks"
            )
        self.deterministic, self.blocks = deterministic, blocks
        self.from_deterministic = Linear(deterministic, hidden, kernel)
        self.from_stochastic = Linear(stochastic, hidden, kernel)
        self.from_action = Linear(action, hidden, kernel)
        self.norm_deterministic = NormActivation(hidden, norm, activation)
        self.norm_stochastic = NormActivation(hidden, norm, activation)
        self.norm_action = NormActivation(hidden, norm, activation)
        self.hidden = BlockLinear(deterministic + blocks * 3 * hidden, deterministic, blocks=blocks, initializer=kernel)
        self.norm_hidden = NormActivation(deterministic, norm, activation)
        self.gates = BlockLinear(deterministic, 3 * deterministic, blocks=blocks, initializer=kernel)

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
        return gated_update(blocked, reset=reset, candidate=candidate, update=update).transpose(0, 1).flatten(1)


class InputLayer(nn.Module):
    """Base of the cells that are fed by one hidden layer on z and the action.

    Args:
        stochastic: width of a flat latent sample.
        action: A, width of the flat action.
        hidden: units.
        style: of the layer; without a norm it has a bias.
    """

    remembers = True

    def __init__(self, *, stochastic: int, action: int, hidden: int, style: NetworkStyle) -> None:
        super().__init__()
        self.stochastic = stochastic
        self.input = Linear(stochastic + action, hidden, style.kernel, bias=style.norm == "none")
        self.norm_input = NormActivation(hidden, style.norm, style.activation)

    def embed_action(self, action: Tensor) -> Tensor:
        """Contribution of the action to the input layer, before its norm: [..., A] -> [..., hidden]."""
        embedding = _bound(action) @ self.input.weight[:, self.stochastic :].T.to(action.dtype)
        return embedding if self.input.bias is None else embedding + self.input.bias.to(action.dtype)

    def prepare(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """The input layer's kernel for z: [S C, hidden]."""
        return (self.input.weight[:, : self.stochastic].T.to(dtype),)

    def feed(self, stochastic: Tensor, action_embedding: Tensor, kernels: tuple[Tensor, ...]) -> Tensor:
        """The input layer: z [N, S C], action embedding [N, hidden] -> [N, hidden]."""
        return self.norm_input(torch.addmm(action_embedding, stochastic, kernels[0]))


class NormGRU(InputLayer):
    """Dense GRU with LayerNorm inside, fed by one hidden layer (DreamerV2; DreamerV3, arXiv 2023).

    The reset gate multiplies the candidate before its tanh, and the update gate has a bias of -1.

    Args:
        deterministic: D.
        stochastic: width of a flat latent sample.
        action: A.
        hidden: units of the input layer.
        style: of the input layer, with the norm `layer` (DreamerV3), or `none`, with which all layers have biases
            (DreamerV2).
    """

    def __init__(
        self,
        deterministic: int,
        *,
        stochastic: int,
        action: int,
        hidden: int,
        style: NetworkStyle,
    ) -> None:
        super().__init__(stochastic=stochastic, action=action, hidden=hidden, style=style)
        self.gates = Linear(deterministic + hidden, 3 * deterministic, style.kernel, bias=style.norm == "none")
        self.norm_gates = nn.LayerNorm(3 * deterministic, eps=1e-3)

    def forward(
        self, deterministic: Tensor, stochastic: Tensor, action_embedding: Tensor, kernels: tuple[Tensor, ...]
    ) -> Tensor:
        """One step: h [N, D], z [N, S C], action embedding [N, hidden] -> next h [N, D]."""
        x = self.feed(stochastic, action_embedding, kernels)
        gates = self.norm_gates(self.gates(torch.cat([deterministic, x], -1)).float()).to(x.dtype)
        return gated_update(deterministic, *gates.chunk(3, -1))


class ClassicGRU(InputLayer):
    """GRU whose reset gate multiplies h before the candidate's product (Cho et al., 2014; PlaNet's released code).

    The biases of both gates begin at one. Arguments as for `InputLayer`, with D first.
    """

    def __init__(
        self,
        deterministic: int,
        *,
        stochastic: int,
        action: int,
        hidden: int,
        style: NetworkStyle,
    ) -> None:
        super().__init__(stochastic=stochastic, action=action, hidden=hidden, style=style)
        self.gates = Linear(hidden + deterministic, 2 * deterministic, style.kernel)
        self.candidate = Linear(hidden + deterministic, deterministic, style.kernel)
        assert self.gates.bias is not None
        nn.init.ones_(self.gates.bias)

    def forward(
        self, deterministic: Tensor, stochastic: Tensor, action_embedding: Tensor, kernels: tuple[Tensor, ...]
    ) -> Tensor:
        """One step: h [N, D], z [N, S], action embedding [N, hidden] -> next h [N, D]."""
        x = self.feed(stochastic, action_embedding, kernels)
        reset, keep = torch.sigmoid(self.gates(torch.cat([x, deterministic], -1))).chunk(2, -1)
        candidate = torch.tanh(self.candidate(torch.cat([x, reset * deterministic], -1)))
        return torch.lerp(candidate, deterministic, keep)


class ResetAfterGRU(InputLayer):
    """GRU whose reset gate multiplies the product with h, as in `torch.nn.GRUCell` (Dreamer v1's released code).

    Arguments as for `InputLayer`, with D first; the kernel on h begins orthogonal.
    """

    def __init__(
        self,
        deterministic: int,
        *,
        stochastic: int,
        action: int,
        hidden: int,
        style: NetworkStyle,
    ) -> None:
        super().__init__(stochastic=stochastic, action=action, hidden=hidden, style=style)
        self.from_input = Linear(hidden, 3 * deterministic, style.kernel)
        self.from_state = Linear(deterministic, 3 * deterministic, style.kernel)
        if not self.from_state.weight.is_meta:
            nn.init.orthogonal_(self.from_state.weight)

    def forward(
        self, deterministic: Tensor, stochastic: Tensor, action_embedding: Tensor, kernels: tuple[Tensor, ...]
    ) -> Tensor:
        """One step: h [N, D], z [N, S], action embedding [N, hidden] -> next h [N, D]."""
        x = self.from_input(self.feed(stochastic, action_embedding, kernels)).chunk(3, -1)
        h = self.from_state(deterministic).chunk(3, -1)
        reset, keep = torch.sigmoid(x[0] + h[0]), torch.sigmoid(x[1] + h[1])
        return torch.lerp(torch.tanh(x[2] + reset * h[2]), deterministic, keep)


class Memoryless(InputLayer):
    """No recurrence: h is a hidden layer on z and the action alone (PlaNet, section 3, the stochastic model)."""

    remembers = False

    def forward(
        self, deterministic: Tensor, stochastic: Tensor, action_embedding: Tensor, kernels: tuple[Tensor, ...]
    ) -> Tensor:
        """One step: z [N, S], action embedding [N, hidden] -> h [N, hidden]; the h of before is not read."""
        return self.feed(stochastic, action_embedding, kernels)


Cell = BlockGRU | NormGRU | ClassicGRU | ResetAfterGRU | Memoryless
