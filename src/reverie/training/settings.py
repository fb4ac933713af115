"""Settings of a run that belong to no agent."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from reverie.errors import ConfigError
from reverie.typed_values import check_fields

MAY_CHANGE = {"steps", "device", "precision", "threads", "vectorization", "checkpoint_minutes", "evaluate_every"}
MAY_CHANGE |= {"evaluation_episodes", "evaluation_envs", "deterministic_evaluation", "log_every", "videos", "stop_at"}
MAY_CHANGE |= {"info"}
"""Settings that may differ when a run is resumed; all others make it another run."""
SAME_LEARNING = MAY_CHANGE | {"replay_storage"}
"""Settings that do not change what an agent learns, so that runs which differ in them alone compare as seeds."""
MOST_EPISODES = 1_000_000
"""Episodes of one evaluation, whose returns are all kept."""
MOST = {"num_envs": 2**16, "evaluation_episodes": MOST_EPISODES, "threads": 2**12}
"""Largest values of settings that memory is taken for at once."""


def may_change_in_stages(iterations: int) -> set[str]:
    """The same as `MAY_CHANGE` for settings of an agent that is trained in stages.

    Args:
        iterations: how often it collects, learns and evolves. Several iterations share the generations out, so their
            number then makes it another run.
    """
    return {"evaluate_every", "evaluation_episodes"} | ({"generations"} if iterations == 1 else set())


def check_seed(seed: int) -> None:
    """Refuses seeds that not every random generator takes.

    Raises:
        ConfigError: the seed is negative or has more than 32 bits.
    """
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed must be between 0 and 4294967295, got {seed}")


def checked_names(info: Any) -> tuple[str, ...]:
    """Names of numbers of an environment's info, as a tuple; a single name may stand for itself.

    Raises:
        ConfigError: something is not a name.
    """
    names = (info,) if isinstance(info, str) else tuple(info) if isinstance(info, (list, tuple)) else (info,)
    for name in names:
        if not isinstance(name, str) or not name:
            raise ConfigError(f"info must be names of numbers such as ('success',), got {info!r}")
    return names


@dataclass(frozen=True)
class TrainSettings:
    """How long and how to train."""

    steps: int = 100_000
    """Environment steps (agent decisions) at which the run is complete; by default as the preset says."""
    stop_at: float | None = None
    """End the run early, once the mean return of an evaluation reaches this."""
    seed: int = 0
    """Seed of weights, environments, replay and sampling."""
    num_envs: int = 4
    """Environments that are stepped side by side."""
    vectorization: Literal["auto", "in-process", "workers"] = "auto"
    """Step environments in this process or in worker processes; auto decides by how long a step takes."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N; auto takes a GPU where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute precision; auto means bfloat16 on a GPU, float32 on a CPU."""
    threads: int | None = None
    """Threads of PyTorch on the CPU; all cores by default."""
    evaluate_every: int | None = None
    """Environment steps between evaluations; a tenth of `steps` by default, 0 for none but the last."""
    evaluation_episodes: int = 10
    """Episodes per evaluation."""
    evaluation_envs: int | None = None
    """Environments that play them side by side; by default one per episode, at most 16. With 0 they are those of
    training, so that no further one is made; that is the default with one environment."""
    deterministic_evaluation: bool = False
    """Evaluate with most likely latents and actions; by default as in the papers: DreamerV3 samples both, the agents
    before it sample latents and take the most likely actions."""
    log_every: int = 500
    """Environment steps between two lines of metrics."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints; one is also written at every evaluation, at the end and at Ctrl-C."""
    replay_storage: Literal["ram", "disk"] = "ram"
    """Keep the replay in memory, or in memory-mapped files of the run folder."""
    videos: bool = True
    """Write an open-loop prediction video at every evaluation."""
    info: tuple[str, ...] = ()
    """Numbers of the environment's info to log, e.g. `--info success`: those of an episode's last step, averaged over
    episodes, in training and in evaluations."""

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("steps", "num_envs", "evaluation_episodes", "log_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name, most in MOST.items():
            if (getattr(self, name) or 0) > most:
                raise ConfigError(f"{name} must be at most {most:,}, got {getattr(self, name)}")
        if not self.checkpoint_minutes >= 0:
            raise ConfigError(f"checkpoint_minutes must not be negative, got {self.checkpoint_minutes}")
        if self.evaluate_every is not None and self.evaluate_every < 0:
            raise ConfigError(f"evaluate_every must not be negative, got {self.evaluate_every}")
        if self.evaluation_envs is not None and self.evaluation_envs < 0:
            raise ConfigError(f"evaluation_envs must not be negative, got {self.evaluation_envs}")
        check_seed(self.seed)
        object.__setattr__(self, "info", checked_names(self.info))
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads must be at least 1, got {self.threads}")

    @property
    def evaluation_interval(self) -> int:
        """Environment steps between evaluations, 0 for none but the last."""
        return max(self.steps // 10, 1) if self.evaluate_every is None else self.evaluate_every

    @property
    def evaluates_in_training(self) -> bool:
        """Whether evaluations are played in the environments of training."""
        return self.evaluation_envs == 0 or (self.evaluation_envs is None and self.num_envs == 1)

    def identity(self) -> dict[str, Any]:
        """The settings that must stay the same when the run is resumed."""
        return {key: value for key, value in asdict(self).items() if key not in MAY_CHANGE}
