"""The options that name a trained agent, for the commands that let it act."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from reverie.api import Learner


@dataclass(frozen=True)
class TrainedAgentOptions:
    """A trained agent, and what it acts in."""

    path: Annotated[Path, tyro.conf.Positional]
    """Run folder, or a folder that an agent was saved to."""
    checkpoint: str = "best"
    """In a run folder: best (highest evaluation so far), latest, or the name of a checkpoint."""
    env: str | None = None
    """Environment in place of the one that the folder names, with the same observations and actions."""
    trust_environment: bool = False
    """Import the module that the folder names, where its environment is `module:Id`, which runs the module's code."""
    seed: int = 0
    """Seed of the episodes and of sampling."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    @property
    def folder(self) -> Path:
        """The path, which stays right when an environment changes the working directory."""
        return self.path.absolute()


def load_agent(options: TrainedAgentOptions) -> Learner:
    """The agent that the options name."""
    import reverie
    from reverie.envs.extras import look_in_current_folder

    if options.env is not None:
        look_in_current_folder(options.env)
    return reverie.load(
        options.folder,
        environment=options.env,
        checkpoint=options.checkpoint,
        device=options.device,
        trust_environment=options.trust_environment,
    )
