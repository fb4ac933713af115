"""Dreamer, the first version (Hafner et al., ICLR 2020: "Dream to control: learning behaviors by latent imagination").

Values are learned in imagination, and their gradients reach the actor through the learned dynamics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from reverie.agents.imagination_agent import ImaginationAgent
from reverie.agents.plain_networks import PlainNetworks, separate_adams
from reverie.agents.schedule import Schedule
from reverie.behaviors.actor_critic import ActorCritic
from reverie.behaviors.behavior import Behavior
from reverie.behaviors.exploration import Exploration
from reverie.behaviors.imagined_policy import ActorCriticSettings, ActorOnly
from reverie.models.world_model import WorldModel, WorldModelScales
from reverie.nn.cells import Cell, ClassicGRU, ResetAfterGRU
from reverie.nn.latents import GaussianLatent, Latent
from reverie.nn.policies import TanhNormal
from reverie.optim.grouped_adam import GroupedAdam
from reverie.spaces import Interface

ACTION_REPEATS = {"dmc/": 2}
"""Environment frames an action in the DeepMind Control Suite (released code)."""

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "tf1": {"cell": "classic", "image_bits": 8, "kl_clip": "step", "adam_epsilon": 1e-4, "continue_scale": 1.0},
    "atari": {"horizon": 10, "kl_scale": 0.1, "reward_transform": "tanh", "continuation": True},
    "no-value": {"value": False},
    "contrastive": {"representation": "contrastive"},
    "reward-only": {"representation": "reward"},
    "quick": {
        "deterministic": 100,
        "hidden": 64,
        "units": 100,
        "vector_units": 64,
        "vector_layers": 2,
        "actor_layers": 2,
        "critic_layers": 2,
        "depth": 8,
        "batch_size": 16,
        "batch_length": 25,
        "warmup_steps": 1000,
        "update_every": 100,
        "updates": 25,
        "horizon": 10,
        "model_learning_rate": 1e-3,
        "actor_learning_rate": 3e-4,
        "critic_learning_rate": 3e-4,
        "kl_scale": 0.1,
        "free_nats": 1.0,
        "continuation": True,
        "steps": 20_000,
    },
}
"""`tf1` is the code of the paper where it differs from the newer code that the defaults follow, `atari` that code's
settings for discrete actions; then three ablations of the paper. `quick` is ours: small tasks on a CPU within the hour.
"""

BY_KIND: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {
        "continuous": {"num_envs": 1, "steps": 2_500_000},
        "discrete": {**PRESETS["atari"], "num_envs": 1, "steps": 50_000_000},
    },
}
"""Further values of the paper's protocols, for DeepMind Control and for Atari (appendix A)."""


@dataclass(frozen=True)
class DreamerV1Config:
    """Settings of Dreamer (2020). Defaults are those of the authors' newer code (TF2) for continuous control."""

    name: ClassVar[str] = "dreamer-v1"

    deterministic: int = 200
    """Width of the recurrent state h (released code)."""
    variables: int = 30
    """Latent variables (appendix A)."""
    least_deviation: float = 0.1
    """Minimum deviation of every latent variable (released code)."""
    hidden: int = 200
    """Units of the dynamics networks (released code)."""
    cell: Literal["reset-after", "classic"] = "reset-after"
    """Kind of GRU (TF2 code: reset-after, Keras; TF1 code: classic)."""
    depth: int = 32
    """Base number of image channels (appendix A, World Models' networks)."""
    image_bits: int | None = None
    """Bits to which images are rounded before noise fills the gaps; none by default (TF1 code: 8)."""
    vector_units: int = 300
    """Units of the vector encoder and decoder (TF1 code, proprioceptive input)."""
    vector_layers: int = 3
    """Layers of the vector encoder and decoder (TF1 code, proprioceptive input)."""
    units: int = 400
    """Units of all heads (released code; the paper says 300)."""
    reward_layers: int = 2
    """Hidden layers of the reward head (released code)."""
    actor_layers: int = 4
    """Hidden layers of the actor (released code)."""
    critic_layers: int = 3
    """Hidden layers of the critic (released code)."""
    continue_layers: int = 3
    """Hidden layers of the continue head (released code)."""
    batch_size: int = 50
    """Windows per batch (appendix A)."""
    batch_length: int = 50
    """Steps per window (appendix A)."""
    replay_capacity: int = 1_000_000
    """Steps that the replay keeps (ours; the released code keeps all)."""
    warmup_steps: int = 2500
    """Environment steps with random actions at the beginning (released code: 5000 frames)."""
    update_every: int = 500
    """Environment steps between two bursts of updates (released code: 1000 frames)."""
    updates: int = 100
    """Updates a burst, and before the first of them (appendix A)."""
    model_learning_rate: float = 6e-4
    """Learning rate of the world model (appendix A)."""
    actor_learning_rate: float = 8e-5
    """Learning rate of the actor (appendix A)."""
    critic_learning_rate: float = 8e-5
    """Learning rate of the critic (appendix A)."""
    adam_epsilon: float = 1e-7
    """Added to the root of the squared gradients (TF2 code; TF1 code: 1e-4)."""
    gradient_clip: float = 100.0
    """Largest norm of the gradients of each of the three optimizers (appendix A)."""
    kl_scale: float = 1.0
    """Weight of the KL divergence (appendix A; 0.1 for discrete actions)."""
    free_nats: float = 3.0
    """Free nats: the KL loss is clipped below this value, nats (appendix A)."""
    kl_clip: Literal["batch", "step"] = "batch"
    """Whether that bound holds for the mean over a batch or for every step (TF2 code: batch; TF1 code: step)."""
    reward_transform: Literal["none", "tanh"] = "none"
    """What is learned of rewards (appendix A: tanh for discrete actions)."""
    representation: Literal["reconstruction", "contrastive", "reward"] = "reconstruction"
    """What shapes the latents besides the reward; the decoder then only watches (section 4, figure 8)."""
    continuation: bool = False
    """Predict the ends of episodes (appendix A: on for discrete actions, which means for tasks that end early)."""
    continue_scale: float = 10.0
    """Weight of the continue head's loss (TF2 code; TF1 code: 1)."""
    value: bool = True
    """Learn a critic; without it the actor raises the rewards up to the horizon alone (figure 4, "no value")."""
    horizon: int = 15
    """Imagined steps (appendix A)."""
    discount: float = 0.99
    """Discount of every step, learned by the continue head if there is one (appendix A)."""
    return_mix: float = 0.95
    """Lambda of the lambda-return (appendix A)."""
    action_noise: float = 0.3
    """Deviation of the noise on continuous actions in training (appendix A)."""
    epsilon: float = 0.4
    """Share of random choices in discrete actions at the beginning (appendix A)."""
    final_epsilon: float = 0.1
    """The same after the decay (appendix A)."""
    epsilon_decay: int = 200_000
    """Updates over which it falls linearly (appendix A)."""

    def schedule(self) -> Schedule:
        """Random steps, then bursts of updates."""
        rate = self.updates / self.update_every
        return Schedule(
            self.warmup_steps, warmup_actions="random", first=self.updates, per_step=rate, burst=self.updates
        )

    @property
    def networks(self) -> PlainNetworks:
        """ELU in dense layers, ReLU in convolutions (appendix A)."""
        return PlainNetworks(
            depth=self.depth,
            units=self.units,
            vector_units=self.vector_units,
            vector_layers=self.vector_layers,
            activation="elu",
            image_activation="relu",
        )

    def make_latent(self) -> Latent:
        """z: normal variables."""
        return GaussianLatent(self.variables, "softplus", self.least_deviation)

    def make_cell(self, latent: Latent, interface: Interface) -> Cell:
        """h: a GRU of the code that `cell` names."""
        gru = ClassicGRU if self.cell == "classic" else ResetAfterGRU
        return gru(
            self.deterministic,
            stochastic=latent.width,
            action=interface.action_width,
            hidden=self.hidden,
            style=self.networks.style,
        )

    def make_world_model(self, interface: Interface) -> WorldModel:
        """Latent dynamics with what shapes them, and the reward head (section 4)."""
        latent = self.make_latent()
        return self.networks.world_model(
            interface,
            self.make_cell(latent, interface),
            latent,
            deterministic=self.deterministic,
            hidden=self.hidden,
            reward_layers=self.reward_layers,
            continue_layers=self.continue_layers if self.continuation else None,
            scales=WorldModelScales(
                dynamics=self.kl_scale,
                representation=self.kl_scale,
                free_nats=self.free_nats,
                average=self.kl_clip == "batch",
                continuation=self.continue_scale,
                continue_discount=self.discount if self.continuation else 1.0,
            ),
            representation=self.representation,
            image_bits=self.image_bits,
            squash_reward=self.reward_transform == "tanh",
        )

    def make_behavior(self, features: int, interface: Interface) -> Behavior:
        """Actor, and a critic unless `value` is off, on features of width F (section 3)."""
        settings = ActorCriticSettings(
            horizon=self.horizon,
            discount=1.0 if self.continuation else self.discount,
            mix=self.return_mix,
            entropy=0.0,
            estimator="dynamics",
            reward_of="state",
            keep_start=False,
            baseline=False,
            normalize=False,
            slow="none",
            replay_value=0.0,
            evaluate_mode=True,
        )
        actor = self.networks.policy(features, self.actor_layers, interface=interface, continuous=TanhNormal())
        critic = self.networks.scalar(features, self.critic_layers)
        return ActorCritic(actor, critic, settings) if self.value else ActorOnly(actor, settings)

    def build(self, interface: Interface) -> ImaginationAgent:
        """Composes the agent for an environment's observations and actions.

        Raises:
            ConfigError: images that are not 64x64.
        """
        world_model = self.make_world_model(interface)
        behavior = self.make_behavior(world_model.features, interface)
        exploration = Exploration(
            interface.actions,
            noise=self.action_noise,
            epsilon=self.epsilon,
            final=self.final_epsilon,
            decay=self.epsilon_decay,
        )
        return ImaginationAgent(interface, world_model, behavior, replay_context=0, exploration=exploration)

    def build_optimizer(self, agent: ImaginationAgent) -> GroupedAdam:
        """An Adam for each of world model, actor and critic; call when the agent is on its device."""
        rates = {"world_model": self.model_learning_rate}
        rates |= {"actor": self.actor_learning_rate, "critic": self.critic_learning_rate}
        return separate_adams(agent, rates, epsilon=self.adam_epsilon, clip=self.gradient_clip)
