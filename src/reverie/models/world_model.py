"""The world model of the Dreamer line: encoder, RSSM, decoder, reward and continue heads, and their joint loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reverie.models.rssm import RSSM, LatentState
from reverie.nn.decoders import Decoder
from reverie.nn.encoders import Encoder
from reverie.nn.heads import ContinueHead, TwoHotHead
from reverie.ops.balance import balanced_kl


@dataclass(frozen=True)
class WorldModelScales:
    """Weights of the loss terms.

    Attributes:
        dynamics: of the KL half that trains the prior.
        representation: of the KL half that trains the posterior.
        free_nats: lower bound of each half, a step.
        continue_discount: the continue head learns continue times this factor (2025); 1 for plain continuation (2023).
    """

    dynamics: float = 1.0
    representation: float = 0.1
    free_nats: float = 1.0
    continue_discount: float = 1.0


class WorldModel(nn.Module):
    """Learns to predict observations, rewards and continuation from actions.

    Args:
        encoder, rssm, decoder, reward, continuation: its parts.
        scales: weights of its loss terms.
    """

    def __init__(
        self,
        encoder: Encoder,
        rssm: RSSM,
        decoder: Decoder,
        reward: TwoHotHead,
        continuation: ContinueHead,
        scales: WorldModelScales,
    ) -> None:
        super().__init__()
        self.encoder, self.rssm, self.decoder = encoder, rssm, decoder
        self.reward, self.continuation = reward, continuation
        self.scales = scales

    def observe(
        self,
        batch: Mapping[str, Tensor],
        previous_action: Tensor,
        state: LatentState,
        dtype: torch.dtype,
        deterministic: bool = False,
    ) -> tuple[LatentState, Tensor]:
        """Encodes and filters a sequence.

        Args:
            batch: observation parts [B, T, *shape] and `is_first` [B, T].
            previous_action: [B, T, A].
            state: before the first step, [B, ...].
            dtype: compute dtype.
            deterministic: most likely latents instead of samples.

        Returns:
            States [B, T, ...] and posterior logits [B, T, S C].
        """
        tokens = self.encoder(batch, dtype)
        return self.rssm.observe(tokens, previous_action, batch["is_first"], state, deterministic)

    @property
    def features(self) -> int:
        """D + S C."""
        return self.rssm.features

    def feature(self, state: LatentState) -> Tensor:
        """State and sample side by side: [N, D + S C]."""
        return state.feature

    def dream(
        self, state: LatentState, action: Tensor, temperature: float = 1.0, most_likely: bool = False
    ) -> tuple[LatentState, Tensor, Tensor]:
        """One step of `RSSM.imagine`, with what the heads predict; see `DreamModel.dream`."""
        state = self.rssm.imagine(lambda feature, step: action, state, 1, most_likely, temperature)[-1]
        feature = state.feature
        going_on = self.predict_continue(feature) / self.scales.continue_discount
        return state, self.predict_reward(feature), going_on.clamp(max=1)

    def draw(self, state: LatentState) -> dict[str, Tensor]:
        """Decoded observations; see `DreamModel.draw`."""
        parts = self.decoder.predictions(self.decoder(state.feature.unsqueeze(1)))
        images = {part.name for group in self.decoder.image_groups for part in group}
        return {
            name: ((value.clamp(0, 1) * 255).round().to(torch.uint8) if name in images else value)[:, 0]
            for name, value in parts.items()
        }

    def predict_reward(self, feature: Tensor) -> Tensor:
        """Expected reward on arriving in a state: [..., D + S C] -> [...]."""
        return self.reward.mean(self.reward(feature))

    def predict_continue(self, feature: Tensor) -> Tensor:
        """Predicted continuation, times the discount if the head has learned it: [..., D + S C] -> [...]."""
        return torch.sigmoid(self.continuation(feature))

    def loss(
        self, batch: Mapping[str, Tensor], states: LatentState, posterior_logits: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Loss terms of filtered states (DreamerV3, Nature 2025, equations 3 to 5).

        Args:
            batch: observation parts, `reward` and `is_terminal`, [B, T, ...].
            states: [B, T, ...] from `observe`.
            posterior_logits: [B, T, S C] from `observe`.

        Returns:
            Weighted terms by name, each [B, T]; and scalar metrics.
        """
        latent = self.rssm.latent
        posterior = latent.log_probabilities(posterior_logits)
        prior = latent.log_probabilities(self.rssm.predict(states.deterministic))
        dynamics, representation = balanced_kl(posterior, prior, latent.divergence, self.scales.free_nats)
        feature = states.feature
        reconstruction = self.decoder.losses(self.decoder(feature), batch)
        reward_logits, continue_logit = self.reward(feature), self.continuation(feature)
        going_on = (~batch["is_terminal"]).float() * self.scales.continue_discount
        reward_loss = self.reward.loss(reward_logits, batch["reward"])
        continue_loss = self.continuation.loss(continue_logit, going_on)
        terms = {f"reconstruction/{name}": loss for name, loss in reconstruction.items()}
        terms |= {"reward": reward_loss, "continue": continue_loss}
        terms |= {"dynamics": dynamics * self.scales.dynamics}
        terms |= {"representation": representation * self.scales.representation}
        with torch.no_grad():
            metrics = {
                "world_model/kl": latent.divergence(posterior, prior).mean(),
                "world_model/prior_entropy": latent.entropy(prior).mean(),
                "world_model/posterior_entropy": latent.entropy(posterior).mean(),
                "world_model/reward_error": (self.reward.mean(reward_logits) - batch["reward"]).abs().mean(),
            }
        return terms, metrics
