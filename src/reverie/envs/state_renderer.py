"""Classic tasks drawn by their own renderers from an observation, real or dreamed.

The observations of these tasks hold all of the visible state. An observation is turned back into a state, the
state is put into a copy of the environment, and that copy draws.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from reverie.envs.known_tasks import acts_directly, gymnasium_class, observes_directly

LARGEST = 50.0
"""Entries of an observation beyond this are drawn as this, since a renderer counts pixels in 16 bits."""
_LEG_ANGLE = 0.398
"""Radians between lander and leg in flight, where the motor presses the leg against its stop."""


class StateRenderer:
    """Draws observations of one of the classic tasks; `StateRenderer.of` finds out whether there is one.

    These are CartPole, Pendulum, Acrobot, MountainCar, MountainCarContinuous, LunarLander and LunarLanderContinuous,
    in all versions, with any keyword arguments, and subclasses of them. What an observation does not say is drawn
    like this: the torque arrow of Pendulum only if the action is given; the legs of LunarLander as in flight, no
    particles, and the ground of the given environment, or a flat one if that has not been reset.

    Args:
        environment: draws; its state is overwritten.
        place: puts a state into it.
        acts: whether the actions that will be given are the environment's own, so that they can be shown.
    """

    def __init__(
        self, environment: Any, place: Callable[[Any, NDArray[np.float64], Any], None], acts: bool = True
    ) -> None:
        self._environment, self._place, self._acts = environment, place, acts

    @staticmethod
    def of(environment: gymnasium.Env[Any, Any]) -> StateRenderer | None:
        """The renderer for the observations of an environment, which itself is left alone.

        None for other tasks, and where a wrapper changes the observations.
        """
        place = _PLACES.get(gymnasium_class(environment) or "")
        if place is None or not observes_directly(environment):
            return None
        original: Any = environment.unwrapped
        drawing: Any = copy.copy(original)
        # In this mode, which is neither a window nor an array, most renderers leave the picture on their surface.
        # Their own way of copying it to an array takes three times as long as the drawing.
        drawing.render_mode = "surface"
        drawing.screen = drawing.clock = drawing.surf = None
        if place is _place_lander:
            _build_ground(drawing, original)
        return StateRenderer(drawing, place, acts_directly(environment))

    def frame(self, observation: NDArray[Any], action: Any = None, shrink: int = 1) -> NDArray[np.uint8]:
        """Draws one observation.

        Args:
            observation: float [N], as the environment returns it; need not be in its space.
            action: the environment's action that led to it, if known; Pendulum shows it.
            shrink: the factor by which the picture is shrunk, smoothly.

        Returns:
            uint8 [H, W, 3]; with `shrink=1` what the environment itself would return from `render`.
        """
        import pygame

        values = np.nan_to_num(np.asarray(observation, np.float64), nan=0.0, posinf=LARGEST, neginf=-LARGEST)
        self._place(self._environment, values.clip(-LARGEST, LARGEST), action if self._acts else None)
        self._environment.render()
        surface = self._environment.screen or self._environment.surf
        if shrink > 1:
            width, height = surface.get_size()
            surface = pygame.transform.smoothscale(surface, (width // shrink, height // shrink))
        return np.asarray(pygame.surfarray.array3d(surface).swapaxes(0, 1))


def _place_numbers(environment: Any, observation: NDArray[np.float64], action: Any) -> None:
    """CartPole and both MountainCars: the observation is the state."""
    environment.state = observation


def _place_pendulum(environment: Any, observation: NDArray[np.float64], action: Any) -> None:
    cosine, sine, velocity = observation
    environment.state = np.array([math.atan2(sine, cosine), velocity])
    environment.last_u = None if action is None else float(np.clip(action, -2, 2)[0])


def _place_acrobot(environment: Any, observation: NDArray[np.float64], action: Any) -> None:
    cosine1, sine1, cosine2, sine2, velocity1, velocity2 = observation
    environment.state = np.array([math.atan2(sine1, cosine1), math.atan2(sine2, cosine2), velocity1, velocity2])


def _place_lander(environment: Any, observation: NDArray[np.float64], action: Any) -> None:
    from gymnasium.envs.box2d import lunar_lander as lunar

    half_width, half_height = lunar.VIEWPORT_W / lunar.SCALE / 2, lunar.VIEWPORT_H / lunar.SCALE / 2
    x = half_width * (observation[0] + 1)
    y = half_height * observation[1] + environment.helipad_y + lunar.LEG_DOWN / lunar.SCALE
    angle = float(observation[4])
    environment.lander.position, environment.lander.angle = (x, y), angle
    for side, leg in zip((-1, 1), environment.legs, strict=True):
        leg_angle = angle - side * _LEG_ANGLE
        cosine, sine = math.cos(leg_angle), math.sin(leg_angle)
        joint_x, joint_y = side * lunar.LEG_AWAY / lunar.SCALE, lunar.LEG_DOWN / lunar.SCALE
        leg.position = (x - cosine * joint_x + sine * joint_y, y - sine * joint_x - cosine * joint_y)
        leg.angle = leg_angle


def _build_ground(drawing: Any, original: Any) -> None:
    """Gives a copy of LunarLander its bodies, and the original's ground or a flat one."""
    from gymnasium.envs.box2d import lunar_lander as lunar

    drawing.reset(seed=0)
    drawing.particles = []
    if original.moon is not None:
        drawing.sky_polys = original.sky_polys
        return
    width, height = lunar.VIEWPORT_W / lunar.SCALE, lunar.VIEWPORT_H / lunar.SCALE
    ground = drawing.helipad_y
    drawing.sky_polys = [[(0, ground), (width, ground), (width, height), (0, height)]]


_PLACES: dict[str, Callable[[Any, NDArray[np.float64], Any], None]] = {
    "CartPoleEnv": _place_numbers,
    "MountainCarEnv": _place_numbers,
    "Continuous_MountainCarEnv": _place_numbers,
    "PendulumEnv": _place_pendulum,
    "AcrobotEnv": _place_acrobot,
    "LunarLander": _place_lander,
}
"""Class of the environment in Gymnasium -> what puts an observation into it as its state."""
