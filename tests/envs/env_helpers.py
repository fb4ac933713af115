"""Environments that misbehave in one way each; a module of its own so that worker processes can import it."""

import os
import sys
import time

import gymnasium
import numpy as np

ONE = gymnasium.spaces.Box(-10, 10, (1,), np.float32)


class Scripted(gymnasium.Env):
    """Shows and returns what it is told; episodes end after `length` steps."""

    metadata = {"render_modes": []}

    def __init__(
        self, observation=None, reward=1.0, space=ONE, action_space=None, length=5, terminate=False, after_reset=None
    ):
        self.observation_space = space
        self.action_space = action_space or gymnasium.spaces.Discrete(2)
        self.shown = np.zeros(1, np.float32) if observation is None else observation
        self.after_reset = self.shown if after_reset is None else after_reset
        self.reward, self.length, self.terminate = reward, length, terminate
        self.seeds, self.actions, self.closed = [], [], False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.elapsed = 0
        return self.after_reset, {}

    def step(self, action):
        self.elapsed += 1
        self.actions.append(action)
        ended = self.elapsed >= self.length
        return self.shown, self.reward, ended and self.terminate, ended and not self.terminate, {"step": self.elapsed}

    def close(self):
        self.closed = True


class Returns(Scripted):
    """Returns fixed results from reset and step, whatever they are."""

    def __init__(self, reset_result=None, step_result=None):
        super().__init__()
        self.reset_result, self.step_result = reset_result, step_result

    def reset(self, *, seed=None, options=None):
        return self.reset_result or super().reset(seed=seed)

    def step(self, action):
        return self.step_result or super().step(action)


class Noisy(Scripted):
    """Observation drawn from the episode's seed; the reward counts steps."""

    def __init__(self, length=7, terminate=False):
        super().__init__(length=length, terminate=terminate)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._draw(), {}

    def step(self, action):
        _, _, terminated, truncated, info = super().step(action)
        return self._draw(), float(self.elapsed), terminated, truncated, info

    def _draw(self):
        return self.np_random.uniform(-1, 1, 1).astype(np.float32)


class Exits(Noisy):
    """Ends its own process on step `at` when `flag` names no file yet (then creates it), or always without one."""

    def __init__(self, at=3, flag=None):
        super().__init__()
        self.at, self.flag = at, flag

    def step(self, action):
        if self.elapsed + 1 == self.at and (self.flag is None or not os.path.exists(self.flag)):
            if self.flag is not None:
                open(self.flag, "w").close()
            os._exit(7)
        return super().step(action)


class ExitsInReset(Noisy):
    """Ends its own process in its second reset, once."""

    def __init__(self, flag):
        super().__init__(length=2)
        self.flag, self.resets = flag, 0

    def reset(self, *, seed=None, options=None):
        self.resets += 1
        if self.resets == 2 and not os.path.exists(self.flag):
            open(self.flag, "w").close()
            os._exit(7)
        return super().reset(seed=seed)


class Raises(Noisy):
    """Raises in its third step."""

    def step(self, action):
        if self.elapsed == 2:
            raise KeyError("the_lost_key")
        return super().step(action)


class Hangs(Noisy):
    """Sleeps for a long time in its third step, once."""

    def __init__(self, flag):
        super().__init__()
        self.flag = flag

    def step(self, action):
        if self.elapsed == 2 and not os.path.exists(self.flag):
            open(self.flag, "w").close()
            time.sleep(600)
        return super().step(action)


class Slow(Noisy):
    """Takes 3 ms a step."""

    def step(self, action):
        time.sleep(0.003)
        return super().step(action)


class Frames(Noisy):
    """Renders frames that tell the step number, and counts them."""

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None, side=100):
        super().__init__()
        self.render_mode, self.side, self.rendered = render_mode, side, 0

    def render(self):
        self.rendered += 1
        return np.full((self.side, self.side, 3), self.elapsed, np.uint8)


class Own(BaseException):
    """Neither an Exception nor an interrupt."""


class Bad(Scripted):
    """Does something in one of its methods."""

    metadata = {"render_modes": ["rgb_array"]}
    render_mode = "rgb_array"

    def __init__(self, where, deed):
        super().__init__()
        self.where, self.deed = where, deed
        self._at("make")

    def _at(self, where):
        if where == self.where:
            self.deed()

    def reset(self, *, seed=None, options=None):
        self._at("reset")
        return super().reset(seed=seed)

    def step(self, action):
        self._at("step")
        return super().step(action)

    def render(self):
        self._at("render")

    def close(self):
        self._at("close")


def leave():
    sys.exit("the license has run out")


def spin():
    while True:
        pass


def nap():
    time.sleep(0.6)


def one_hot(index, classes=2):
    return np.eye(classes, dtype=np.float32)[index]
