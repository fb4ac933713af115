"""CarRacing as World Models saw and drove it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reverie.envs.suites.car_racing import ROAD_ROWS, SIDE, CarRacing

SEEN = 64
"""Height and width of the observation in pixels."""


class WorldModelsCarRacing(CarRacing):
    """The task of World Models: `reverie/CarRacing-v0` with the paper's picture, actions and end of a lap.

    Observation: uint8 [64, 64, 3]. Rows 0 to 83 of the picture, which show the road, resized with Pillow's bilinear
    filter; the return and the indicators are not seen.
    Action: float32 [3] from -1 to 1. Steering as it is, gas (a + 1) / 2, brake the positive part of a. So zeros mean
    straight ahead at half throttle.
    Reward and ends: as `CarRacing-v3`, but a lap is only complete when every tile was touched, as in `CarRacing-v0`.

    Source: World Models (Ha and Schmidhuber, 2018), section 3 and its released code (`carracing/env.py`, `model.py`).
    The camera turns with the car's hull, as in `CarRacing-v3`; in `CarRacing-v0` it turned with the velocity.

    Args:
        render_mode: None, `rgb_array` and `human`, which give the stock picture, or `state_pixels`, the observation.
        lap_complete_percent: share of the tiles that must be touched before the start ends the lap.
    """

    def __init__(self, render_mode: str | None = None, lap_complete_percent: float = 1.0) -> None:
        super().__init__(render_mode, lap_complete_percent=lap_complete_percent)
        gymnasium.utils.EzPickle.__init__(self, render_mode, lap_complete_percent)
        self.observation_space = gymnasium.spaces.Box(0, 255, (SEEN, SEEN, 3), np.uint8)
        self.action_space: Any = gymnasium.spaces.Box(-1, 1, (3,), np.float32)

    def step(self, action: NDArray[np.float32] | None) -> Any:  # type: ignore[override]
        """Drive for a frame (1/50 second); None, which the stock `reset` passes, lets the car stand."""
        if action is None:
            return super().step(None)  # type: ignore[arg-type]
        steering, gas, brake = np.clip(action, -1, 1)
        return super().step(np.array([steering, (gas + 1) / 2, max(brake, 0)], np.float32))

    def _render(self, mode: str) -> Any:
        """The observation, or anything else by the stock drawing."""
        if mode != "state_pixels" or self._map is None:
            return super()._render(mode)
        road = np.empty((ROAD_ROWS, SIDE, 3), np.uint8)
        self._draw_road(self._map, road)
        return np.array(Image.fromarray(road).resize((SEEN, SEEN), Image.Resampling.BILINEAR))
