"""Tasks of our own; importing this registers their ids, and no task is imported before it is made."""

import gymnasium

TASKS = {
    "reverie/CatchPixels-v0": "reverie.envs.suites.catch_pixels:CatchPixels",
    "reverie/Identity-v0": "reverie.envs.suites.identity:Identity",
    "reverie/RepeatPrevious-v0": "reverie.envs.suites.repeat_previous:RepeatPrevious",
    "reverie/TMaze-v0": "reverie.envs.suites.t_maze:TMaze",
}
"""Small tasks, each asking one thing of an agent: id and class."""

OPTIONAL_TASKS = {
    "reverie/CarRacing-v0": ("reverie.envs.suites.car_racing:CarRacing", "box2d", 1000),
    "reverie/WorldModelsCarRacing-v0": (
        "reverie.envs.suites.world_models_car_racing:WorldModelsCarRacing",
        "box2d",
        1000,
    ),
    "reverie/TakeCover-v0": ("reverie.envs.suites.take_cover:TakeCover", "vizdoom", None),
}
"""The tasks of World Models, which need an optional package: id, class, extra, and steps after which Gymnasium
truncates."""

for _name, _entry_point in TASKS.items():
    if _name not in gymnasium.registry:
        gymnasium.register(id=_name, entry_point=_entry_point)

for _name, (_entry_point, _, _steps) in OPTIONAL_TASKS.items():
    if _name not in gymnasium.registry:
        gymnasium.register(id=_name, entry_point=_entry_point, max_episode_steps=_steps)
