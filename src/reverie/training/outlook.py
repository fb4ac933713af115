"""What a run will do and how long that will take, and why it would not learn: sentences for before and after it."""

from __future__ import annotations

from dataclasses import dataclass

from reverie.agents.registry import AgentConfig
from reverie.agents.schedule import Schedule
from reverie.training.estimate import Costs, duration

MANY_EPISODES = 10**9
"""As many finished episodes as any schedule could wait for."""


@dataclass(frozen=True)
class Outlook:
    """Sentences about one run.

    Attributes:
        config: the agent's settings.
        steps: environment steps at which the run is complete.
        num_envs: E.
        window: rows of one environment that a replayed window takes.
    """

    config: AgentConfig
    steps: int
    num_envs: int
    window: int

    @property
    def schedule(self) -> Schedule:
        """When the agent learns."""
        return self.config.schedule()

    def without_updates(self) -> str:
        """Why the run will make no update, empty if it will."""
        too_short = self.steps < self.window * self.num_envs
        if not too_short and self.schedule.updates_after(self.steps, MANY_EPISODES):
            return ""
        return (
            f"no update will be made: the first one waits for {self._awaited(too_short)}, and the run ends after "
            f"{self.steps:,} steps; give more --steps, or a shorter warm-up"
        )

    def not_learned(self, env_steps: int, episodes: int, too_short: bool) -> str:
        """Why the run has made no update.

        Args:
            env_steps: that were made.
            episodes: that have ended.
            too_short: the replay does not hold a window yet.
        """
        endless = episodes < self.schedule.warmup_episodes
        return (
            f"the agent has not learned: no update was made in {env_steps:,} steps and {episodes:,} finished episodes, "
            f"because the first one waits for {self._awaited(too_short)}; give more --steps, or "
            f"{'a --time-limit if episodes do not end' if endless else 'a shorter warm-up'}"
        )

    def plan(self, preset: str, env_steps: int, costs: Costs) -> str:
        """Steps, replay ratio, updates and expected time from a step on.

        Args:
            preset: where the settings come from.
            env_steps: that were made already.
            costs: of an update and of a decision on this machine.
        """
        schedule = self.schedule
        first, last = (schedule.updates_after(steps) for steps in (env_steps, self.steps))
        decisions = (self.steps - env_steps) // self.num_envs
        if schedule.per_episode:
            work = (
                f"{schedule.per_episode:g} updates of {costs.update:.2g} s for every episode, decisions of "
                f"{costs.decision:.2g} s: about {duration(costs.seconds(0, decisions))} for the decisions"
            )
        else:
            ratio = schedule.per_step * self.config.batch_size * self.config.batch_length
            work = (
                f"replay ratio {ratio:,.4g} · {last:,} updates of {costs.update:.2g} s: about "
                f"{duration(costs.seconds(last - first, decisions))}"
            )
        return f"preset {preset} · {self.steps:,} steps · {work}, and the time of environment and evaluations"

    def _awaited(self, too_short: bool) -> str:
        """What the first update waits for, in words; a replay that is too short for a window is said, too."""
        window = f" and a window of {self.window} steps of one of {self.num_envs} environments"
        return self.schedule.warmup() + (window if too_short else "")
