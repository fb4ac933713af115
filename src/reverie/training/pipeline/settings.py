"""Settings of a run in stages that belong to no agent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reverie.envs import Vectorization
from reverie.errors import ConfigError
from reverie.training.settings import check_seed, checked_names
from reverie.typed_values import check_fields


@dataclass(frozen=True)
class PipelineSettings:
    """How to train."""

    seed: int = 0
    """Seed of weights, environments and sampling."""
    num_envs: int = 16
    """Environments that each process steps in lockstep."""
    vectorization: Vectorization = "auto"
    """Play real episodes in this process, or in one worker process for each thread (auto)."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N; auto takes a GPU where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of V and M, in learning and in dreams; auto means bfloat16 on a GPU, float32 on a CPU."""
    threads: int | None = None
    """Threads of PyTorch on the CPU, and worker processes; all cores by default."""
    reuse: Path | None = None
    """Take frames, V and M from this other run, as far as their settings are the same, e.g. for an ablation of C."""
    vision: Path | None = None
    """Begin with V of this other run, which may have seen other frames; with vision_epochs 0 it stays as it is."""
    checkpoint_minutes: float = 2.0
    """Minutes between checkpoints within a stage."""
    info: tuple[str, ...] = ()
    """Numbers of the environment's info to log, e.g. `--info success`: those of an episode's last step, averaged over
    the real episodes of C's candidates and of evaluations."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_seed(self.seed)
        object.__setattr__(self, "info", checked_names(self.info))
        if self.num_envs < 1 or (self.threads is not None and self.threads < 1):
            raise ConfigError(f"num_envs and threads must be at least 1, got {self.num_envs} and {self.threads}")
        if self.reuse is not None and self.vision is not None:
            raise ConfigError("reuse takes V, too, so give either reuse or vision, not both")
        if not self.checkpoint_minutes >= 0:
            raise ConfigError(f"checkpoint_minutes must not be negative, got {self.checkpoint_minutes}")
