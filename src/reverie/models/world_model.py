"""The world model of the Dreamer line: encoder, RSSM, decoder, reward and continue heads, and their joint loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reverie.errors import ConfigError
from reverie.models.overshooting import overshooting_loss
from reverie.models.rssm import RSSM, LatentState
from reverie.nn.contrast import ContrastiveHead
from reverie.nn.decoders import Decoder
from reverie.nn.encoders import Encoder
from reverie.nn.heads import ContinueHead, ScalarHead
from reverie.nn.latents import GaussianLatent
from reverie.ops.balance import balanced_kl
from reverie.ops.transforms import quantize


@dataclass(frozen=True)
class WorldModelScales:
    """Weights of the loss terms.

    Attributes:
        dynamics: of the KL half that trains the prior.
        representation: of the KL half that trains the posterior.
        free_nats: lower bound of each half.
        continue_discount: the continue head learns continue times this factor; 1 for plain continuation.
        average: bound the mean of each half over the batch instead of every step.
        reward: of the reward loss.
        continuation: of the continue head's loss.
        overshooting: of the KL at several steps' distance; 0 leaves it out.
        distance: the largest of these distances.
        global_prior: of the posterior's KL from a fixed standard normal; 0 leaves it out.
    """

    dynamics: float = 1.0
    representation: float = 0.1
    free_nats: float = 1.0
    continue_discount: float = 1.0
    average: bool = False
    reward: float = 1.0
    continuation: float = 1.0
    overshooting: float = 0.0
    distance: int = 1
    global_prior: float = 0.0


class WorldModel(nn.Module):
    """Learns to predict observations, rewards and continuation from actions.

    Args:
        encoder, rssm, decoder, reward: its parts.
        continuation: predicts the ends of episodes; None where they do not matter.
        scales: weights of its loss terms.
        image_bits: bits to which images are rounded before noise fills the gaps; None leaves them as they are.
        squash_reward: learn and predict the tanh of rewards.
        decoder_teaches: whether reconstruction shapes the latents; otherwise the decoder only watches.
        contrast: shapes them by telling features apart, if it is there.

    Raises:
        ConfigError: a global prior for latents that are not normal.
    """

    def __init__(
        self,
        encoder: Encoder,
        rssm: RSSM,
        decoder: Decoder,
        reward: ScalarHead,
        continuation: ContinueHead | None,
        scales: WorldModelScales,
        image_bits: int | None = None,
        squash_reward: bool = False,
        decoder_teaches: bool = True,
        contrast: ContrastiveHead | None = None,
    ) -> None:
        super().__init__()
        if scales.global_prior and not isinstance(rssm.latent, GaussianLatent):
            raise ConfigError("a global prior needs normal latents; leave its scale at 0")
        self.encoder, self.rssm, self.decoder = encoder, rssm, decoder
        self.reward, self.continuation, self.contrast = reward, continuation, contrast
        self.scales, self.image_bits = scales, image_bits
        self.squash_reward, self.decoder_teaches = squash_reward, decoder_teaches

    def networks(self) -> dict[str, nn.Module]:
        """The parts by name, those that are there."""
        parts: dict[str, nn.Module | None] = {"encoder": self.encoder, "rssm": self.rssm, "decoder": self.decoder}
        parts |= {"reward": self.reward, "continue": self.continuation, "contrast": self.contrast}
        return {name: part for name, part in parts.items() if part is not None}

    def prepare(self, batch: Mapping[str, Tensor], deterministic: bool = False) -> Mapping[str, Tensor]:
        """What the networks see of observations: images with fewer bits and fresh noise, if the model has it so.

        Args:
            batch: observation parts and more, of any leading shape.
            deterministic: the middle of each step instead of noise.

        Returns:
            The batch; rounded images are float32, still from 0 to 255.
        """
        if self.image_bits is None:
            return batch
        names = {part.name for group in self.decoder.image_groups for part in group}
        images = {name: quantize(batch[name], self.image_bits, deterministic) for name in names}
        return {**batch, **images}

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
            States [B, T, ...] and what describes the posterior, [B, T, outputs of the latent].
        """
        tokens = self.encoder(batch, dtype)
        return self.rssm.observe(tokens, previous_action, batch["is_first"], state=state, deterministic=deterministic)

    @property
    def features(self) -> int:
        """F, see `RSSM.features`."""
        return self.rssm.features

    @property
    def end_threshold(self) -> float:
        """An episode ends where that is more likely than not."""
        return 0.5

    def feature(self, state: LatentState) -> Tensor:
        """State and sample side by side: [N, F]."""
        return state.feature

    def dream(
        self, state: LatentState, action: Tensor, temperature: float = 1.0, most_likely: bool = False
    ) -> tuple[LatentState, Tensor, Tensor]:
        """One step of `RSSM.imagine`, with what the heads predict; see `DreamModel.dream`."""
        state = self.rssm.imagine(
            lambda feature, step: action, state, 1, deterministic=most_likely, temperature=temperature
        )[-1]
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
        """Expected reward on arriving in a state, or its tanh: [..., F] -> [...]."""
        return self.reward.mean(self.reward(feature))

    def predict_continue(self, feature: Tensor) -> Tensor:
        """Predicted continuation, times the discount if that was learned; 1 without a head: [..., F] -> [...]."""
        if self.continuation is None:
            return torch.ones_like(feature[..., 0], dtype=torch.float32)
        return torch.sigmoid(self.continuation(feature))

    def loss(
        self, batch: Mapping[str, Tensor], states: LatentState, posterior_logits: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Loss terms of filtered states (PlaNet, equation 3; DreamerV3, Nature 2025, equations 3 to 5).

        Args:
            batch: prepared observation parts, `reward` and `is_terminal`, [B, T, ...].
            states: [B, T, ...] from `observe`.
            posterior_logits: [B, T, outputs of the latent] from `observe`.

        Returns:
            Weighted terms by name, each [B, T]; and scalar metrics.
        """
        latent, scales = self.rssm.latent, self.scales
        # KL between posterior q(z | h, x) and prior p(z | h), in two halves: [B, T]
        posterior = latent.distribution(posterior_logits)
        prior = latent.distribution(self.rssm.predict(states.deterministic))
        dynamics, representation = balanced_kl(
            posterior, prior, latent.divergence, free_nats=scales.free_nats, average=scales.average
        )
        # prediction losses: -ln p(x | h, z), -ln p(r | h, z), -ln p(c | h, z), [B, T] each
        feature = states.feature  # [B, T, F]
        reconstruction = self.decoder.losses(self.decoder(feature if self.decoder_teaches else feature.detach()), batch)
        terms = {f"reconstruction/{name}": loss for name, loss in reconstruction.items()}
        reward_logits, reward = self.reward(feature), batch["reward"].tanh() if self.squash_reward else batch["reward"]
        terms["reward"] = _weighted(self.reward.loss(reward_logits, reward), scales.reward)
        if self.continuation is not None:
            going_on = (~batch["is_terminal"]).float() * scales.continue_discount
            continue_loss = self.continuation.loss(self.continuation(feature), going_on)
            terms["continue"] = _weighted(continue_loss, scales.continuation)
        # weighted sum: beta_pred = 1, beta_dyn, beta_rep
        terms |= {"dynamics": dynamics * scales.dynamics}
        terms |= {"representation": representation * scales.representation}
        terms |= self._extra_terms(batch, states, posterior)
        with torch.no_grad():
            metrics = {
                "world_model/kl": latent.divergence(posterior, prior).mean(),
                "world_model/prior_entropy": latent.entropy(prior).mean(),
                "world_model/posterior_entropy": latent.entropy(posterior).mean(),
                "world_model/reward_error": (self.reward.mean(reward_logits) - reward).abs().mean(),
            }
        return terms, metrics

    def _extra_terms(self, batch: Mapping[str, Tensor], states: LatentState, posterior: Tensor) -> dict[str, Tensor]:
        """The terms that only some agents have, and that are off in most of them."""
        terms, scales, latent = {}, self.scales, self.rssm.latent
        if scales.overshooting:
            loss = overshooting_loss(
                self.rssm,
                states,
                posterior,
                batch=batch,
                distance=scales.distance,
                free_nats=scales.free_nats,
            )
            terms["overshooting"] = scales.overshooting * loss
        if scales.global_prior and isinstance(latent, GaussianLatent):
            terms["global_prior"] = scales.global_prior * latent.divergence(posterior, latent.standard(posterior))
        if self.contrast is not None:
            terms["contrast"] = self.contrast.loss(self.encoder(batch, states.deterministic.dtype), states.feature)
        return terms


def _weighted(term: Tensor, scale: float) -> Tensor:
    return term if scale == 1 else term * scale
