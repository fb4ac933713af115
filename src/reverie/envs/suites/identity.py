"""A task for tests: the observation says which action led to it, and when."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray


class Identity(gymnasium.Env[NDArray[np.float32], Any]):
    """The observation holds the last action and the step number, and the reward repeats the last action.

    With it every off-by-one in a replay, a world model or a loop shows: in a row of experience the observation must
    name the action of the row before.

    Observation: float32. With discrete actions [actions + 1] = (one-hot of the last action, all 0 after a reset; step
    number). With `continuous` actions [2] = (last action, step number). Reward: index of the last action / 10, or the
    last action itself. The episode ends after `length` steps. The maximal return is `length * (actions - 1) / 10`
    (3 by default), or `length` with continuous actions.

    Args:
        length: steps in an episode.
        actions: number of discrete actions.
        continuous: take one number in [-1, 1] as action instead.
        terminate: end by termination instead of truncation.
    """

    metadata = {"render_modes": []}

    def __init__(self, length: int = 10, actions: int = 4, continuous: bool = False, terminate: bool = False) -> None:
        self.length, self.actions, self.continuous, self.terminate = length, actions, continuous, terminate
        width = 1 if continuous else actions
        self.observation_space = gymnasium.spaces.Box(-1, max(1, length), (width + 1,), np.float32)
        self.action_space = (
            gymnasium.spaces.Box(-1, 1, (1,), np.float32) if continuous else gymnasium.spaces.Discrete(actions)
        )
        self._observation = np.zeros(width + 1, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode; nothing depends on the seed."""
        super().reset(seed=seed)
        self._observation = np.zeros_like(self._observation)
        return self._observation, {}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Take note of the action."""
        number = self._observation[-1] + 1
        self._observation = np.zeros_like(self._observation)
        if self.continuous:
            reward = float(np.asarray(action).reshape(-1)[0])
            self._observation[0] = reward
        else:
            reward = int(action) / 10
            self._observation[int(action)] = 1
        self._observation[-1] = number
        ended = bool(number >= self.length)
        return self._observation, reward, ended and self.terminate, ended and not self.terminate, {}
