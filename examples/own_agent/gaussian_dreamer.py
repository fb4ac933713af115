"""An agent of one's own: DreamerV3 whose latent variables are normal instead of categorical.

    pip install examples/own_agent
    reverie train gaussian-dreamer --env CartPole-v1

or, without installing it, in Python:

    import gaussian_dreamer
    gaussian_dreamer.GaussianDreamer("CartPole-v1").learn()
"""

from dataclasses import dataclass
from typing import ClassVar

import reverie
from reverie.agents.dreamer_v3 import BY_KIND, PRESETS, DreamerV3Config
from reverie.nn.latents import GaussianLatent, Latent

__all__ = ["BY_KIND", "PRESETS", "GaussianDreamer", "GaussianDreamerConfig"]  # presets are looked up in this module


@reverie.register_agent
@dataclass(frozen=True)
class GaussianDreamerConfig(DreamerV3Config):
    """Settings of DreamerV3, and one more."""

    name: ClassVar[str] = "gaussian-dreamer"

    variables: int = 16
    """Normal latent variables."""
    minimum_deviation: float = 0.1
    """Smallest standard deviation of a latent variable."""
    replay_context: int = 0
    """The replay keeps categorical latents only, so windows begin without stored ones."""

    def make_latent(self) -> Latent:
        """z: normal variables, as in PlaNet and Dreamer v1."""
        return GaussianLatent(self.variables, "softplus", self.minimum_deviation)


class GaussianDreamer(reverie.Learner):
    """The agent as a class: learn, evaluate, predict, dream, save."""

    agent_name = "gaussian-dreamer"
