"""World Models (Ha and Schmidhuber, 2018): vision V, memory M, and a controller C that is evolved in M's dream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from reverie.agents.world_models_presets import PRESETS, RECIPES
from reverie.behaviors.controllers import Controller, HiddenController, LinearController, flat_actions
from reverie.errors import ConfigError
from reverie.models.vision_memory import MemoryState, VisionMemory
from reverie.nn.mdn_rnn import MixtureRNN
from reverie.nn.vae import IMAGE, ConvVAE
from reverie.spaces import Interface
from reverie.tensor_files import load_tensors

__all__ = ["PRESETS", "RECIPES", "WorldModelsAgent", "WorldModelsConfig"]
MOST_STARTS = 1000
"""Episodes whose first frames begin dreams (released code of World Models)."""
MAY_BE_ZERO = ("anneal_to", "curiosity", "living_reward", "vision_epochs")
"""Settings that mean something by 0."""


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
    """Reward of every dreamed step where living is all that counts; by default M learns the reward. 1 in Take Cover,
    0 in CarRacing, where C does not evolve in dreams (appendix, "Evolution Strategies")."""
    end_head: bool = True
    """M predicts the ends of episodes and reads where they begin (appendix, "MDN-RNN"); not so in CarRacing."""
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
    collect_policy: Literal["held", "varied", "wandering"] = "held"
    """Random play: a uniform action held for 1 to `hold` steps (released code for Take Cover), the same with another
    longest time up to `hold` in every episode (ours), or one that wanders around zero (ours, after what the random
    controllers of the released code do in CarRacing)."""
    hold: int = 10
    """Longest time that an action is held, or correlation time of one that wanders, in steps (released code)."""
    vision_epochs: float = 1.0
    """Passes over all frames, also parts of one (appendix; the released code has 10); 0 leaves V as it came from
    another run."""
    vision_batch: int = 100
    """Frames per batch (released code)."""
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
    anneal_to: float = 1.0
    """Share of the learning rates of V and M that is left at the end of an iteration; they fall linearly (ours; the
    released code has 0.79 for M in Take Cover)."""
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
    iterations: int = 1
    """How often to collect, learn and evolve; from the second time on C collects (section "Iterative Training")."""
    collect_again: int | None = None
    """Episodes that C collects in each later iteration; by default as many as the first had (ours)."""
    keep_vision: bool = False
    """V stays as the first iteration left it; without it, V learns on (section "Iterative Training" trains M and C)."""
    action_head: bool = False
    """M also predicts the next action (section "Iterative Training"; there is no released code)."""
    curiosity: float = 0.0
    """Reward of M's surprise, in nats a latent, where C evolves in the environment (section "Iterative Training")."""
    temperature: float = 1.15
    """Of the dream in which C evolves (section "Cheating the World Model", best row of the table)."""
    dream_horizon: int = 2100
    """Steps after which a dreamed episode is cut off (released code)."""
    draw_ends: bool = False
    """Draw the ends of dreams with M's probability; else a dream ends where the logit is above 0 (released code)."""
    evaluate_every: int = 25
    """Generations between evaluations in the real environment (released code)."""
    evaluation_episodes: int = 100
    """Episodes of an evaluation; the paper's scores are means over 100."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and not (value > 0 or (name in MAY_BE_ZERO and value == 0)):
                raise ConfigError(f"{name} must be greater than zero, got {value}")
        if self.curiosity and self.evolve_in == "dream":
            raise ConfigError("nothing in a dream surprises M; give evolve_in environment with curiosity")
        if self.curiosity and self.controller_reads == "z":
            raise ConfigError("curiosity needs M's state, which this controller leaves out; give controller_reads zh")
        if self.random_memory and self.evolve_in == "dream":
            raise ConfigError("a random memory has nothing to dream; give evolve_in environment with random_memory")
        if self.anneal_to > 1:
            raise ConfigError(f"anneal_to is a share of the learning rates, so at most 1, got {self.anneal_to}")
        if self.memory_length < 2 or self.population < 4:
            raise ConfigError(
                f"memory_length must be at least 2 and population at least 4, got {self.memory_length} and "
                f"{self.population}"
            )

    def episodes(self, iteration: int) -> int:
        """Episodes that are collected up to and including an iteration; the first one is 0."""
        return self.collect_episodes + iteration * (self.collect_again or self.collect_episodes)

    def build(self, interface: Interface) -> WorldModelsAgent:
        """V, M and C for an environment that shows one 64x64 color image.

        Raises:
            ConfigError: the environment shows anything else.
        """
        shown = [(part.name, part.kind, part.shape) for part in interface.observations]
        if len(shown) != 1 or shown[0][2] != IMAGE:
            raise ConfigError(
                f"World Models sees one color image of 64x64 pixels, but the environment shows {shown}; use --pixels "
                f"to see rendered frames, or --image-size 64 to resize images"
            )
        memory = MixtureRNN(
            self.latent,
            interface.action_width,
            hidden=self.memory_units,
            mixtures=self.mixtures,
            restart_input=self.end_head,
            restart_head=self.end_head,
            reward_head=self.living_reward is None,
            action_head=self.action_head,
        )
        model = VisionMemory(
            ConvVAE(self.latent),
            memory,
            name=shown[0][0],
            living_reward=self.living_reward,
            reads=self.controller_reads,
        )
        actions = interface.action_width
        controller: Controller = HiddenController(model.features, actions)
        if self.controller == "linear":
            controller = LinearController(model.features, actions, self.controller_bias)
        return WorldModelsAgent(model, controller, interface, starts=min(MOST_STARTS, self.collect_episodes))


@dataclass
class RememberedState:
    """What the agent carries between decisions: latents and M's state, and the action taken, [E, ...]."""

    latent: MemoryState
    action: Tensor


class WorldModelsAgent(nn.Module):
    """V sees, M remembers, C acts.

    Args:
        world_model: V and M.
        controller: C.
        interface: observations and actions.
        starts: N, number of first frames whose latents are kept, so that dreams can begin in them.

    Attributes:
        parameters_of_controller: [n].
        first_latents: mean and log-variance of the latents of the first frames of episodes, [2, N, Z].
    """

    parameters_of_controller: Tensor
    first_latents: Tensor

    def __init__(self, world_model: VisionMemory, controller: Controller, interface: Interface, starts: int) -> None:
        super().__init__()
        self.world_model, self.controller, self.interface = world_model, controller, interface
        self.register_buffer("parameters_of_controller", torch.zeros(controller.count))
        self.register_buffer("first_latents", torch.zeros(2, starts, world_model.vision.latent))

    @property
    def device(self) -> torch.device:
        """Where V and M are."""
        return self.first_latents.device

    def first_states(self, count: int, generator: np.random.Generator) -> MemoryState:
        """States at the beginning of episodes, with latents drawn again.

        Args:
            count: N, at most as many as are kept.
            generator: draws.

        Returns:
            States [N, ...].
        """
        mean, log_variance = self.first_latents[:, :count]
        noise = torch.from_numpy(generator.standard_normal(mean.shape, np.float32)).to(self.device)
        return self.world_model.begin(mean + torch.exp(0.5 * log_variance) * noise)

    @torch.no_grad()
    def act(
        self,
        observation: Mapping[str, Tensor],
        is_first: Tensor,
        state: RememberedState | None = None,
        deterministic: bool = False,
    ) -> tuple[Tensor, RememberedState]:
        """Chooses an action for every environment; with `deterministic`, latents are means instead of samples.

        Args:
            observation: image [E, 64, 64, 3] under its name.
            is_first: where an episode begins, [E].
            state: what the previous call returned.
            deterministic: see above.

        Returns:
            Flat actions [E, A], and the state for the next call.
        """
        model = self.world_model
        latent = model.encode(observation[model.name], deterministic)
        memory = model.begin(latent)
        if state is not None:
            memory = model.remember(state.latent, state.action, latent).replace_where(is_first, memory)
        action = self.control(memory)
        return action, RememberedState(memory, action)

    def control(self, state: MemoryState) -> Tensor:
        """What C does in states [N, ...]: flat actions [N, A]."""
        outputs = self.controller(self.parameters_of_controller[None], self.world_model.feature(state)[None])[0]
        return flat_actions(outputs, self.interface.actions)

    def load(self, path: Path) -> None:
        """Reads the weights that `reverie.WorldModels.save` wrote.

        Raises:
            CheckpointError: the file is damaged, or its tensors are not those of this configuration.
        """
        load_tensors(self.state_dict(), path)
