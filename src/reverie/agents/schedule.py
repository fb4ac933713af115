"""When an agent learns: what comes before the first update, and how many updates belong to new experience."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Updates as a function of experience.

    Attributes:
        warmup_steps: environment steps before the first update.
        warmup_episodes: finished episodes before the first update.
        random_warmup: whether the actions until then are random instead of the agent's.
        first: updates that are made when the warm-up ends.
        per_step: updates that become due with every environment step.
        per_episode: updates that become due with every finished episode.
        burst: updates are made once so many are due.
        newest_first: serve every new window once before windows are drawn uniformly (DreamerV3).
    """

    warmup_steps: int = 0
    warmup_episodes: int = 0
    random_warmup: bool = False
    first: int = 1
    per_step: float = 0.0
    per_episode: float = 0.0
    burst: int = 1
    newest_first: bool = False


class EvenSchedule:
    """Base of settings with a replay ratio: updates are spread evenly over the steps that follow the warm-up."""

    batch_size: int
    batch_length: int
    replay_ratio: float
    warmup_steps: int

    def schedule(self) -> Schedule:
        """When to learn."""
        rate = self.replay_ratio / (self.batch_size * self.batch_length)
        return Schedule(self.warmup_steps, per_step=rate, newest_first=True)
