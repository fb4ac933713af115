"""DreamerV3, the version of Nature 2025 ("Mastering diverse control tasks through world models")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from reverie.agents.imagination_agent import ImaginationAgent
from reverie.agents.schedule import EvenSchedule
from reverie.behaviors.actor_critic import ActorCritic, ActorCriticSettings
from reverie.behaviors.behavior import Behavior
from reverie.models.rssm import RSSM
from reverie.models.world_model import WorldModel, WorldModelScales
from reverie.nn.cells import BlockGRU, Cell
from reverie.nn.decoders import Decoder
from reverie.nn.encoders import Encoder
from reverie.nn.heads import ContinueHead, PolicyHead, TwoHotHead
from reverie.nn.latents import CategoricalLatent, Latent
from reverie.nn.layers import Initializer, NetworkStyle
from reverie.optim.laprop import LaProp
from reverie.spaces import Interface


class Size(NamedTuple):
    """The numbers in which the model sizes differ (Nature 2025, extended data table 3; official configuration)."""

    deterministic: int
    hidden: int
    classes: int
    depth: int
    units: int


SIZES = {
    "100k": Size(deterministic=128, hidden=32, classes=4, depth=4, units=32),
    "200k": Size(deterministic=128, hidden=32, classes=4, depth=4, units=64),
    "1m": Size(deterministic=512, hidden=64, classes=4, depth=4, units=64),
    "12m": Size(deterministic=2048, hidden=256, classes=16, depth=16, units=256),
    "25m": Size(deterministic=3072, hidden=384, classes=24, depth=24, units=384),
    "50m": Size(deterministic=4096, hidden=512, classes=32, depth=32, units=512),
    "100m": Size(deterministic=6144, hidden=768, classes=48, depth=48, units=768),
    "200m": Size(deterministic=8192, hidden=1024, classes=64, depth=64, units=1024),
    "400m": Size(deterministic=12288, hidden=1536, classes=96, depth=96, units=1536),
}
"""`100k` and `200k` are ours, for tasks like CartPole on a CPU; the others are the paper's."""

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "quick": {
        "size": "200k",
        "batch_length": 16,
        "replay_ratio": 32.0,
        "warmup_steps": 8000,
        "warmup_actions": "held",
        "learning_rate": 1e-3,
        "learning_rate_warmup": 100,
        "learning_rate_decay": 1000,
        "learning_rate_floor": 4e-5,
        "discount_horizon": 200.0,
        "entropy": 1e-3,
        "slow_critic_rate": 0.1,
        "num_envs": 16,
        "steps": 40_000,
    },
}
"""`quick` is ours: small tasks on a CPU within the hour. benchmarks/README.md has what it reaches."""

BY_KIND: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {
        "vectors": {"replay_ratio": 1024.0, "num_envs": 16, "steps": 500_000},
        "pictures continuous": {"replay_ratio": 256.0, "num_envs": 16, "steps": 1_000_000},
        "pictures discrete": {"replay_ratio": 32.0, "num_envs": 16, "steps": 50_000_000},
    },
    "quick": {
        "pictures": {"batch_length": 8, "warmup_steps": 2000, "steps": 15_000},
        "symbols": {
            "size": "100k",
            "variables": 8,
            "classes": 16,
            "replay_ratio": 128.0,
            "warmup_steps": 1000,
            "warmup_actions": "policy",
            "learning_rate_decay": 0,
            "entropy": 3e-4,
            "steps": 8_000,
        },
    },
}
"""Further values for tasks that show pictures, vectors or symbols and take continuous or discrete actions. Of symbols
an agent must remember which it saw, and the noise of latent variables that it does not need blurs what h keeps: there
are few of them. Those of `paper` are the protocols for DeepMind Control from vectors and from images, and for Atari
(extended data table 2)."""


@dataclass(frozen=True)
class DreamerV3Config(EvenSchedule):
    """Settings of DreamerV3 (2025). Defaults are the paper's for Atari, except the size, which fits a CPU."""

    name: ClassVar[str] = "dreamer-v3"

    size: Literal["100k", "200k", "1m", "12m", "25m", "50m", "100m", "200m", "400m"] = "1m"
    """Model size; the paper's agent is 200m. Sets the five widths below (extended data table 3; below 1m ours)."""
    deterministic: int | None = None
    """Width of the recurrent state h; by size (extended data table 3)."""
    hidden: int | None = None
    """Units of the dynamics networks; by size (extended data table 3)."""
    classes: int | None = None
    """Classes of every latent variable; by size (extended data table 3)."""
    depth: int | None = None
    """Base number of image channels; by size (extended data table 3)."""
    units: int | None = None
    """Units of all other networks; by size (extended data table 3)."""
    variables: int = 32
    """Latent variables (methods, "World model learning")."""
    blocks: int = 8
    """Diagonal blocks of the recurrent weights (methods, "Block GRU")."""
    uniform_mix: float = 0.01
    """Uniform share in every latent distribution (methods, "World model learning")."""
    actor_uniform_mix: float = 0.01
    """Uniform share in discrete policies (methods, "Actor learning"; the official code forgets it)."""
    batch_size: int = 16
    """Windows per batch (extended data table 4)."""
    batch_length: int = 64
    """Steps per window, without the context step (extended data table 4)."""
    replay_context: int = 1
    """Leading steps of a window whose stored latents start the model (methods, "Replay buffer")."""
    replay_ratio: float = 32.0
    """Replayed steps per environment step: batch_size x batch_length x updates / env_steps (extended data table 2)."""
    replay_capacity: int = 1_000_000
    """Steps that the replay keeps (extended data table 4: 5e6)."""
    warmup_steps: int = 1024
    """Environment steps before the first update (official code: 1024 stored windows)."""
    warmup_actions: Literal["policy", "random", "held"] = "policy"
    """Actions before the first update: the untrained policy's (official code), random ones, or random ones that last
    for 1 to 8 steps on average, by environment (ours)."""
    learning_rate: float = 4e-5
    """Learning rate of every network (extended data table 4)."""
    learning_rate_warmup: int = 1000
    """Updates over which the learning rate rises from zero (official code)."""
    learning_rate_decay: int = 0
    """Updates after which the learning rate has halved, falling as 1 / (1 + (t / T)^2); 0 for never (ours)."""
    learning_rate_floor: float = 0.0
    """Learning rate below which it does not fall (ours)."""
    gradient_clip: float = 0.3
    """Largest ratio of gradient to parameter norm, a tensor (methods, "Optimizer")."""
    horizon: int = 15
    """Imagined steps (extended data table 4)."""
    discount_horizon: float = 333.0
    """Discount 1 - 1 / horizon, learned by the continue head (extended data table 4)."""
    return_mix: float = 0.95
    """Lambda of the lambda-return (extended data table 4)."""
    entropy: float = 3e-4
    """Weight of the policy entropy (extended data table 4)."""
    dynamics_scale: float = 1.0
    """Weight of the prior's KL loss (equation 4)."""
    representation_scale: float = 0.1
    """Weight of the posterior's KL loss (equation 4)."""
    free_nats: float = 1.0
    """Lower bound of each KL loss, nats per step (equation 5)."""
    slow_critic_rate: float = 0.02
    """Step of the slow critic toward the critic (extended data table 4)."""
    slow_critic_weight: float = 1.0
    """Weight of the pull to the slow critic (extended data table 4)."""
    replay_value_scale: float = 0.3
    """Weight of the critic's loss on replayed rewards (extended data table 4)."""

    def widths(self) -> Size:
        """The size's numbers with the overrides applied."""
        base = SIZES[self.size]
        return Size(*(getattr(self, key) or getattr(base, key) for key in Size._fields))

    @property
    def style(self) -> NetworkStyle:
        """RMSNorm, SiLU and truncated normal kernels in all networks (methods, "Networks")."""
        normal = Initializer("truncated_normal", "in")
        return NetworkStyle(norm="rms", activation="silu", kernel=normal, output_kernel=normal)

    def make_latent(self) -> Latent:
        """z: categorical variables (methods, "World model learning")."""
        return CategoricalLatent(self.variables, self.widths().classes, self.uniform_mix)

    def make_cell(self, latent: Latent, interface: Interface) -> Cell:
        """h: the block GRU (methods, "Block GRU")."""
        sizes = self.widths()
        return BlockGRU(
            sizes.deterministic,
            stochastic=latent.width,
            action=interface.action_width,
            hidden=sizes.hidden,
            blocks=self.blocks,
            style=self.style,
        )

    def make_world_model(self, interface: Interface) -> WorldModel:
        """Encoder, sequence model, decoder, reward and continue predictors (methods, "World model learning")."""
        sizes, style, parts = self.widths(), self.style, interface.observations
        encoder = Encoder(parts, depth=sizes.depth, units=sizes.units, layers=3, network="pooled", style=style)
        latent = self.make_latent()
        rssm = RSSM(
            self.make_cell(latent, interface),
            latent,
            deterministic=sizes.deterministic,
            tokens=encoder.outputs,
            hidden=sizes.hidden,
            prior_layers=2,
            posterior_layers=1,
            style=style,
        )
        decoder = Decoder(
            parts,
            deterministic=sizes.deterministic,
            stochastic=latent.width,
            depth=sizes.depth,
            units=sizes.units,
            layers=3,
            blocks=self.blocks,
            network="pooled",
            style=style,
        )
        features, units = rssm.features, sizes.units
        return WorldModel(
            encoder,
            rssm,
            decoder,
            reward=TwoHotHead(features, units=units, layers=1, spacing="symexp", style=style.with_output(0)),
            continuation=ContinueHead(features, units=units, layers=1, style=style),
            scales=WorldModelScales(
                dynamics=self.dynamics_scale,
                representation=self.representation_scale,
                free_nats=self.free_nats,
                continue_discount=1 - 1 / self.discount_horizon,
            ),
        )

    def make_behavior(self, features: int, interface: Interface) -> Behavior:
        """Actor and critic on features of width F (methods, "Critic learning" and "Actor learning")."""
        units, style = self.widths().units, self.style
        return ActorCritic(
            actor=PolicyHead(
                features,
                interface.actions,
                units=units,
                layers=3,
                style=style.with_output(0.01),
                uniform_mix=self.actor_uniform_mix,
            ),
            critic=TwoHotHead(features, units=units, layers=3, spacing="symexp", style=style.with_output(0)),
            settings=ActorCriticSettings(
                horizon=self.horizon,
                discount=1.0,
                replay_discount=1 - 1 / self.discount_horizon,
                mix=self.return_mix,
                entropy=self.entropy,
                slow_rate=self.slow_critic_rate,
                slow_weight=self.slow_critic_weight,
                replay_value=self.replay_value_scale,
            ),
        )

    def build(self, interface: Interface) -> ImaginationAgent:
        """Composes the agent for an environment's observations and actions.

        Raises:
            ConfigError: sizes that do not divide.
        """
        world_model = self.make_world_model(interface)
        behavior = self.make_behavior(world_model.features, interface)
        return ImaginationAgent(interface, world_model, behavior, replay_context=self.replay_context)

    def build_optimizer(self, agent: ImaginationAgent) -> LaProp:
        """One optimizer for all networks; call when the agent is on its device."""
        return LaProp(
            agent.parameters(),
            rate=self.learning_rate,
            clip=self.gradient_clip,
            warmup=self.learning_rate_warmup,
            decay=self.learning_rate_decay,
            floor=self.learning_rate_floor,
        )
