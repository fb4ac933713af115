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
from reverie.nn.layers import Activation, NetworkStyle, plain_style
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

    @property
    def style(self) -> NetworkStyle:
        """Of all layers but the convolutions; cells are given the same."""
        return plain_style(self.activation)

    def world_model(
        self,
        interface: Interface,
        cell: Cell,
        latent: Latent,
        *,
        deterministic: int,
        hidden: int,
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
            deterministic: D.
            hidden: units of the prior and posterior networks.
            reward_layers: hidden layers of the reward head.
            continue_layers: those of the continue head; None for no such head.
            scales: weights of the loss terms.
            representation: what shapes the latents besides rewards: reconstruction, telling features apart, or nothing.
            options: further arguments of `WorldModel`.

        Raises:
            ConfigError: images that are not 64x64.
        """
        parts, style, image_style = interface.observations, self.style, plain_style(self.image_activation)
        encoder = Encoder(
            parts,
            depth=self.depth,
            units=self.vector_units,
            layers=self.vector_layers,
            network="unpadded",
            style=style,
            image_style=image_style,
            vectors="raw",
        )
        rssm = RSSM(
            cell,
            latent,
            deterministic=deterministic,
            tokens=encoder.outputs,
            hidden=hidden,
            prior_layers=1 if cell.remembers else 0,
            posterior_layers=1,
            style=style,
        )
        decoder = Decoder(
            parts,
            deterministic=deterministic if cell.remembers else 0,
            stochastic=latent.width,
            depth=self.depth,
            units=self.vector_units,
            layers=self.vector_layers,
            blocks=1,
            network="unpadded",
            style=style,
            image_style=image_style,
            vectors="raw",
            square=0.5,
        )
        features, contrast, continuation = rssm.features, None, None
        if representation == "contrastive":
            contrast = ContrastiveHead(encoder.outputs, features, units=self.units, layers=3, style=style)
        if continue_layers is not None:
            continuation = ContinueHead(features, units=self.units, layers=continue_layers, style=style)
        return WorldModel(
            encoder,
            rssm,
            decoder,
            reward=self.scalar(features, reward_layers),
            continuation=continuation,
            scales=scales,
            decoder_teaches=representation == "reconstruction",
            contrast=contrast,
            **options,
        )

    def scalar(self, features: int, layers: int) -> NormalHead:
        """A head for rewards or values."""
        return NormalHead(features, units=self.units, layers=layers, style=self.style)

    def policy(self, features: int, layers: int, *, interface: Interface, continuous: Continuous) -> PolicyHead:
        """An actor."""
        return PolicyHead(
            features,
            interface.actions,
            units=self.units,
            layers=layers,
            style=self.style,
            uniform_mix=0.0,
            continuous=continuous,
        )


def separate_adams(
    agent: ImaginationAgent, rates: Mapping[str, float], *, epsilon: float, clip: float, decay: float = 0.0
) -> GroupedAdam:
    """An Adam for the world model and for each network of the behavior, with epsilon where TensorFlow has it.

    Args:
        agent: on its device.
        rates: learning rate of `world_model` and of each network by name.
        epsilon: added to the root of the squared gradients.
        clip: largest norm of the gradients of each.
        decay: share by which every weight shrinks before each step.
    """
    parts: dict[str, nn.Module] = {"world_model": agent.world_model, **agent.behavior.networks()}
    settings = {
        name: AdamGroup(rate=rate, epsilon=epsilon, clip=clip, decay=decay, epsilon_before_correction=True)
        for name, rate in rates.items()
    }
    return GroupedAdam({name: (part.parameters(), settings[name]) for name, part in parts.items()})
