"""What the numbers of Gymnasium's tasks mean: names and units of their observations and actions.

Source: the tables in the documentation of each environment, Gymnasium 1.x. A unit follows in brackets; angles as
cosine and sine, contacts and normalized values have none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium


@dataclass(frozen=True)
class KnownTask:
    """Names of one task.

    Attributes:
        observation: names of the entries of the observation vector.
        choices: names of the choices of its only discrete action; empty if it has none.
        controls: names of the entries of its continuous action; empty if it has none.
    """

    observation: tuple[str, ...]
    choices: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()


def _joints(*names: str) -> tuple[str, ...]:
    return tuple(f"{name} angle [rad]" for name in names)


def _turning(*names: str) -> tuple[str, ...]:
    return tuple(f"{name} angular velocity [rad/s]" for name in names)


def _torques(*names: str) -> tuple[str, ...]:
    return tuple(f"{name} torque [N m]" for name in names)


_CAR = ("position", "velocity")
_HOPPER = ("thigh", "leg", "foot")
_WALKER = ("right thigh", "right leg", "right foot", "left thigh", "left leg", "left foot")
_CHEETAH = ("back thigh", "back shin", "back foot", "front thigh", "front shin", "front foot")
_BIPED_LEG = ("hip {} angle [rad]", "hip {} speed", "knee {} angle [rad]", "knee {} speed", "leg {} contact")
_BIPED_LEGS = tuple(name.format(leg) for leg in (1, 2) for name in _BIPED_LEG)

TASKS = {
    "CartPoleEnv": KnownTask(
        ("cart position [m]", "cart velocity [m/s]", "pole angle [rad]", "pole angular velocity [rad/s]"),
        choices=("push left", "push right"),
    ),
    "PendulumEnv": KnownTask(
        ("cosine of angle", "sine of angle", "angular velocity [rad/s]"), controls=("torque [N m]",)
    ),
    "AcrobotEnv": KnownTask(
        ("cosine of angle 1", "sine of angle 1", "cosine of angle 2", "sine of angle 2", *_turning("link 1", "link 2")),
        choices=("torque -1", "no torque", "torque +1"),
    ),
    "MountainCarEnv": KnownTask(_CAR, choices=("push left", "no push", "push right")),
    "Continuous_MountainCarEnv": KnownTask(_CAR, controls=("force",)),
    "LunarLander": KnownTask(
        (
            "x position",
            "y position",
            "x velocity",
            "y velocity",
            "angle [rad]",
            "angular velocity [0.4 rad/s]",
            "left leg contact",
            "right leg contact",
        ),
        choices=("no engine", "left engine", "main engine", "right engine"),
        controls=("main engine", "side engines"),
    ),
    "BipedalWalker": KnownTask(
        (
            "hull angle [rad]",
            "hull angular velocity",
            "x velocity",
            "y velocity",
            *_BIPED_LEGS,
            *(f"lidar {beam}" for beam in range(1, 11)),
        ),
        controls=("hip 1", "knee 1", "hip 2", "knee 2"),
    ),
    "InvertedPendulumEnv": KnownTask(
        ("cart position [m]", "pole angle [rad]", "cart velocity [m/s]", *_turning("pole")), controls=("force [N]",)
    ),
    "InvertedDoublePendulumEnv": KnownTask(
        (
            "cart position [m]",
            "sine of angle 1",
            "sine of angle 2",
            "cosine of angle 1",
            "cosine of angle 2",
            "cart velocity [m/s]",
            *_turning("pole 1", "pole 2"),
            "constraint force [N]",
        ),
        controls=("force [N]",),
    ),
    "HopperEnv": KnownTask(
        (
            "torso height [m]",
            *_joints("torso", *_HOPPER),
            "x velocity [m/s]",
            "z velocity [m/s]",
            *_turning("torso", *_HOPPER),
        ),
        controls=_torques(*_HOPPER),
    ),
    "Walker2dEnv": KnownTask(
        (
            "torso height [m]",
            *_joints("torso", *_WALKER),
            "x velocity [m/s]",
            "z velocity [m/s]",
            *_turning("torso", *_WALKER),
        ),
        controls=_torques(*_WALKER),
    ),
    "HalfCheetahEnv": KnownTask(
        (
            "tip height [m]",
            *_joints("tip", *_CHEETAH),
            "x velocity [m/s]",
            "z velocity [m/s]",
            *_turning("tip", *_CHEETAH),
        ),
        controls=_torques(*_CHEETAH),
    ),
    "SwimmerEnv": KnownTask(
        (
            *_joints("tip", "rotor 1", "rotor 2"),
            "x velocity [m/s]",
            "y velocity [m/s]",
            *_turning("tip", "rotor 1", "rotor 2"),
        ),
        controls=_torques("rotor 1", "rotor 2"),
    ),
    "ReacherEnv": KnownTask(
        (
            "cosine of angle 1",
            "cosine of angle 2",
            "sine of angle 1",
            "sine of angle 2",
            "target x [m]",
            "target y [m]",
            *_turning("arm 1", "arm 2"),
            "x distance [m]",
            "y distance [m]",
        ),
        controls=_torques("joint 1", "joint 2"),
    ),
}
"""Class of the environment in Gymnasium -> its names; one class serves all versions and variants of an id."""


def gymnasium_class(environment: gymnasium.Env[Any, Any]) -> str | None:
    """The name of Gymnasium's class that the innermost environment is or extends, such as `CartPoleEnv`, or None."""
    for cls in type(environment.unwrapped).__mro__:
        if cls.__module__.startswith("gymnasium.envs."):
            return cls.__name__
    return None


def observes_directly(environment: gymnasium.Env[Any, Any]) -> bool:
    """Whether observations come through all wrappers as the innermost environment gives them."""
    inner = environment.unwrapped
    return all(
        not isinstance(layer, gymnasium.ObservationWrapper) and layer.observation_space == inner.observation_space
        for layer in _layers(environment)
    )


def acts_directly(environment: gymnasium.Env[Any, Any]) -> bool:
    """Whether actions come through all wrappers as they are given."""
    inner = environment.unwrapped
    return all(
        not isinstance(layer, gymnasium.ActionWrapper) and layer.action_space == inner.action_space
        for layer in _layers(environment)
    )


def _layers(environment: gymnasium.Env[Any, Any]) -> Iterator[gymnasium.Env[Any, Any]]:
    """The environment, and what each of its wrappers holds."""
    yield environment
    while isinstance(environment, gymnasium.Wrapper):
        environment = environment.env
        yield environment


def known_task(environment: gymnasium.Env[Any, Any]) -> KnownTask | None:
    """The names of an environment's observations and actions, without those that a wrapper changes; None if unknown."""
    task = TASKS.get(gymnasium_class(environment) or "")
    if task is None:
        return None
    observation = task.observation if observes_directly(environment) else ()
    choices, controls = (task.choices, task.controls) if acts_directly(environment) else ((), ())
    return KnownTask(observation, choices, controls)
