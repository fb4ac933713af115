"""DreamerV2 (Hafner et al., ICLR 2021: "Mastering Atari with discrete world models").

Categorical latents with straight-through gradients, a KL loss whose halves are weighted apart, and a slow critic that
gives the targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from reverie.agents.imagination_agent import ImaginationAgent
from reverie.agents.plain_networks import PlainNetworks, separate_adams
from reverie.agents.schedule import Schedule
from reverie.behaviors.actor_critic import ActorCritic
from reverie.behaviors.behavior import Behavior
from reverie.behaviors.imagined_policy import ActorCriticSettings
from reverie.models.world_model import WorldModel, WorldModelScales
from reverie.nn.cells import Cell, NormGRU
from reverie.nn.latents import CategoricalLatent, GaussianLatent, Latent
from reverie.nn.policies import TruncatedNormal
from reverie.optim.grouped_adam import GroupedAdam
from reverie.spaces import Interface

CONTROL: dict[str, Any] = {
    "deterministic": 200,
    "hidden": 200,
    "kl_scale": 1.0,
    "free_nats": 1.0,
    "model_learning_rate": 3e-4,
    "actor_learning_rate": 8e-5,
    "critic_learning_rate": 8e-5,
    "discount": 0.99,
    "entropy": 1e-4,
    "reward_transform": "none",
    "continuation": False,
    "first_updates": 100,
}
"""What both codes have for the DeepMind Control suite."""

ACTION_REPEATS = {"dmc/": 2}
"""Environment frames an action in the DeepMind Control Suite (released code)."""

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "atari": {"batch_size": 16, "replay_ratio": 50.0, "discount": 0.999, "continue_scale": 5.0, "first_updates": 1},
    "dmc": {**CONTROL, "batch_size": 16, "replay_ratio": 160.0, "warmup_steps": 1000},
    "dmc-first": {
        **CONTROL,
        "latent": "gaussian",
        "variables": 50,
        "depth": 32,
        "reward_layers": 2,
        "critic_layers": 3,
        "reward_scale": 2.0,
        "replay_ratio": 500.0,
        "warmup_steps": 2500,
        "weight_decay": 0.0,
    },
    "quick": {
        **CONTROL,
        "deterministic": 128,
        "hidden": 64,
        "variables": 16,
        "classes": 8,
        "units": 100,
        "vector_units": 64,
        "vector_layers": 2,
        "actor_layers": 2,
        "critic_layers": 2,
        "reward_layers": 2,
        "continue_layers": 2,
        "depth": 8,
        "batch_size": 16,
        "batch_length": 25,
        "replay_ratio": 100.0,
        "warmup_steps": 1000,
        "model_learning_rate": 1e-3,
        "actor_learning_rate": 1e-4,
        "critic_learning_rate": 3e-4,
        "kl_scale": 0.1,
        "entropy": 1e-2,
        "continuation": True,
        "slow_critic_every": 10,
        "steps": 10_000,
    },
}
"""`paper` is the Atari agent of table D.1. `atari` and `dmc` are the published code, `dmc-first` has those of its
first commit, from the time of the paper. `quick` is ours: small tasks on a CPU within the hour."""

BY_KIND: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {
        "continuous": {**PRESETS["dmc"], "num_envs": 1, "steps": 500_000},
        "discrete": {"num_envs": 1, "steps": 50_000_000},
    },
}
"""Further values of the paper's protocols: for Atari, and for DeepMind Control, whose settings are in the code only."""


@dataclass(frozen=True)
class DreamerV2Config:
    """Settings of DreamerV2 (2021). Defaults are the paper's for Atari."""

    name: ClassVar[str] = "dreamer-v2"

    latent: Literal["categorical", "gaussian"] = "categorical"
    """Kind of the latent variables (section 2; the ablations compare both)."""
    variables: int = 32
    """Latent variables (table D.1)."""
    classes: int = 32
    """Classes of every categorical variable (table D.1)."""
    deterministic: int = 600
    """Width of the recurrent state h (table D.1)."""
    hidden: int = 600
    """Units of the dynamics networks (released code)."""
    depth: int = 48
    """Base number of image channels (released code)."""
    units: int = 400
    """Units of all heads (table D.1)."""
    reward_layers: int = 4
    """Hidden layers of the reward head (table D.1)."""
    continue_layers: int = 4
    """Hidden layers of the continue head, there called discount predictor (table D.1)."""
    actor_layers: int = 4
    """Hidden layers of the actor (table D.1)."""
    critic_layers: int = 4
    """Hidden layers of the critic (table D.1)."""
    vector_layers: int = 4
    """Layers of the vector encoder and decoder (released code, proprioceptive input)."""
    vector_units: int = 400
    """Units of the vector encoder and decoder (released code, proprioceptive input)."""
    batch_size: int = 50
    """Windows per batch (table D.1; released code: 16)."""
    batch_length: int = 50
    """Steps per window (table D.1)."""
    replay_ratio: float = 625.0
    """Replayed steps per environment step: batch_size x batch_length / 4 (table D.1; released code: 50)."""
    replay_capacity: int = 2_000_000
    """Steps that the replay keeps (table D.1)."""
    warmup_steps: int = 50_000
    """Environment steps with random actions at the beginning (released code)."""
    first_updates: int = 0
    """Updates before the agent acts for the first time (released code at the time of the paper; later 1)."""
    model_learning_rate: float = 2e-4
    """Learning rate of the world model (table D.1)."""
    actor_learning_rate: float = 4e-5
    """Learning rate of the actor (table D.1)."""
    critic_learning_rate: float = 1e-4
    """Learning rate of the critic (table D.1)."""
    adam_epsilon: float = 1e-5
    """Added to the root of the squared gradients (table D.1)."""
    gradient_clip: float = 100.0
    """Largest norm of the gradients of each of the three optimizers (table D.1)."""
    weight_decay: float = 1e-6
    """Share by which every weight shrinks in an update (table D.1)."""
    kl_scale: float = 0.1
    """Weight of the KL loss (table D.1: beta)."""
    kl_balance: float = 0.8
    """Share of it that trains the prior; the rest trains the posterior (algorithm 2: alpha)."""
    free_nats: float = 0.0
    """Lower bound of the mean of each half over the batch, nats (released code: 1 for DeepMind Control)."""
    reward_transform: Literal["none", "tanh"] = "tanh"
    """What is learned of rewards (table D.1)."""
    reward_scale: float = 1.0
    """Weight of the reward loss (equation 2)."""
    continuation: bool = True
    """Predict the ends of episodes; off for DeepMind Control (equation 1)."""
    continue_scale: float = 1.0
    """Weight of the continue head's loss (equation 2; released code: 5)."""
    horizon: int = 15
    """Imagined steps (table D.1)."""
    discount: float = 0.995
    """Discount of every step, learned by the continue head if there is one (table D.1; the text has 0.999)."""
    return_mix: float = 0.95
    """Lambda of the lambda-return (table D.1)."""
    entropy: float = 1e-3
    """Weight of the policy entropy (table D.1)."""
    actor_gradient: Literal["auto", "reinforce", "dynamics", "both"] = "auto"
    """Estimator of the actor's gradient; auto: dynamics if all actions are continuous, else reinforce (equation 6)."""
    dynamics_share: float = 0.1
    """Share of dynamics in `both`; reinforce has the rest (equation 6: 1 - rho; released code: actor_grad_mix)."""
    slow_critic_every: int = 100
    """Updates after which the critic is copied into the one that gives the targets (table D.1)."""

    def schedule(self) -> Schedule:
        """Random steps, then updates spread evenly over the steps."""
        rate = self.replay_ratio / (self.batch_size * self.batch_length)
        return Schedule(self.warmup_steps, warmup_actions="random", first=self.first_updates, per_step=rate)

    @property
    def networks(self) -> PlainNetworks:
        """ELU in all layers (appendix D)."""
        return PlainNetworks(
            depth=self.depth,
            units=self.units,
            vector_units=self.vector_units,
            vector_layers=self.vector_layers,
            activation="elu",
            image_activation="elu",
        )

    def make_latent(self) -> Latent:
        """z: categorical variables, or normal ones (section 2.1)."""
        if self.latent == "gaussian":
            return GaussianLatent(self.variables, "sigmoid")
        return CategoricalLatent(self.variables, self.classes, uniform_mix=0.0)

    def make_cell(self, latent: Latent, interface: Interface) -> Cell:
        """h: a GRU with LayerNorm."""
        return NormGRU(
            self.deterministic,
            stochastic=latent.width,
            action=interface.action_width,
            hidden=self.hidden,
            style=self.networks.style,
        )

    def make_world_model(self, interface: Interface) -> WorldModel:
        """Encoder, sequence model, decoder, reward and continue predictors (section 2.1)."""
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
                dynamics=self.kl_scale * self.kl_balance,
                representation=self.kl_scale * (1 - self.kl_balance),
                free_nats=self.free_nats,
                continue_discount=self.discount if self.continuation else 1.0,
                average=True,
                reward=self.reward_scale,
                continuation=self.continue_scale,
            ),
            squash_reward=self.reward_transform == "tanh",
        )

    def make_behavior(self, features: int, interface: Interface) -> Behavior:
        """Actor and critic on features of width F (section 2.2)."""
        continuous = all(part.kind == "continuous" for part in interface.actions)
        automatic: Literal["dynamics", "reinforce"] = "dynamics" if continuous else "reinforce"
        networks = self.networks
        return ActorCritic(
            actor=networks.policy(features, self.actor_layers, interface=interface, continuous=TruncatedNormal()),
            critic=networks.scalar(features, self.critic_layers),
            settings=ActorCriticSettings(
                horizon=self.horizon,
                discount=1.0 if self.continuation else self.discount,
                mix=self.return_mix,
                entropy=self.entropy,
                estimator=automatic if self.actor_gradient == "auto" else self.actor_gradient,
                dynamics_share=self.dynamics_share,
                reward_of="state",
                baseline=False,
                normalize=False,
                slow="target",
                start_continue="true" if self.continuation else "predicted",
                slow_rate=1.0,
                slow_every=self.slow_critic_every,
                replay_value=0.0,
                evaluate_mode=True,
            ),
        )

    def build(self, interface: Interface) -> ImaginationAgent:
        """Composes the agent for an environment's observations and actions.

        Raises:
            ConfigError: images that are not 64x64.
        """
        world_model = self.make_world_model(interface)
        behavior = self.make_behavior(world_model.features, interface)
        return ImaginationAgent(interface, world_model, behavior, replay_context=0)

    def build_optimizer(self, agent: ImaginationAgent) -> GroupedAdam:
        """An Adam for each of world model, actor and critic; call when the agent is on its device."""
        behavior = {"actor": self.actor_learning_rate, "critic": self.critic_learning_rate}
        rates = {"world_model": self.model_learning_rate, **behavior}
        return separate_adams(agent, rates, epsilon=self.adam_epsilon, clip=self.gradient_clip, decay=self.weight_decay)
