"""The world model of World Models (Ha and Schmidhuber, 2018): vision V compresses frames, memory M predicts them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from reverie.errors import ConfigError
from reverie.models.dream_model import TensorState
from reverie.nn.mdn_rnn import MixtureRNN, MixtureState
from reverie.nn.vae import ConvVAE
from reverie.ops.mixtures import mixture_log_probability

Reads = Literal["z", "zh", "zch"]


@dataclass
class MemoryState(TensorState):
    """Where a rollout is: the latents of a frame, and what M carries, which has not seen them yet.

    Attributes:
        latent: z, [N, Z].
        hidden: h, [N, D].
        cell: c, [N, D].
        opens: whether the frame opens an episode, bool [N].
    """

    latent: Tensor
    hidden: Tensor
    cell: Tensor
    opens: Tensor


class VisionMemory(nn.Module):
    """V and M together; a `DreamModel`, in which controllers can be evolved.

    The controller acts on z and on the h that has not seen z yet (appendix of the paper; released code). M then reads z
    and the action, and predicts the next z. The end of an episode is predicted by M's restart head, the reward by its
    reward head, or it is a constant where living is what counts (Take Cover: 1 a step, also on the dying one).

    Args:
        vision: V.
        memory: M, with a restart head where dreams can end.
        name: of the image part.
        living_reward: reward of every step; None takes M's reward head.
        reads: what the controller reads, in this order: z, c and h ("zch", Take Cover), z and h (CarRacing), or z.

    Raises:
        ConfigError: V and M have different latents, or nothing predicts the reward.
    """

    def __init__(
        self,
        vision: ConvVAE,
        memory: MixtureRNN,
        name: str = "image",
        living_reward: float | None = None,
        reads: Reads = "zh",
    ) -> None:
        super().__init__()
        if vision.latent != memory.latent:
            raise ConfigError(f"vision has {vision.latent} latents and memory {memory.latent}; give both the same")
        if living_reward is None and memory.reward_output is None:
            raise ConfigError("nothing predicts the reward: give the memory a reward head, or a living_reward")
        self.vision, self.memory, self.name = vision, memory, name
        self.living_reward, self.reads = living_reward, reads

    @property
    def end_threshold(self) -> float:
        """Probability above which an end that is not drawn comes: where the logit of M's restart head is above 0."""
        return 1 / (1 + self.memory.restart_factor)

    @property
    def features(self) -> int:
        """F: Z, Z + D or Z + 2 D."""
        return self.vision.latent + self.memory.hidden * (len(self.reads) - 1)

    def feature(self, state: MemoryState) -> Tensor:
        """What the controller reads side by side: [N, F]."""
        parts = {"z": state.latent, "c": state.cell, "h": state.hidden}
        return torch.cat([parts[letter] for letter in self.reads], -1)

    def encode(self, image: Tensor, most_likely: bool = False) -> Tensor:
        """Latents of frames, sampled as in the paper or their means: uint8 [N, 64, 64, 3] -> [N, Z]."""
        mean, log_variance = self.vision.encode(image.float() / 255)
        return mean if most_likely else self.vision.sample(mean, log_variance)

    def begin(self, latent: Tensor) -> MemoryState:
        """The state in which an episode opens with these latents: [N, Z] -> [N, ...]."""
        state = self.memory.initial_state(latent.shape[0])
        return MemoryState(
            latent, hidden=state.hidden, cell=state.cell, opens=torch.ones_like(latent[:, 0], dtype=torch.bool)
        )

    def remember(self, state: MemoryState, action: Tensor, latent: Tensor) -> MemoryState:
        """The state at the next frame of a real episode.

        Args:
            state: [N, ...].
            action: that was taken in it, [N, A].
            latent: of the next frame, [N, Z].
        """
        memory = self.memory.advance(self._memory(state), state.latent, action, restart=state.opens)
        return MemoryState(latent, hidden=memory.hidden, cell=memory.cell, opens=torch.zeros_like(state.opens))

    def surprise(self, state: MemoryState, action: Tensor, latent: Tensor) -> Tensor:
        """M's loss on the latents that followed: negative log-density in nats, mean over dimensions.

        Args:
            state: [N, ...].
            action: that was taken in it, [N, A].
            latent: of the next frame, [N, Z].

        Returns:
            [N].
        """
        output, _ = self.memory.step(self._memory(state), state.latent, action, restart=state.opens)
        log_probability = mixture_log_probability(
            latent, output.log_weights, means=output.means, log_deviations=output.log_deviations
        )
        return -log_probability.mean(-1)

    def dream(
        self, state: MemoryState, action: Tensor, temperature: float = 1.0, most_likely: bool = False
    ) -> tuple[MemoryState, Tensor, Tensor]:
        """One step without a frame; see `DreamModel.dream`.

        The temperature divides the logits of the mixture and multiplies its variances; the end is not tempered. Without
        a restart head the dream never ends.
        """
        output, memory = self.memory.step(self._memory(state), state.latent, action, restart=state.opens)
        latent = output.sample(temperature, most_likely)
        following = MemoryState(latent, hidden=memory.hidden, cell=memory.cell, opens=torch.zeros_like(state.opens))
        ones = torch.ones_like(latent[:, 0])
        going_on = ones
        if output.restart_logit is not None:
            # The head has learned odds that the weight of ends in its loss has multiplied.
            going_on = torch.sigmoid(math.log(self.memory.restart_factor) - output.restart_logit)
        if self.living_reward is not None:
            return following, ones * self.living_reward, going_on
        assert output.reward is not None
        return following, output.reward, going_on

    def draw(self, state: MemoryState) -> dict[str, Tensor]:
        """The frames that V draws of z: uint8 [N, 64, 64, 3] under the name of the image part."""
        image = self.vision.decode(state.latent)
        return {self.name: (image * 255).round().to(torch.uint8)}

    def _memory(self, state: MemoryState) -> MixtureState:
        return MixtureState(state.hidden, state.cell)
