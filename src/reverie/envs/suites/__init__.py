"""Small tasks of our own, each asking one thing of an agent; importing this registers their ids."""

import gymnasium

TASKS = {
    "reverie/CatchPixels-v0": "reverie.envs.suites.catch_pixels:CatchPixels",
    "reverie/Identity-v0": "reverie.envs.suites.identity:Identity",
    "reverie/RepeatPrevious-v0": "reverie.envs.suites.repeat_previous:RepeatPrevious",
    "reverie/TMaze-v0": "reverie.envs.suites.t_maze:TMaze",
}

for _name, _entry_point in TASKS.items():
    if _name not in gymnasium.registry:
        gymnasium.register(id=_name, entry_point=_entry_point)
