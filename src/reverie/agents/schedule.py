"""When an agent learns: what comes before the first update, and how many updates belong to new experience."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WarmupActions = Literal["policy", "random", "held"]


@dataclass(frozen=True)
class Schedule:
    """Updates as a function of experience.

    Attributes:
        warmup_steps: environment steps before the first update.
        warmup_episodes: finished episodes before the first update.
        warmup_actions: those until then: the agent's (`policy`), `random`, or random ones that last (`held`).
        first: updates that are made when the warm-up ends.
        per_step: updates that become due with every environment step.
        per_episode: updates that become due with every finished episode.
        burst: updates are made once so many are due.
        newest_first: serve every new window once before windows are drawn uniformly (DreamerV3).
    """

    warmup_steps: int = 0
    warmup_episodes: int = 0
    warmup_actions: WarmupActions = "policy"
    first: int = 1
    per_step: float = 0.0
    per_episode: float = 0.0
    burst: int = 1
    newest_first: bool = False

    def updates_after(self, steps: int, episodes: int = 0) -> int:
        """Updates of a run that has made so many environment steps and finished so many episodes.

        Args:
            steps: environment steps.
            episodes: finished episodes, as far as the schedule counts them.
        """
        if steps < self.warmup_steps or episodes < self.warmup_episodes:
            return 0
        credit = (steps - self.warmup_steps) * self.per_step + (episodes - self.warmup_episodes) * self.per_episode
        return self.first + whole(credit) // self.burst * self.burst

    def warmup(self) -> str:
        """What the first update waits for, in words."""
        waits = [f"{self.warmup_steps:,} steps"] if self.warmup_steps else []
        waits += [f"the end of {self.warmup_episodes:,} episodes"] if self.warmup_episodes else []
        return " and ".join(waits) or "nothing"


def whole(updates: float) -> int:
    """The whole updates in a sum of many parts, from which rounding may have taken a little: 125 times 0.8 is 100."""
    return int(updates + 1e-6)


class EvenSchedule:
    """Base of settings with a replay ratio: updates are spread evenly over the steps that follow the warm-up."""

    batch_size: int
    batch_length: int
    replay_ratio: float
    warmup_steps: int
    warmup_actions: WarmupActions

    def schedule(self) -> Schedule:
        """When to learn."""
        rate = self.replay_ratio / (self.batch_size * self.batch_length)
        return Schedule(self.warmup_steps, warmup_actions=self.warmup_actions, per_step=rate, newest_first=True)
