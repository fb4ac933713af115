"""Wrappers with a memory are told of once."""

import warnings
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from env_helpers import Scripted

from reverie.envs import EnvironmentSource


class Own(gymnasium.ObservationWrapper):
    """Normalizes by itself, in one of several ways."""

    def __init__(self, env, how):
        super().__init__(env)
        statistics = SimpleNamespace(mean=np.zeros(1), var=np.ones(1), count=0)
        if how == "attributes":
            self.mean, self.std, self.n = 0.0, 1.0, 0
        elif how == "dictionary":
            self.statistics = {"observation": statistics}
        elif how == "private":
            self._rms = SimpleNamespace(_mean=0.0, _var=1.0, _count=0)
        else:
            self.rms = torch.nn.BatchNorm1d(1)
            for name in ("mean", "var", "count"):
                self.rms.register_buffer(name, torch.zeros(1))

    def observation(self, observation):
        return observation


def frozen():
    environment = gymnasium.wrappers.NormalizeObservation(Scripted())
    environment.update_running_mean = False
    return environment


@pytest.mark.parametrize(
    "make",
    [
        lambda: gymnasium.wrappers.NormalizeObservation(Scripted()),
        lambda: gymnasium.wrappers.NormalizeReward(Scripted()),
        lambda: gymnasium.wrappers.TimeLimit(gymnasium.wrappers.NormalizeReward(Scripted()), 9),
        *(lambda how=how: Own(Scripted(), how) for how in ("attributes", "dictionary", "private", "module")),
    ],
)
def test_running_statistics_are_told_of_once(make):
    source = EnvironmentSource(make)
    with pytest.warns(UserWarning, match="running statistics.*evaluation, loading and resuming begin without") as seen:
        source.make()
        source.make()
    assert len(seen) == 1


@pytest.mark.parametrize(
    "make",
    [
        Scripted,
        frozen,
        lambda: gymnasium.wrappers.RecordEpisodeStatistics(Scripted()),
        lambda: gymnasium.wrappers.TimeAwareObservation(gymnasium.wrappers.TimeLimit(Scripted(), 9)),
        lambda: gymnasium.wrappers.FrameStackObservation(Scripted(), 4),
        lambda: gymnasium.make("CartPole-v1"),
    ],
)
def test_other_wrappers_give_no_cause(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        EnvironmentSource(make).make()
