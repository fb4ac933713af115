"""One signal stops a run whose environment hangs, with a checkpoint from which it continues."""

import os
import signal
import threading
import time

import gymnasium
import numpy as np
import pytest

import reverie
from reverie.envs import calls


class Hangs(gymnasium.Env):
    """Sleeps in its eighth step until a file is there, which it makes itself."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, flag):
        self.flag, self.total = flag, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.elapsed = 0
        return self.observation_space.high, {}

    def step(self, action):
        self.elapsed, self.total = self.elapsed + 1, self.total + 1
        if self.total == 8 and not os.path.exists(self.flag):
            open(self.flag, "w").close()
            time.sleep(600)
        return self.observation_space.high, 1.0, False, self.elapsed >= 5, {}


@pytest.mark.parametrize("place", ["in-process", "workers"])
def test_one_signal_stops_a_run_whose_environment_hangs(tmp_path, monkeypatch, place):
    monkeypatch.setattr(calls, "GRACE_SECONDS", 0.3)
    flag = tmp_path / "flag"

    def signal_when_it_hangs():
        while not flag.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    settings = {"size": "100k", "num_envs": 2, "evaluate_every": 0, "evaluation_episodes": 1, "videos": False}
    source = reverie.envs.EnvironmentSource(Hangs, kwargs={"flag": str(flag)})
    agent = reverie.DreamerV3(source, run=tmp_path / "run", device="cpu", vectorization=place, **settings)
    threading.Thread(target=signal_when_it_hangs, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        agent.learn(30, progress=False)
    assert [int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()] == [14]
    with pytest.warns(UserWarning, match="count as truncated"):
        agent.learn(30, progress=False)
    assert agent.evaluate(1).returns == [5.0]
