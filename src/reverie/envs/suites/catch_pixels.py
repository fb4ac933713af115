"""A pixel task: catch falling balls with a paddle."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

GRID = 4
CELL = 16
BACKGROUND_COLOR = (96, 96, 128)
BALL_COLOR = (255, 224, 64)
PADDLE_COLOR = (64, 192, 96)


class CatchPixels(gymnasium.Env[NDArray[np.uint8], np.int64]):
    """A ball falls one of 4 rows per step; a paddle one column wide must be below it when it lands.

    Observation: uint8 [64, 64, 3], a 4 x 4 grid of 16 x 16 pixels. Actions: 0 left, 1 stay, 2 right, by one column.
    The ball starts in a random column of the top row. When it reaches the bottom row the reward is +1 if the paddle
    is there and -1 otherwise; on the next step a new ball takes the place of the old one. The episode is terminated
    when the last ball lands.

    The maximal return is `balls` (5 by default), and every ball can be caught; the minimal return is `-balls`.

    Args:
        balls: balls in an episode.
        render_mode: None or `rgb_array`, which renders the observation.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}

    def __init__(self, balls: int = 5, render_mode: str | None = None) -> None:
        self.balls = balls
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(0, 255, (GRID * CELL, GRID * CELL, 3), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(3)
        self._row = self._column = self._landed = 0
        self._paddle = GRID // 2

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Put the paddle in the middle and let go of the first ball."""
        super().reset(seed=seed)
        self._landed = 0
        self._paddle = GRID // 2
        self._release()
        return self._draw(), {}

    def step(self, action: np.int64) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Move the paddle by one column and the ball by one row."""
        self._paddle = min(max(self._paddle + int(action) - 1, 0), GRID - 1)
        reward = 0.0
        if self._row == GRID - 1:
            self._release()
        else:
            self._row += 1
            if self._row == GRID - 1:
                reward = 1.0 if self._column == self._paddle else -1.0
                self._landed += 1
        return self._draw(), reward, self._landed == self.balls, False, {}

    def render(self) -> NDArray[np.uint8] | None:
        """The current frame, uint8 [64, 64, 3], or None without a render mode."""
        return self._draw() if self.render_mode == "rgb_array" else None

    def _release(self) -> None:
        self._row, self._column = 0, int(self.np_random.integers(GRID))

    def _draw(self) -> NDArray[np.uint8]:
        """A new frame; where ball and paddle meet the ball is seen."""
        cells = np.full((GRID, GRID, 3), BACKGROUND_COLOR, np.uint8)
        cells[-1, self._paddle] = PADDLE_COLOR
        cells[self._row, self._column] = BALL_COLOR
        return cells.repeat(CELL, 0).repeat(CELL, 1)
