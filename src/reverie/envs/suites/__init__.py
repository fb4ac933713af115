"""Tasks of our own; importing this registers their ids, and no task is imported before it is made."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import gymnasium

TASKS = {
    "reverie/CatchPixels-v0": "reverie.envs.suites.catch_pixels:CatchPixels",
    "reverie/Identity-v0": "reverie.envs.suites.identity:Identity",
    "reverie/RepeatPrevious-v0": "reverie.envs.suites.repeat_previous:RepeatPrevious",
    "reverie/TMaze-v0": "reverie.envs.suites.t_maze:TMaze",
}
"""Small tasks, each asking one thing of an agent: id and class."""


class OptionalTask(NamedTuple):
    """A task that needs an optional package.

    Attributes:
        entry_point: module and class.
        extra: the extra to install.
        steps: frames after which Gymnasium truncates an episode, or None if the task does it itself.
        kwargs: keyword arguments of the class.
    """

    entry_point: str
    extra: str
    steps: int | None
    kwargs: Mapping[str, Any] = MappingProxyType({})


CONTROL_TASKS = (
    ("acrobot", "swingup"),
    ("ball_in_cup", "catch"),
    ("cartpole", "balance"),
    ("cartpole", "balance_sparse"),
    ("cartpole", "swingup"),
    ("cartpole", "swingup_sparse"),
    ("cheetah", "run"),
    ("finger", "spin"),
    ("finger", "turn_easy"),
    ("finger", "turn_hard"),
    ("hopper", "hop"),
    ("hopper", "stand"),
    ("pendulum", "swingup"),
    ("quadruped", "run"),
    ("quadruped", "walk"),
    ("reacher", "easy"),
    ("reacher", "hard"),
    ("walker", "run"),
    ("walker", "stand"),
    ("walker", "walk"),
)
"""Domains and tasks of the DeepMind Control Suite in the papers of Dreamer, DreamerV2 and DreamerV3."""

OPTIONAL_TASKS = {
    "reverie/CarRacing-v0": OptionalTask("reverie.envs.suites.car_racing:CarRacing", "box2d", 1000),
    "reverie/WorldModelsCarRacing-v0": OptionalTask(
        "reverie.envs.suites.world_models_car_racing:WorldModelsCarRacing", "box2d", 1000
    ),
    "reverie/TakeCover-v0": OptionalTask("reverie.envs.suites.take_cover:TakeCover", "vizdoom", None),
}
"""The tasks of the papers that need an optional package: those of World Models, and the DeepMind Control Suite."""

for _domain, _task in CONTROL_TASKS:
    OPTIONAL_TASKS[f"dmc/{_domain}-{_task}-v0"] = OptionalTask(
        "reverie.envs.suites.deepmind_control:DeepMindControl", "dmc", 1000, kwargs={"domain": _domain, "task": _task}
    )

for _name, _entry_point in TASKS.items():
    if _name not in gymnasium.registry:
        gymnasium.register(id=_name, entry_point=_entry_point)

for _name, _optional in OPTIONAL_TASKS.items():
    if _name not in gymnasium.registry:
        gymnasium.register(
            id=_name,
            entry_point=_optional.entry_point,
            max_episode_steps=_optional.steps,
            kwargs=dict(_optional.kwargs),
        )
