"""Train on an environment of your own, with a Dict observation and a continuous action.

python examples/custom_environment.py          a quarter of an hour on a CPU; -45 before training
python examples/custom_environment.py --tiny   some seconds, learns nothing
"""

# ruff: noqa: ANN001, ANN201, ANN202, ANN204, D102
import sys

import gymnasium
import numpy as np

import reverie


class Follow(gymnasium.Env):
    """Move a point on a line to a target; the reward of a step is minus the distance, the best return about -1.4."""

    def __init__(self):
        box = gymnasium.spaces.Box(-2, 2, (1,), np.float32)
        self.observation_space = gymnasium.spaces.Dict({"position": box, "target": box})
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)  # random numbers come from self.np_random, so that episodes can be repeated
        self.position, self.target, self.steps = self.np_random.uniform(-1, 1, 2).tolist() + [0]
        return self._observe(), {}

    def step(self, action):
        self.position = float(np.clip(self.position + 0.2 * action[0], -2, 2))
        self.steps += 1
        return self._observe(), -abs(self.position - self.target), False, self.steps == 50, {}

    def _observe(self):
        return {name: np.array([getattr(self, name)], np.float32) for name in ("position", "target")}


steps, settings = None, {}  # as many steps as the preset says
if "--tiny" in sys.argv:
    steps = 200
    settings = {"size": "100k", "deterministic": 32, "hidden": 16, "units": 16, "variables": 4, "classes": 4}
    settings |= {"batch_size": 4, "batch_length": 8, "horizon": 3, "warmup_steps": 50, "replay_ratio": 16}
    settings |= {"videos": False, "evaluate_every": 0, "evaluation_episodes": 2}

# The class itself is the function that makes environments.
agent = reverie.DreamerV3(Follow, run="runs/follow", **settings)
print("mean return before training:", agent.evaluate(episodes=10).mean)
print("mean return after training:", agent.learn(steps).evaluate(episodes=10).mean)
