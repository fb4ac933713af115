"""The recurrent state-space model: latent dynamics learned from sequences (PlaNet, 2019; DreamerV3, Nature 2025)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from reverie.models.dream_model import TensorState
from reverie.nn.cells import Cell
from reverie.nn.latents import Latent
from reverie.nn.layers import MLP, Linear, NetworkStyle


@dataclass
class LatentState(TensorState):
    """Where the world model is: h and a flat sample z, [N, D] and [N, S C] or with a time axis after N."""

    deterministic: Tensor
    stochastic: Tensor

    @property
    def feature(self) -> Tensor:
        """State and sample side by side: [..., D + S C]."""
        return torch.cat([self.deterministic, self.stochastic], -1)

    def detach(self) -> Self:
        """The same state outside the graph."""
        return type(self)(self.deterministic.detach(), self.stochastic.detach())

    def flatten(self) -> Self:
        """[B, T, ...] -> [B T, ...]."""
        return type(self)(self.deterministic.flatten(0, 1), self.stochastic.flatten(0, 1))

    def at(self, step: int | slice) -> Self:
        """One step, or a range of steps: [B, T, ...] -> [B, ...] or [B, T', ...]."""
        return type(self)(self.deterministic[:, step], self.stochastic[:, step])


class SampleState(LatentState):
    """The state of a model without memory: only z is shown to others, h is on the way to it."""

    @property
    def feature(self) -> Tensor:
        """The sample alone: [..., S C]."""
        return self.stochastic


class RSSM(nn.Module):
    """Deterministic cell, stochastic latent, prior and posterior.

    Args:
        cell: computes the next h.
        latent: kind of z.
        deterministic: D, width of h.
        tokens: width of the encoder's output.
        hidden: units of the prior and posterior networks.
        prior_layers, posterior_layers: their hidden layers.
        style: of those layers and of the logit layers.
        learned_initial: begin episodes in tanh(w) and the prior's mode there (DreamerV3, 2023) instead of zeros.
    """

    def __init__(
        self,
        cell: Cell,
        latent: Latent,
        *,
        deterministic: int,
        tokens: int,
        hidden: int,
        prior_layers: int,
        posterior_layers: int,
        style: NetworkStyle,
        learned_initial: bool = False,
    ) -> None:
        super().__init__()
        self.cell, self.latent, self.deterministic = cell, latent, deterministic
        self.state = LatentState if cell.remembers else SampleState
        self.prior = MLP(deterministic, units=hidden, layers=prior_layers, style=style)
        self.prior_logits = Linear(self.prior.outputs, latent.outputs, style.output_kernel)
        self.posterior = MLP(deterministic + tokens, units=hidden, layers=posterior_layers, style=style)
        self.posterior_logits = Linear(hidden, latent.outputs, style.output_kernel)
        self.initial_deterministic = nn.Parameter(torch.zeros(deterministic)) if learned_initial else None

    @property
    def features(self) -> int:
        """F: D + S C, or S C without memory."""
        return self.latent.width + (self.deterministic if self.cell.remembers else 0)

    def initial(self, batch: int, device: torch.device, dtype: torch.dtype = torch.float32) -> LatentState:
        """The state before the first observation of an episode: [batch, D], [batch, S C]."""
        if self.initial_deterministic is None:
            return self.state(
                torch.zeros(batch, self.deterministic, device=device, dtype=dtype),
                torch.zeros(batch, self.latent.width, device=device, dtype=dtype),
            )
        deterministic = torch.tanh(self.initial_deterministic).to(dtype)
        with torch.no_grad():
            stochastic = self.latent.sample(self.predict(deterministic), deterministic=True)
        return self.state(deterministic.expand(batch, -1), stochastic.expand(batch, -1))

    def predict(self, deterministic: Tensor) -> Tensor:
        """What describes the prior, logits or means and deviations: h [..., D] -> [..., outputs of the latent]."""
        return self.prior_logits(self.prior(deterministic))

    def observe(
        self,
        tokens: Tensor,
        previous_action: Tensor,
        is_first: Tensor,
        state: LatentState,
        deterministic: bool = False,
    ) -> tuple[LatentState, Tensor]:
        """Filters a sequence of observations.

        Where `is_first`, the state is replaced by the initial one and the previous action by zeros, here and nowhere
        else. Only what depends on the recurrent state runs inside the loop.

        Args:
            tokens: [B, T, K] from the encoder.
            previous_action: [B, T, A], the action that led to each observation.
            is_first: bool [B, T].
            state: before the first step, [B, ...].
            deterministic: take most likely latents instead of samples.

        Returns:
            The states [B, T, ...] with gradients, and what describes the posterior, [B, T, outputs of the latent].
        """
        dtype, steps = tokens.dtype, tokens.shape[1]
        # What h does not influence, for all steps at once: the embedded actions [B, T, hidden], and the tokens' share
        # of the posterior's first layer [B, T, hidden].
        resets = is_first.unsqueeze(-1)
        actions = self.cell.embed_action(previous_action.to(dtype).masked_fill(resets, 0)).unbind(1)
        first = self.posterior.first
        state_kernel = first.weight[:, : self.deterministic].T.to(dtype)
        from_tokens = tokens @ first.weight[:, self.deterministic :].T.to(dtype)
        if first.bias is not None:
            from_tokens = from_tokens + first.bias.to(dtype)
        token_steps, first_steps = from_tokens.unbind(1), resets.unbind(1)
        start = self.initial(tokens.shape[0], tokens.device, dtype)
        kernels = self.cell.prepare(dtype)
        h, z = state.deterministic, state.stochastic
        hs, zs, logits = [], [], []
        for t in range(steps):
            h = torch.where(first_steps[t], start.deterministic, h)
            z = torch.where(first_steps[t], start.stochastic, z)
            # sequence model: h_t = f(h_{t-1}, z_{t-1}, a_{t-1}), [B, D]
            h = self.cell(h, z, actions[t], kernels=kernels)
            # encoder: z_t ~ q(z_t | h_t, x_t), [B, S C]
            x = self.posterior.norms[0](torch.addmm(token_steps[t], h, state_kernel))
            for linear, norm in zip(self.posterior.linears[1:], self.posterior.norms[1:], strict=True):
                x = norm(linear(x))
            logit = self.posterior_logits(x)
            z = self.latent.sample(logit, deterministic)
            hs.append(h)
            zs.append(z)
            logits.append(logit)
        return self.state(torch.stack(hs, 1), torch.stack(zs, 1)), torch.stack(logits, 1)

    def imagine_step(
        self,
        state: LatentState,
        action: Tensor,
        kernels: tuple[Tensor, ...],
        deterministic: bool = False,
        temperature: float = 1.0,
    ) -> LatentState:
        """One step without an observation: state [N, ...], action [N, A] -> state [N, ...]."""
        # h' = f(h, z, a), then z' ~ p(z' | h'): the prior in the place of the posterior
        embedding = self.cell.embed_action(action.to(state.deterministic.dtype))
        h = self.cell(state.deterministic, state.stochastic, embedding, kernels=kernels)
        return self.state(h, self.latent.sample(self.predict(h), deterministic, temperature))

    def imagine(
        self,
        policy: Callable[[Tensor, int], Tensor],
        state: LatentState,
        horizon: int,
        deterministic: bool = False,
        temperature: float = 1.0,
    ) -> list[LatentState]:
        """A rollout in latent space.

        Args:
            policy: (feature [N, D + S C], step) -> action [N, A].
            state: where the rollout begins, [N, ...].
            horizon: H, number of transitions.
            deterministic: take most likely latents instead of samples.
            temperature: of the latents' distributions; 1 is the model's own.

        Returns:
            H + 1 states [N, ...], the first being `state`.
        """
        kernels = self.cell.prepare(state.deterministic.dtype)
        states = [state]
        for step in range(horizon):
            state = self.imagine_step(
                state,
                policy(state.feature, step),
                kernels,
                deterministic=deterministic,
                temperature=temperature,
            )
            states.append(state)
        return states
