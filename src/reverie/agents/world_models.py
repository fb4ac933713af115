"""World Models (Ha and Schmidhuber, 2018): vision V, memory M, and a controller C that is evolved in M's dream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from reverie.behaviors.controllers import Controller, HiddenController, LinearController
from reverie.errors import ConfigError
from reverie.models.vision_memory import VisionMemory
from reverie.nn.mdn_rnn import MixtureRNN
from reverie.nn.vae import IMAGE, ConvVAE
from reverie.spaces import Interface

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "take-cover": {
        "living_reward": 1.0,
        "controller_reads": "zch",
        "controller_bias": False,
        "shortest_episode": 101,
    },
    "quick": {
        "latent": 16,
        "memory_units": 128,
        "collect_episodes": 400,
        "vision_epochs": 6,
        "vision_batch": 32,
        "vision_learning_rate": 5e-4,
        "memory_updates": 1500,
        "memory_batch": 16,
        "memory_length": 50,
        "population": 32,
        "rollouts": 8,
        "generations": 40,
        "dream_horizon": 100,
        "evaluate_every": 10,
        "evaluation_episodes": 50,
    },
}
"""`take-cover` is the paper's agent in every number. `quick` is ours: small tasks with simple pictures on a CPU."""


@dataclass(frozen=True)
class WorldModelsConfig:
    """Settings of World Models (2018). Defaults are those of Take Cover where the paper's two tasks differ."""

    name: ClassVar[str] = "world-models"

    latent: int = 64
    """Latents of V; 32 in CarRacing, 64 in Take Cover (appendix, "Variational Autoencoder")."""
    memory_units: int = 512
    """Units of M's LSTM; 256 in CarRacing, 512 in Take Cover (appendix, "MDN-RNN")."""
    mixtures: int = 5
    """Gaussians of each latent (appendix, "MDN-RNN")."""
    living_reward: float | None = None
    """Reward of every dreamed step where living is all that counts; by default M learns the reward (Take Cover: 1)."""
    controller: Literal["linear", "hidden"] = "linear"
    """C: one layer, or a hidden layer of 40 (section "V Model only")."""
    controller_bias: bool = True
    """Whether a linear C has a bias; the released code has none for Take Cover."""
    controller_reads: Literal["z", "zh", "zch"] = "zh"
    """Latents, and M's state h, and its cell c; "zch" in Take Cover, "z" for V alone (appendix)."""
    collect_episodes: int = 10_000
    """Episodes of random play (section "Procedure", step 1)."""
    collect_steps: int = 2100
    """Longest episode that is collected, in steps (released code; 1000 in CarRacing)."""
    shortest_episode: int = 2
    """Shorter episodes are thrown away; 101 in the released code for Take Cover."""
    hold: int = 10
    """A random action is held for 1 to this many steps (released code for Take Cover)."""
    vision_epochs: int = 1
    """Passes over all frames (appendix; the released code has 10)."""
    vision_batch: int = 100
    """Frames a batch (released code)."""
    vision_learning_rate: float = 1e-4
    """Adam's learning rate for V (released code)."""
    memory_updates: int = 24_400
    """Gradient steps of M (released code for Take Cover; the paper says 20 epochs)."""
    memory_batch: int = 100
    """Sequences a batch (released code)."""
    memory_length: int = 500
    """Steps of each sequence; the state is carried to the next one (released code for Take Cover)."""
    memory_learning_rate: float = 1e-3
    """Adam's learning rate for M (released code)."""
    memory_clip: float = 1.0
    """Gradients of M are clipped to plus or minus this, number by number (released code)."""
    population: int = 64
    """Candidates a generation (appendix, "Evolution Strategies")."""
    rollouts: int = 16
    """Episodes of each candidate (appendix)."""
    deviation: float = 0.1
    """Initial standard deviation of C's parameters (released code)."""
    generations: int = 1800
    """Generations of CMA-ES (appendix)."""
    evolve_in: Literal["dream", "environment"] = "dream"
    """Where candidates are tried: in M's dream (Take Cover) or in the real environment (CarRacing)."""
    random_memory: bool = False
    """Leave M as it was drawn at random, as a control (Tallec et al., 2019); evolve in the environment then."""
    temperature: float = 1.15
    """Of the dream in which C evolves (section "Cheating the World Model", best row of the table)."""
    dream_horizon: int = 2100
    """Steps after which a dreamed episode is cut off (released code)."""
    evaluate_every: int = 25
    """Generations between evaluations in the real environment (released code)."""
    evaluation_episodes: int = 100
    """Episodes of an evaluation; the paper's scores are means over 100."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int | float) and not isinstance(value, bool) and not value > 0:
                raise ConfigError(f"{name} must be greater than zero, got {value}")
        if self.random_memory and self.evolve_in == "dream":
            raise ConfigError("a random memory has nothing to dream; give evolve_in environment with random_memory")
        if self.memory_length < 2 or self.population < 4:
            raise ConfigError(
                f"memory_length must be at least 2 and population at least 4, got {self.memory_length} and "
                f"{self.population}"
            )

    def build(self, interface: Interface) -> VisionMemory:
        """V and M for an environment that shows one 64x64 colour image; M also predicts ends, and rewards.

        Raises:
            ConfigError: the environment shows anything else.
        """
        shown = [(part.name, part.kind, part.shape) for part in interface.observations]
        if len(shown) != 1 or shown[0][2] != IMAGE:
            raise ConfigError(
                f"World Models sees one colour image of 64x64 pixels, but the environment shows {shown}; use --pixels "
                f"to see rendered frames, or --image-size 64 to resize images"
            )
        memory = MixtureRNN(
            self.latent,
            interface.action_width,
            self.memory_units,
            self.mixtures,
            restart_input=True,
            restart_head=True,
            reward_head=self.living_reward is None,
        )
        return VisionMemory(ConvVAE(self.latent), memory, shown[0][0], self.living_reward, self.controller_reads)

    def build_controller(self, features: int, actions: int) -> Controller:
        """C for F features and A entries of the flat action."""
        if self.controller == "linear":
            return LinearController(features, actions, self.controller_bias)
        return HiddenController(features, actions)
