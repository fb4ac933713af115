"""reverie evaluate RUN: plays episodes with a trained agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from reverie.cli.options import parse
from reverie.cli.run_files import print_run_files

if TYPE_CHECKING:
    from reverie.training.evaluation import Evaluation
    from reverie.training.progress import Display


@dataclass(frozen=True)
class EvaluateOptions:
    """Play episodes with a trained agent and print their returns."""

    path: Annotated[Path, tyro.conf.Positional]
    """Run folder, or a folder that an agent was saved to."""
    episodes: int = 10
    """Number of episodes."""
    checkpoint: str = "best"
    """In a run folder: best (highest evaluation so far), latest, or the name of a checkpoint."""
    deterministic: bool = False
    """Take most likely latents and actions; by default as in the papers, and as `predict` in Python: DreamerV3 samples
    both, the agents before it sample latents and take the most likely actions."""
    seed: int = 0
    """Seed of the episodes and of sampling."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    env: str | None = None
    """Environment in the place of the one that the folder names, with the same observations and actions."""
    trust_environment: bool = False
    """Import the module that the folder names, where its environment is `module:Id`, which runs the module's code."""
    episode_limit: int | None = None
    """Decisions after which an episode is cut off; by default the time limit of the environment, or where it has none
    ten times the longest episode of training, at least 500."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parse(EvaluateOptions, "evaluate", arguments)
    from reverie.errors import ConfigError
    from reverie.training.metrics import METRICS_FILE
    from reverie.training.progress import Display

    if options.episodes < 1:
        raise ConfigError(f"episodes must be at least 1, got {options.episodes}")
    folder = options.path.absolute()  # an environment may change the working directory
    with Display("evaluating", options.episodes, unit="episodes", transient=True) as display:
        result = _play(options, folder, display)
    for index, (total, length) in enumerate(zip(result.returns, result.lengths, strict=True)):
        print(f"episode {index:>3}   return {total:>10.2f}   length {length:>6}")
    print(f"mean return {result.mean:.2f} ± {result.standard_deviation:.2f} over {len(result.returns)} episodes")
    if result.cut_off:
        print(f"cut off           {result.cut_off} episodes, after {result.limit:,} decisions")
    if (folder / METRICS_FILE).exists():
        print_run_files(folder)
    return 0


def _play(options: EvaluateOptions, folder: Path, display: Display) -> Evaluation:
    import reverie

    learner = reverie.load(
        folder,
        environment=options.env,
        checkpoint=options.checkpoint,
        device=options.device,
        trust_environment=options.trust_environment,
    )
    return learner.evaluate(
        options.episodes,
        deterministic=options.deterministic,
        seed=options.seed,
        progress=display.update,
        episode_limit=options.episode_limit,
        watch=display.watch,
    )
