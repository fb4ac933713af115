"""A memory task: name the symbol that was shown some steps ago."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np


class RepeatPrevious(gymnasium.Env[np.int64, np.int64]):
    """Each step shows a random symbol; naming the one shown `delay` steps before gives reward 1.

    During the first `delay` steps there is nothing to name and no reward. The episode is truncated after `length`
    steps. The maximal return is `length - delay` (46 by default); without memory, any way of acting gives a mean of
    `(length - delay) / symbols` (11.5 by default).

    Args:
        symbols: number of symbols, which is also the number of actions.
        delay: how many steps ago the symbol to name was shown.
        length: steps in an episode.
    """

    metadata = {"render_modes": []}

    def __init__(self, symbols: int = 4, delay: int = 2, length: int = 48) -> None:
        self.symbols, self.delay, self.length = symbols, delay, length
        self.observation_space = gymnasium.spaces.Discrete(symbols)
        self.action_space = gymnasium.spaces.Discrete(symbols)
        self._shown: list[int] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Begin an episode and show its first symbol."""
        super().reset(seed=seed)
        self._shown = []
        return self._show(), {}

    def step(self, action: np.int64) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        """Judge the named symbol, then show the next one."""
        now = len(self._shown) - 1
        correct = now >= self.delay and int(action) == self._shown[now - self.delay]
        truncated = now + 1 >= self.length
        return self._show(), float(correct), False, truncated, {}

    def _show(self) -> np.int64:
        symbol = self.np_random.integers(self.symbols)
        self._shown.append(int(symbol))
        return np.int64(symbol)
