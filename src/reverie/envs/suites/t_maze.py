"""A memory task: a corridor whose entrance tells where to turn at its end."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

FORWARD, UP, DOWN = 0, 1, 2


class TMaze(gymnasium.Env[NDArray[np.float32], np.int64]):
    """Walk to the junction, then turn the way that a cue told on the very first step.

    Observation: float32 [3] = (cue: +1 up, -1 down, 0 after the first step; position from 0 to 1; 1 at the junction).
    Actions: 0 forward, 1 up, 2 down. Turning inside the corridor, or going forward at the junction, does nothing.
    Turning at the junction ends the episode (terminated) with reward +1 if it was the right way and -1 otherwise.
    An episode of `4 * length` steps is truncated.

    The maximal return is 1, after `length + 1` steps. Without memory the best mean return is 0.

    Args:
        length: steps from the entrance to the junction.
    """

    metadata = {"render_modes": []}

    def __init__(self, length: int = 5) -> None:
        self.length = length
        self.observation_space = gymnasium.spaces.Box(
            np.array([-1, 0, 0], np.float32), np.array([1, 1, 1], np.float32), dtype=np.float32
        )
        self.action_space = gymnasium.spaces.Discrete(3)
        self._goal = UP
        self._position = self._elapsed = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Draw the cue and go to the entrance."""
        super().reset(seed=seed)
        self._goal = int(self.np_random.choice([UP, DOWN]))
        self._position = self._elapsed = 0
        return self._observe(1.0 if self._goal == UP else -1.0), {}

    def step(self, action: np.int64) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Walk or turn."""
        self._elapsed += 1
        reward, terminated = 0.0, False
        if self._position < self.length:
            self._position += int(action == FORWARD)
        elif action != FORWARD:
            reward, terminated = (1.0 if action == self._goal else -1.0), True
        truncated = not terminated and self._elapsed >= 4 * self.length
        return self._observe(0.0), reward, terminated, truncated, {}

    def _observe(self, cue: float) -> NDArray[np.float32]:
        at_junction = float(self._position == self.length)
        return np.array([cue, self._position / self.length, at_junction], np.float32)
