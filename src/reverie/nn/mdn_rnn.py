"""The memory model M of World Models (Ha and Schmidhuber, 2018): an LSTM that predicts mixtures of Gaussians."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from reverie.errors import ConfigError
from reverie.nn.layers import GLOROT, Linear
from reverie.ops.mixtures import mixture_log_probability, sample_mixture


@dataclass(frozen=True)
class MixtureState:
    """What the LSTM carries from step to step.

    Attributes:
        hidden: h, which controllers read, [B, D].
        cell: c, [B, D].
    """

    hidden: Tensor
    cell: Tensor

    def zeroed(self, restart: Tensor) -> MixtureState:
        """The state with zeros in the rows where `restart` [B] is set."""
        keep = 1 - restart.to(self.hidden.dtype).unsqueeze(-1)
        return MixtureState(self.hidden * keep, self.cell * keep)


@dataclass(frozen=True)
class MixtureOutput:
    """Predictions of what follows a step: [B, ...] after one step, [B, T, ...] after a sequence.

    Attributes:
        log_weights: of the K components of each latent dimension, up to a constant, [..., Z, K].
        means: [..., Z, K].
        log_deviations: [..., Z, K].
        restart_logit: of the episode's end, [...]; the dream ends where it is above 0. None without that head.
        reward: [...]; None without that head.
        action: the next action, [..., A]; None without that head.
    """

    log_weights: Tensor
    means: Tensor
    log_deviations: Tensor
    restart_logit: Tensor | None = None
    reward: Tensor | None = None
    action: Tensor | None = None

    def sample(self, temperature: float = 1.0, most_likely: bool = False) -> Tensor:
        """Next latents [..., Z] at a temperature, or the means of the heaviest components."""
        return sample_mixture(
            self.log_weights,
            self.means,
            self.log_deviations,
            temperature=temperature,
            most_likely=most_likely,
        )


class MixtureRNN(nn.Module):
    """Predicts the next latents from latents and actions (World Models, "MDN-RNN (M) Model" and its appendix).

    The LSTM has one bias vector, and 1 is added to its forget gate. Its outputs pass one linear layer, whose columns
    are the restart logit (if asked for), then for each latent dimension K weights, K means and K log-deviations.
    422,368 parameters in CarRacing (32, 3, 256), 1,678,785 in Take Cover (64, 1, 512, restart input and head).
    Kernels are Glorot-uniform, biases zero. Predictions are float32, also where autocast computes in bfloat16.

    The heads of reward and action belong to the iterative training of the paper, for which there is no released code;
    they are linear layers of their own.

    Args:
        latent: Z.
        action: A.
        hidden: D, units of the LSTM.
        mixtures: K.
        restart_input: the network also sees whether an episode begins, as one more input.
        restart_head: it predicts whether the following step begins another episode.
        reward_head: it predicts the reward.
        action_head: it predicts the next action.
        restart_factor: weight of the steps before a restart in the cross entropy, over that of other steps.
    """

    forget_bias: Tensor

    def __init__(
        self,
        latent: int,
        action: int,
        hidden: int,
        mixtures: int = 5,
        restart_input: bool = False,
        restart_head: bool = False,
        reward_head: bool = False,
        action_head: bool = False,
        restart_factor: float = 10.0,
    ) -> None:
        super().__init__()
        self.latent, self.action, self.hidden, self.mixtures = latent, action, hidden, mixtures
        self.restart_input, self.restart_head, self.restart_factor = restart_input, restart_head, restart_factor
        inputs = latent + action + restart_input
        # Gates in the order of torch: input, forget, candidate, output.
        self.input_weight = nn.Parameter(torch.empty(4 * hidden, inputs))
        self.recurrent_weight = nn.Parameter(torch.empty(4 * hidden, hidden))
        self.bias = nn.Parameter(torch.zeros(4 * hidden))
        for weight in (self.input_weight, self.recurrent_weight):
            GLOROT.fill(weight, inputs + hidden, 4 * hidden)
        forget_bias = torch.zeros(4, hidden)
        forget_bias[1] = 1
        self.register_buffer("forget_bias", forget_bias.flatten(), persistent=False)
        self.output = Linear(hidden, restart_head + latent * 3 * mixtures, GLOROT)
        self.reward_output = Linear(hidden, 1, GLOROT) if reward_head else None
        self.action_output = Linear(hidden, action, GLOROT) if action_head else None

    def initial_state(self, batch: int) -> MixtureState:
        """Zeros: the state at the beginning of an episode, [B, D] each."""
        zeros = self.bias.new_zeros(batch, self.hidden)
        return MixtureState(zeros, zeros)

    def step(
        self, state: MixtureState, latent: Tensor, action: Tensor, restart: Tensor | None = None
    ) -> tuple[MixtureOutput, MixtureState]:
        """One step.

        Args:
            state: before the step.
            latent: z, [B, Z].
            action: a, chosen after seeing z, [B, A].
            restart: whether z opens an episode, [B]; the state is set to zero there first. None: nowhere.

        Returns:
            Predictions of what follows, and the state after the step.
        """
        state = self.advance(state, latent, action, restart=restart)
        return self._predict(state.hidden), state

    def advance(
        self, state: MixtureState, latent: Tensor, action: Tensor, restart: Tensor | None = None
    ) -> MixtureState:
        """The state after one step, without predictions; see `step`."""
        return self._advance(state, self._join(latent, action, restart), restart)

    def observe(
        self, latents: Tensor, actions: Tensor, restarts: Tensor | None, state: MixtureState
    ) -> tuple[MixtureOutput, MixtureState]:
        """Runs over recorded sequences; equal to `step` repeated T times.

        Args:
            latents: [B, T, Z].
            actions: [B, T, A], each chosen after seeing the latents of its step.
            restarts: whether the latents open an episode, [B, T]; the state is set to zero before those steps.
                None: nowhere, which is faster on a GPU.
            state: before the first step.

        Returns:
            Predictions of what follows each step, [B, T, ...], and the state after the last step.
        """
        inputs = self._join(latents, actions, restarts)
        if restarts is None:
            hidden, state = self._unbroken(inputs, state)
            return self._predict(hidden), state
        hiddens = []
        for x, restart in zip(inputs.unbind(1), restarts.unbind(1), strict=True):
            state = self._advance(state, x, restart)
            hiddens.append(state.hidden)
        return self._predict(torch.stack(hiddens, 1)), state

    def loss(
        self,
        output: MixtureOutput,
        latents: Tensor,
        restarts: Tensor | None = None,
        rewards: Tensor | None = None,
        actions: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The terms of the loss, whose sum is minimized. All targets are those of the step after each prediction.

        Args:
            output: from `observe`, [B, T, ...].
            latents: [B, T, Z].
            restarts: whether those latents open another episode, [B, T]; needed with that head, like the following.
            rewards: [B, T].
            actions: [B, T, A].

        Returns:
            Scalars. `latent`: negative log-density in nats, mean over batch, time and dimensions. `restart`: cross
            entropy with the weight 1 + (restart_factor - 1) y, mean over batch and time. `reward` and `action`:
            squared errors, means over all entries.

        Raises:
            ConfigError: a head has no target, or a target has no head.
        """
        log_probability = mixture_log_probability(
            latents, output.log_weights, means=output.means, log_deviations=output.log_deviations
        )
        terms = {"latent": -log_probability.mean()}
        heads: tuple[tuple[str, Tensor | None, Tensor | None, Callable[[Tensor, Tensor], Tensor]], ...] = (
            ("restart", output.restart_logit, restarts, self._restart_loss),
            ("reward", output.reward, rewards, functional.mse_loss),
            ("action", output.action, actions, functional.mse_loss),
        )
        for name, prediction, target, measure in heads:
            if prediction is not None and target is not None:
                terms[name] = measure(prediction, target.to(prediction.dtype))
            elif prediction is not None or target is not None:
                got, lacks = ("a head", "targets") if target is None else ("targets", "head")
                raise ConfigError(
                    f"the loss of the mixture network got {got} for the {name} but no {lacks}; "
                    f"set {name}_head and give {name}s, or neither"
                )
        return terms

    def _restart_loss(self, logit: Tensor, target: Tensor) -> Tensor:
        weight = 1 + (self.restart_factor - 1) * target
        return functional.binary_cross_entropy_with_logits(logit, target, weight)

    def _join(self, latent: Tensor, action: Tensor, restart: Tensor | None) -> Tensor:
        """Inputs of the LSTM: [..., Z], [..., A] and [...] -> [..., Z + A (+ 1)]."""
        parts = [latent, action]
        if self.restart_input:
            restart = latent.new_zeros(latent.shape[:-1]) if restart is None else restart.to(latent.dtype)
            parts.append(restart.unsqueeze(-1))
        return torch.cat(parts, -1)

    def _advance(self, state: MixtureState, x: Tensor, restart: Tensor | None) -> MixtureState:
        """One step of the LSTM: x [B, inputs] -> the next state."""
        if restart is not None:
            state = state.zeroed(restart)
        return MixtureState(*torch.lstm_cell(x, (state.hidden, state.cell), *self._weights()))

    def _unbroken(self, inputs: Tensor, state: MixtureState) -> tuple[Tensor, MixtureState]:
        """All steps in one call: [B, T, inputs] -> h of every step [B, T, D], and the last state."""
        carried = (state.hidden.unsqueeze(0), state.cell.unsqueeze(0))
        with warnings.catch_warnings():
            # cuDNN copies the weights into one piece of memory, and says so every time.
            warnings.filterwarnings("ignore", message="RNN module weights")
            hiddens, hidden, cell = torch.lstm(
                inputs, carried, self._weights(), True, 1, 0.0, self.training, False, True
            )
        return hiddens, MixtureState(hidden.squeeze(0), cell.squeeze(0))

    def _weights(self) -> list[Tensor]:
        """Kernels and biases of the LSTM; the second bias is a constant, 1 at the forget gate."""
        return [self.input_weight, self.recurrent_weight, self.bias, self.forget_bias]

    def _predict(self, hidden: Tensor) -> MixtureOutput:
        """All heads: [..., D] -> predictions."""
        columns = self.output(hidden).float()
        mixture = columns[..., self.restart_head :].unflatten(-1, (self.latent, 3 * self.mixtures))
        log_weights, means, log_deviations = mixture.chunk(3, -1)
        return MixtureOutput(
            log_weights,
            means,
            log_deviations,
            restart_logit=columns[..., 0] if self.restart_head else None,
            reward=None if self.reward_output is None else self.reward_output(hidden).float().squeeze(-1),
            action=None if self.action_output is None else self.action_output(hidden).float(),
        )
