"""DreamerV3, the first version (arXiv 2301.04104v1, January 2023: "Mastering diverse domains through world models")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from reverie.agents.imagination_agent import ImaginationAgent
from reverie.agents.schedule import EvenSchedule
from reverie.behaviors.actor_critic import ActorCritic, ActorCriticSettings
from reverie.behaviors.behavior import Behavior
from reverie.models.rssm import RSSM
from reverie.models.world_model import WorldModel, WorldModelScales
from reverie.nn.cells import Cell, NormGRU
from reverie.nn.decoders import Decoder
from reverie.nn.encoders import Encoder
from reverie.nn.heads import ContinueHead, PolicyHead, TwoHotHead
from reverie.nn.latents import CategoricalLatent, Latent
from reverie.nn.layers import Initializer, NetworkStyle
from reverie.optim.grouped_adam import AdamGroup, GroupedAdam
from reverie.spaces import Interface


class Size(NamedTuple):
    """The numbers in which the model sizes differ (arXiv 2023, table B.1)."""

    deterministic: int
    units: int
    depth: int
    layers: int


SIZES = {
    "nano": Size(deterministic=128, units=64, depth=4, layers=1),
    "xs": Size(deterministic=256, units=256, depth=24, layers=1),
    "s": Size(deterministic=512, units=512, depth=32, layers=2),
    "m": Size(deterministic=1024, units=640, depth=48, layers=3),
    "l": Size(deterministic=2048, units=768, depth=64, layers=4),
    "xl": Size(deterministic=4096, units=1024, depth=96, layers=5),
}
"""`nano` is ours, for small tasks on a CPU; the others are the paper's."""

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "quick": {
        "size": "nano",
        "batch_length": 32,
        "replay_ratio": 32.0,
        "warmup_steps": 2000,
        "model_learning_rate": 1e-3,
        "behavior_learning_rate": 3e-4,
        "num_envs": 16,
        "steps": 40_000,
    },
}
"""`quick` is ours: small tasks on a CPU within the hour."""

BY_KIND: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {
        "vectors": {"replay_ratio": 512.0, "steps": 500_000},
        "pictures continuous": {"replay_ratio": 512.0, "steps": 1_000_000},
        "pictures discrete": {"replay_ratio": 64.0, "steps": 50_000_000},
    },
    "quick": {"pictures": {"batch_length": 8, "replay_ratio": 16.0}},
}
"""Further values by kind of task; those of `paper` are the protocols for DeepMind Control and for Atari (table A.1)."""


@dataclass(frozen=True)
class DreamerV3In2023Config(EvenSchedule):
    """Settings of DreamerV3 (2023). Defaults are the paper's, except the size, which fits a CPU."""

    name: ClassVar[str] = "dreamer-v3-2023"

    size: Literal["nano", "xs", "s", "m", "l", "xl"] = "xs"
    """Model size; the paper's largest is xl. Sets the four numbers below (table B.1; nano is ours)."""
    deterministic: int | None = None
    """Width of the recurrent state h; by size (table B.1)."""
    units: int | None = None
    """Units of all hidden layers; by size (table B.1)."""
    depth: int | None = None
    """Base number of image channels; by size (table B.1)."""
    layers: int | None = None
    """Hidden layers of every head; by size (table B.1)."""
    vector_layers: int = 5
    """Layers of the vector encoder and decoder (official code: 5 in every size)."""
    vector_units: int | None = None
    """Units of the vector encoder and decoder; `units` by default (official code: 1024 in every size)."""
    variables: int = 32
    """Latent variables (appendix C)."""
    classes: int = 32
    """Classes of every latent variable (appendix C)."""
    uniform_mix: float = 0.01
    """Uniform share in latent and policy distributions (section "World model learning")."""
    batch_size: int = 16
    """Windows per batch (appendix C)."""
    batch_length: int = 64
    """Steps per window (appendix C)."""
    replay_ratio: float = 64.0
    """Replayed steps per environment step (appendix A: 16 to 1024 by benchmark)."""
    replay_capacity: int = 1_000_000
    """Steps that the replay keeps (appendix C)."""
    warmup_steps: int = 1024
    """Environment steps before the first update (official code)."""
    warmup_actions: Literal["policy", "random", "held"] = "policy"
    """Actions before the first update: the untrained policy's, random ones (official code), or random ones that last
    for 1 to 8 steps on average, by environment (ours)."""
    model_learning_rate: float = 1e-4
    """Learning rate of the world model (appendix C)."""
    behavior_learning_rate: float = 3e-5
    """Learning rate of actor and critic (appendix C)."""
    horizon: int = 15
    """Imagined steps (appendix C)."""
    discount_horizon: float = 333.0
    """Discount 1 - 1 / horizon (appendix C)."""
    return_mix: float = 0.95
    """Lambda of the lambda-return (appendix C)."""
    entropy: float = 3e-4
    """Weight of the policy entropy (appendix C)."""
    dynamics_scale: float = 0.5
    """Weight of the prior's KL loss (equation 4)."""
    representation_scale: float = 0.1
    """Weight of the posterior's KL loss (equation 4)."""
    free_nats: float = 1.0
    """Lower bound of each KL loss, nats per step (equation 5)."""
    slow_critic_rate: float = 0.02
    """Step of the slow critic toward the critic (appendix C)."""
    slow_critic_weight: float = 1.0
    """Weight of the pull to the slow critic (section "Critic learning")."""

    def widths(self) -> Size:
        """The size's numbers with the overrides applied."""
        base = SIZES[self.size]
        return Size(*(getattr(self, key) or getattr(base, key) for key in Size._fields))

    @property
    def style(self) -> NetworkStyle:
        """LayerNorm and SiLU; truncated normal kernels, uniform ones in output layers (appendix B)."""
        return NetworkStyle(
            norm="layer",
            activation="silu",
            kernel=Initializer("truncated_normal", "average"),
            output_kernel=Initializer("uniform", "average"),
        )

    def make_latent(self) -> Latent:
        """z: categorical variables (section "World model learning")."""
        return CategoricalLatent(self.variables, self.classes, self.uniform_mix)

    def make_cell(self, latent: Latent, interface: Interface) -> Cell:
        """h: a GRU with LayerNorm."""
        sizes, action = self.widths(), interface.action_width
        return NormGRU(
            sizes.deterministic, stochastic=latent.width, action=action, hidden=sizes.units, style=self.style
        )

    def make_world_model(self, interface: Interface) -> WorldModel:
        """Encoder, sequence model, decoder, reward and continue predictors (section "World model learning")."""
        sizes, style, parts = self.widths(), self.style, interface.observations
        vector_units, vector_layers = self.vector_units or sizes.units, self.vector_layers
        encoder = Encoder(
            parts, depth=sizes.depth, units=vector_units, layers=vector_layers, network="strided", style=style
        )
        latent = self.make_latent()
        rssm = RSSM(
            self.make_cell(latent, interface),
            latent,
            deterministic=sizes.deterministic,
            tokens=encoder.outputs,
            hidden=sizes.units,
            prior_layers=1,
            posterior_layers=1,
            style=style,
            learned_initial=True,
        )
        decoder = Decoder(
            parts,
            deterministic=sizes.deterministic,
            stochastic=latent.width,
            depth=sizes.depth,
            units=vector_units,
            layers=vector_layers,
            blocks=1,
            network="strided",
            style=style,
        )
        features, units, layers = rssm.features, sizes.units, sizes.layers
        return WorldModel(
            encoder,
            rssm,
            decoder,
            reward=TwoHotHead(features, units=units, layers=layers, spacing="symlog", style=style.with_output(0)),
            continuation=ContinueHead(features, units=units, layers=layers, style=style),
            scales=WorldModelScales(
                dynamics=self.dynamics_scale, representation=self.representation_scale, free_nats=self.free_nats
            ),
        )

    def make_behavior(self, features: int, interface: Interface) -> Behavior:
        """Actor and critic on features of width F (sections "Critic learning" and "Actor learning")."""
        units, layers, style = self.widths().units, self.widths().layers, self.style
        continuous = all(part.kind == "continuous" for part in interface.actions)
        return ActorCritic(
            actor=PolicyHead(
                features, interface.actions, units=units, layers=layers, style=style, uniform_mix=self.uniform_mix
            ),
            critic=TwoHotHead(features, units=units, layers=layers, spacing="symlog", style=style.with_output(0)),
            settings=ActorCriticSettings(
                horizon=self.horizon,
                discount=1 - 1 / self.discount_horizon,
                mix=self.return_mix,
                entropy=self.entropy,
                estimator="dynamics" if continuous else "reinforce",
                start_continue="true",
                continue_value="mode",
                slow_rate=self.slow_critic_rate,
                slow_weight=self.slow_critic_weight,
                replay_value=0.0,
            ),
        )

    def build(self, interface: Interface) -> ImaginationAgent:
        """Composes the agent for an environment's observations and actions."""
        world_model = self.make_world_model(interface)
        behavior = self.make_behavior(world_model.features, interface)
        return ImaginationAgent(interface, world_model, behavior, replay_context=0)

    def build_optimizer(self, agent: ImaginationAgent) -> GroupedAdam:
        """Three Adams, for world model, actor and critic; call when the agent is on its device."""
        world_model = AdamGroup(rate=self.model_learning_rate, epsilon=1e-8, clip=1000.0)
        behavior = AdamGroup(rate=self.behavior_learning_rate, epsilon=1e-5, clip=100.0)
        return GroupedAdam(
            {
                "world_model": (agent.world_model.parameters(), world_model),
                **{name: (network.parameters(), behavior) for name, network in agent.behavior.networks().items()},
            }
        )
