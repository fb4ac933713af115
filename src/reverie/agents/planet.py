"""PlaNet (Hafner et al., ICML 2019: "Learning latent dynamics for planning from pixels").

A recurrent state-space model with normal latents, and a search over action sequences in it at every decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from reverie.agents.imagination_agent import ImaginationAgent
from reverie.agents.plain_networks import PlainNetworks
from reverie.agents.schedule import Schedule
from reverie.behaviors.behavior import Behavior
from reverie.behaviors.cem import CrossEntropyPlanner
from reverie.behaviors.exploration import Exploration
from reverie.behaviors.planning import Planning
from reverie.models.world_model import WorldModel, WorldModelScales
from reverie.nn.cells import Cell, ClassicGRU, Memoryless
from reverie.nn.latents import GaussianLatent, Latent
from reverie.optim.grouped_adam import AdamGroup, GroupedAdam
from reverie.spaces import Interface

ACTION_REPEATS = {
    "dmc/cartpole-": 8,
    "dmc/reacher-": 4,
    "dmc/cheetah-": 4,
    "dmc/ball_in_cup-": 4,
    "dmc/finger-": 2,
    "dmc/walker-": 2,
}
"""Environment frames an action in the paper's six tasks (released code) and their siblings."""

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "paper-text": {"reward_layers": 2, "reward_units": 200, "reward_scale": 1.0, "clip_candidates": False},
    "deterministic": {"transition": "deterministic", "kl_scale": 0.0},
    "stochastic": {"transition": "stochastic"},
    "quick": {
        "deterministic": 100,
        "hidden": 64,
        "vector_units": 64,
        "reward_layers": 2,
        "reward_units": 64,
        "depth": 8,
        "batch_size": 16,
        "batch_length": 25,
        "candidates": 200,
        "iterations": 4,
        "elites": 20,
        "updates": 50,
        "kl_scale": 0.1,
        "free_nats": 1.0,
        "continuation": True,
        "steps": 5_000,
    },
}
"""`paper` has the values of the released code, `paper-text` the reward head that the paper describes instead, and a
search that is not clipped (Algorithm 2); then two ablations of the paper. `quick` is ours: small tasks on a CPU within
the hour."""

BY_KIND: dict[str, dict[str, dict[str, Any]]] = {"paper": {"continuous": {"num_envs": 1, "steps": 500_000}}}
"""Further values of the paper's protocol, a thousand episodes of DeepMind Control (table 1)."""


@dataclass(frozen=True)
class PlaNetConfig:
    """Settings of PlaNet (2019). Defaults are those of the released code at the time of the final paper."""

    name: ClassVar[str] = "planet"

    transition: Literal["both", "deterministic", "stochastic"] = "both"
    """Paths of the model: both, or without chance, or without the recurrent state h (section 3, model designs)."""
    deterministic: int = 200
    """Width of the recurrent state h (appendix A)."""
    variables: int = 30
    """Latent variables (appendix A)."""
    least_deviation: float = 0.1
    """Minimum deviation of every latent variable (released code)."""
    hidden: int = 200
    """Units of the dynamics networks (appendix A)."""
    depth: int = 32
    """Base number of image channels (appendix A: the networks of World Models)."""
    image_bits: int = 5
    """Bits to which images are rounded before noise fills the gaps (appendix A)."""
    vector_units: int = 200
    """Units of the vector encoder and decoder (ours; the paper has images only)."""
    vector_layers: int = 2
    """Layers of the vector encoder and decoder (ours; the paper has images only)."""
    reward_layers: int = 3
    """Hidden layers of the reward head (released code; the paper says 2)."""
    reward_units: int = 300
    """Units of the reward head (released code; the paper says 200)."""
    reward_scale: float = 10.0
    """Weight of the reward loss (released code; not in the paper)."""
    continuation: bool = False
    """Predict the ends of episodes, so that plans count no reward behind them (ours)."""
    batch_size: int = 50
    """Windows per batch (appendix A)."""
    batch_length: int = 50
    """Steps per window (appendix A)."""
    replay_capacity: int = 1_000_000
    """Steps that the replay keeps (ours; the paper keeps all)."""
    random_episodes: int = 5
    """Episodes with random actions at the beginning (appendix A: S)."""
    updates: int = 100
    """Updates for every episode (appendix A: C)."""
    learning_rate: float = 1e-3
    """Adam's learning rate (appendix A)."""
    adam_epsilon: float = 1e-4
    """Added to the root of the squared gradients (appendix A)."""
    gradient_clip: float = 1000.0
    """Largest norm of the gradient (appendix A)."""
    kl_scale: float = 1.0
    """Weight of the KL divergence (appendix A)."""
    free_nats: float = 3.0
    """Free nats: the KL loss is clipped below this value, nats per step (appendix A)."""
    overshooting_scale: float = 0.0
    """Weight of the KL divergences at several steps' distance, latent overshooting (section 4; off by default)."""
    overshooting_distance: int = 49
    """Largest distance of latent overshooting (first release; a window has one more step)."""
    global_prior_scale: float = 0.0
    """Weight of the KL divergence from a fixed standard normal (appendix A; 0.1 in the first release)."""
    horizon: int = 12
    """Steps of a plan (appendix A: H)."""
    candidates: int = 1000
    """Plans tried in an iteration (appendix A: J)."""
    iterations: int = 10
    """Iterations of the search (appendix A: I)."""
    elites: int = 100
    """Best plans to which the search is refitted (appendix A: K)."""
    clip_candidates: bool = True
    """Refit the search to clipped plans (released code), not to plans as they were drawn (Algorithm 2)."""
    action_noise: float = 0.3
    """Deviation of the noise on continuous actions in training (appendix A)."""
    epsilon: float = 0.1
    """Share of random choices in discrete actions in training (ours; the paper's actions are continuous)."""

    def schedule(self) -> Schedule:
        """Random episodes, then updates after every episode."""
        return Schedule(
            warmup_episodes=self.random_episodes,
            warmup_actions="random",
            first=self.updates,
            per_episode=self.updates,
        )

    @property
    def networks(self) -> PlainNetworks:
        """ReLU in all layers (appendix A)."""
        return PlainNetworks(
            depth=self.depth,
            units=self.reward_units,
            vector_units=self.vector_units,
            vector_layers=self.vector_layers,
            activation="relu",
            image_activation="relu",
        )

    def make_latent(self) -> Latent:
        """z: normal variables, or their means alone in the deterministic model (section 3)."""
        return GaussianLatent(self.variables, least=self.least_deviation, mean_only=self.transition == "deterministic")

    def make_cell(self, latent: Latent, interface: Interface) -> Cell:
        """h: a GRU, or no memory in the stochastic model (section 3)."""
        inputs: dict[str, Any] = {"stochastic": latent.width, "action": interface.action_width}
        inputs |= {"hidden": self.hidden, "style": self.networks.style}
        gru = ClassicGRU(self.deterministic, **inputs)  # drawn for all models, so that a seed keeps its weights
        return Memoryless(**inputs) if self.transition == "stochastic" else gru

    def make_world_model(self, interface: Interface) -> WorldModel:
        """Encoder, latent dynamics, decoder and reward predictor (section 3), and latent overshooting (section 4)."""
        latent = self.make_latent()
        cell = self.make_cell(latent, interface)
        return self.networks.world_model(
            interface,
            cell,
            latent,
            deterministic=self.deterministic if cell.remembers else self.hidden,
            hidden=self.hidden,
            reward_layers=self.reward_layers,
            continue_layers=self.reward_layers if self.continuation else None,
            scales=WorldModelScales(
                dynamics=self.kl_scale,
                representation=self.kl_scale,
                free_nats=self.free_nats,
                reward=self.reward_scale,
                overshooting=self.overshooting_scale,
                distance=self.overshooting_distance,
                global_prior=self.global_prior_scale,
            ),
            image_bits=self.image_bits,
        )

    def make_behavior(self, interface: Interface) -> Behavior:
        """The search for actions at every decision (algorithm 2)."""
        planner = CrossEntropyPlanner(
            horizon=self.horizon,
            candidates=self.candidates,
            iterations=self.iterations,
            elites=self.elites,
            clip=self.clip_candidates,
        )
        return Planning(interface.actions, planner)

    def build(self, interface: Interface) -> ImaginationAgent:
        """Composes the agent for an environment's observations and actions.

        Raises:
            ConfigError: images that are not 64x64, or a search that cannot work.
        """
        world_model, behavior = self.make_world_model(interface), self.make_behavior(interface)
        exploration = Exploration(interface.actions, noise=self.action_noise, epsilon=self.epsilon)
        return ImaginationAgent(interface, world_model, behavior, replay_context=0, exploration=exploration)

    def build_optimizer(self, agent: ImaginationAgent) -> GroupedAdam:
        """One Adam, with epsilon where TensorFlow has it; call when the agent is on its device."""
        group = AdamGroup(
            rate=self.learning_rate,
            epsilon=self.adam_epsilon,
            clip=self.gradient_clip,
            epsilon_before_correction=True,
        )
        return GroupedAdam({"world_model": (agent.world_model.parameters(), group)})
