"""Says what to do where episodes never end, which otherwise looks like a run that hangs or does not learn."""

from __future__ import annotations

import warnings

from reverie.agents.schedule import Schedule

STEPS_WITHOUT_END = 1_000
"""Steps of every environment, without the end of any episode, after which a time limit is missed."""
REMEDY = "give a time limit with --time-limit (in Python time_limit=)"


class EndlessEpisodes:
    """Warns once in a run that no episode ends.

    Args:
        schedule: of the agent.
        time_limit: that the environment is known to have, None if there is none.
        num_envs: E.
    """

    def __init__(self, schedule: Schedule, time_limit: int | None, num_envs: int) -> None:
        self.schedule, self.time_limit, self.num_envs = schedule, time_limit, num_envs
        self._warned = False

    def look(self, env_steps: int, episodes: int) -> None:
        """Warns if no episode has ended for long.

        Args:
            env_steps: of all environments so far.
            episodes: that have ended.
        """
        if self._warned or episodes or env_steps < STEPS_WITHOUT_END * self.num_envs:
            return
        if self.time_limit is not None and self.time_limit > env_steps // self.num_envs:
            return  # the first episodes are long, and will end
        self._warned = True
        first = max(self.schedule.warmup_episodes, int(self.schedule.per_step == 0))
        waits = f", and no update is made until {first} episodes have ended" if first else ""
        warnings.warn(f"no episode has ended in {env_steps:,} steps{waits}; if none ever ends, {REMEDY}", stacklevel=2)

    def before_first(self, updates: int, episodes: int) -> str:
        """What the first update waits for, in words; empty if not for the end of episodes."""
        wanted = self.schedule.warmup_episodes
        return f"{episodes} of {wanted} episodes before the first update" if not updates and episodes < wanted else ""
