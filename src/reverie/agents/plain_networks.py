"""The networks of the agents before DreamerV3, which are alike in PlaNet, Dreamer v1 and DreamerV2.

Layers have no norm, kernels are drawn by Glorot's rule, vectors enter as they are, images have 64x64 pixels, and all
that is predicted is the mean of a normal distribution with deviation one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from reverie.agents.imagination_agent import ImaginationAgent
from reverie.models.rssm import RSSM
from reverie.models.world_model import WorldModel, WorldModelScales
from reverie.nn.cells import Cell
from reverie.nn.contrast import ContrastiveHead
from reverie.nn.decoders import Decoder
from reverie.nn.encoders import Encoder
from reverie.nn.heads import ContinueHead, NormalHead, PolicyHead
from reverie.nn.latents import Latent
from reverie.nn.layers import GLOROT, Activation
from reverie.nn.policies import Continuous
from reverie.optim.grouped_adam import AdamGroup, GroupedAdam
from reverie.spaces import Interface

Representation = Literal["reconstruction", "contrastive", "reward"]


@dataclass(frozen=True)
class PlainNetworks:
    """Sizes and activations.

    Attributes:
        depth: base number of image channels.
        units: of all heads.
        vector_units, vector_layers: of the vector encoder and decoder.
        activation: of all layers but the convolutions.
        image_activation: of the convolutions.
    """

    depth: int
    units: int
    vector_units: int
    vector_layers: int
    activation: Activation
    image_activation: Activation

    def world_model(
        self,
        interface: Interface,
        cell: Cell,
        latent: Latent,
        widths: tuple[int, int],
        reward_layers: int,
        continue_layers: int | None,
        scales: WorldModelScales,
        representation: Representation = "reconstruction",
        **options: Any,
    ) -> WorldModel:
        """A world model around a cell and a latent.

        Args:
            interface: observation and action parts.
            cell: computes the next h.
            latent: kind of z.
            widths: D, and the units of the prior and posterior networks.
            reward_layers: hidden layers of the reward head.
            continue_layers: those of the continue head; None for no such head.
            scales: weights of the loss terms.
            representation: what shapes the latents besides rewards: reconstruction, telling features apart, or nothing.
            options: further arguments of `WorldModel`.

        Raises:
            ConfigError: images that are not 64x64.
        """
        deterministic, hidden = widths
        parts, sizes = interface.observations, (self.depth, self.vector_units, self.vector_layers)
        activations = (self.activation, self.image_activation)
        encoder = Encoder(parts, *sizes, "unpadded", GLOROT, *activations, vectors="raw")
        rssm = RSSM(
            cell,
            latent,
            deterministic,
            encoder.outputs,
            hidden,
            1 if cell.remembers else 0,
            1,
            "none",
            False,
            GLOROT,
            GLOROT,
            self.activation,
        )
        seen = deterministic if cell.remembers else 0
        decoder = Decoder(
            parts, seen, latent.width, *sizes, 1, "unpadded", GLOROT, GLOROT, *activations, vectors="raw", square=0.5
        )
        features, contrast, continuation = rssm.features, None, None
        if representation == "contrastive":
            contrast = ContrastiveHead(encoder.outputs, features, self.units, 3, self.activation, GLOROT)
        if continue_layers is not None:
            continuation = ContinueHead(features, self.units, continue_layers, "none", GLOROT, GLOROT, self.activation)
        return WorldModel(
            encoder,
            rssm,
            decoder,
            self.scalar(features, reward_layers),
            continuation,
            scales,
            decoder_teaches=representation == "reconstruction",
            contrast=contrast,
            **options,
        )

    def scalar(self, features: int, layers: int) -> NormalHead:
        """A head for rewards or values."""
        return NormalHead(features, self.units, layers, self.activation, GLOROT)

    def policy(self, features: int, layers: int, interface: Interface, continuous: Continuous) -> PolicyHead:
        """An actor."""
        parts, units = interface.actions, self.units
        return PolicyHead(features, parts, units, layers, "none", GLOROT, GLOROT, 0.0, continuous, self.activation)


def separate_adams(
    agent: ImaginationAgent, rates: Mapping[str, float], epsilon: float, clip: float, decay: float = 0.0
) -> GroupedAdam:
    """An Adam for the world model and for each network of the behaviour, with epsilon where TensorFlow has it.

    Args:
        agent: on its device.
        rates: learning rate of `world_model` and of each network by name.
        epsilon: added to the root of the squared gradients.
        clip: largest norm of the gradients of each.
        decay: share by which every weight shrinks before each step.
    """
    parts: dict[str, nn.Module] = {"world_model": agent.world_model, **agent.behavior.networks()}
    settings = {
        name: AdamGroup(rate, epsilon, clip, decay, epsilon_before_correction=True) for name, rate in rates.items()
    }
    return GroupedAdam({name: (part.parameters(), settings[name]) for name, part in parts.items()})
