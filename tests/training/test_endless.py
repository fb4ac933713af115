"""Episodes that never end: evaluations are bounded, and what to do is said."""

import json
import os
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import reverie
from reverie.agents.schedule import Schedule
from reverie.cli.main import main
from reverie.envs import EnvironmentSource, make_pool
from reverie.errors import ConfigError
from reverie.training import endless, evaluation
from reverie.training.checkpoint import newest_state
from reverie.training.endless import EndlessEpisodes
from reverie.training.evaluation import EPISODE_LIMIT, LEAST_LIMIT, Playing, episode_limit

sys.path.insert(0, str(Path(__file__).parent))
from run_helpers import RUN, TINY, Walk  # noqa: E402

WAITS = Schedule(warmup_episodes=5, per_episode=100)
SPREAD = Schedule(warmup_steps=1_000, per_step=0.1)


class Endless(Walk):
    """Never ends an episode, and counts how far the longest has come."""

    furthest = 0

    def __init__(self):
        super().__init__(length=10**9)

    def step(self, action):
        result = super().step(action)
        Endless.furthest = max(Endless.furthest, self.elapsed)
        return result


def learner(tmp_path, environment=Endless, **settings):
    chosen = {**TINY, **RUN, "vectorization": "in-process", "num_envs": 2, **settings}
    return reverie.DreamerV3(environment, run=tmp_path / "run", **chosen)


def test_the_limit_is_what_training_has_seen():
    assert episode_limit(None) == EPISODE_LIMIT
    assert episode_limit(0) == episode_limit(49) == LEAST_LIMIT == 500
    assert episode_limit(212) == 2_120


def test_an_evaluation_of_an_endless_task_is_cut_off_and_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evaluation, "LEAST_LIMIT", 25)
    Endless.furthest = 0
    with pytest.warns(UserWarning, match="2 of 2 evaluated episodes had not ended after 25 decisions.*--time-limit"):
        agent = learner(tmp_path).learn(40)
    assert Endless.furthest == 25
    said = capsys.readouterr().err
    assert "no episode has ended in 40 steps, so evaluated ones are cut off after 25 decisions" in said
    assert "over 2 episodes, 2 of them cut off after 25 decisions" in said
    score = json.loads((tmp_path / "run" / "scores.json").read_text())[0]
    assert (score["cut_off"], score["episode_limit"], score["lengths"]) == (2, 25, [25, 25])
    agent.save(tmp_path / "saved")
    for path in (tmp_path / "run", tmp_path / "saved"):
        loaded = reverie.load(path, environment=Endless)
        with pytest.warns(UserWarning, match="after 25 decisions"):
            assert loaded.evaluate(1).lengths == [25]


def test_the_best_of_shorter_episodes_is_forgotten(tmp_path, monkeypatch):
    """Where every step costs something, evaluations that are cut off sooner look better."""

    class Costs(Walk):
        def step(self, action):
            observation, _, terminated, _, information = super().step(action)
            return observation, -1.0, terminated, self.elapsed >= int(os.environ["END_OF_EPISODES"]), information

    monkeypatch.setenv("END_OF_EPISODES", "1000000000")
    monkeypatch.setattr(evaluation, "LEAST_LIMIT", 5)
    with pytest.warns(UserWarning, match="after 5 decisions"):
        learner(tmp_path, Costs).learn(40, progress=False)
    monkeypatch.setenv("END_OF_EPISODES", "18")
    with pytest.warns(UserWarning, match="did not return to where it was"):
        learner(tmp_path, Costs).learn(100, progress=False)
    means = [score["mean"] for score in json.loads((tmp_path / "run" / "scores.json").read_text())]
    assert means == [-5, -18]
    state = newest_state(tmp_path / "run")
    assert state["best"] == -18 and state["collector"]["longest"] == 18


def test_a_limit_of_ones_own_is_kept_without_a_warning(tmp_path):
    agent = learner(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = agent.evaluate(17, episode_limit=7)
    assert result.lengths == [7] * 17 and result.cut_off == 17, "the second episode of an environment begins anew"
    with pytest.raises(ConfigError, match="episode_limit must be at least 1, got 0"):
        agent.evaluate(1, episode_limit=0)


def test_a_dream_plays_no_more_than_it_shows(tmp_path):
    agent = learner(tmp_path)
    agent._trained, Endless.furthest = True, 0
    assert agent.dream(10, 2).reward[0].shape == (2, 10)
    assert Endless.furthest <= 100


def test_a_time_limit_is_known_to_pools():
    limited = EnvironmentSource(Walk, time_limit=15, action_repeat=4)
    for source, limit in ((limited, 4), (EnvironmentSource(Walk), None), (EnvironmentSource("CartPole-v1"), 500)):
        with make_pool(source, 2, 0, "in-process") as pool:
            assert pool.time_limit == limit
    with make_pool(EnvironmentSource("CartPole-v1"), 1, 0, "workers") as pool:
        assert pool.time_limit == 500
    with make_pool(limited, 1, 0) as pool:
        pool.reset()
        ends = [bool(pool.step(np.zeros((1, 2), np.float32)).is_last[0]) for _ in range(4)]
    assert ends == [False, False, False, True]


def test_a_cut_off_episode_is_followed_by_a_new_one():
    with make_pool(Walk, 2, 0, "in-process") as pool:
        pool.reset()
        for _ in range(3):
            pool.step(np.zeros((2, 2), np.float32))
        pool.cut_off(np.array([True, False]))
        steps = pool.step(np.zeros((2, 2), np.float32))
    assert steps.is_first.tolist() == [True, False] and pool.episodes.tolist() == [1, 0]


@pytest.mark.parametrize("schedule", [WAITS, SPREAD])
def test_a_missing_time_limit_is_named_once(schedule):
    watch = EndlessEpisodes(schedule, time_limit=None, num_envs=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch.look(1_999, 0)
        watch.look(5_000, 1)
    with pytest.warns(UserWarning) as seen:
        watch.look(2_000, 0)
        watch.look(2_001, 0)
    (warning,) = seen
    assert "no episode has ended in 2,000 steps" in str(warning.message) and "--time-limit" in str(warning.message)
    assert ("no update is made until 5 episodes have ended" in str(warning.message)) == (schedule is WAITS)


def test_long_episodes_with_a_time_limit_are_waited_for():
    watch = EndlessEpisodes(WAITS, time_limit=1_000_000, num_envs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch.look(900_000, 0)


def test_an_agent_that_waits_for_episodes_says_so(tmp_path, capsys, monkeypatch):
    class Continuous(Endless):
        action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

        def step(self, action):
            return super().step(action[0])

    monkeypatch.setattr(endless, "STEPS_WITHOUT_END", 40)
    with pytest.warns(UserWarning, match="no update is made until 5 episodes have ended"):
        reverie.PlaNet(Continuous(), run=tmp_path / "run", preset="quick", log_every=20).learn(60)
    assert "no update is made until 5 episodes have ended" in capsys.readouterr().err


def test_an_evaluation_tells_how_far_it_is(tmp_path):
    seen: list[Playing] = []
    agent = learner(tmp_path, environment=Walk)
    agent.evaluate(3, watch=seen.append, episode_limit=40)
    shares = [playing.share for playing in seen]
    assert [playing.finished for playing in seen] == [0] * 20
    assert seen[9].decisions == 30 and shares[9] == 10 / 40, "as long as nothing has ended the limit is expected"
    agent.evaluate(17, watch=seen.append, episode_limit=40)
    assert seen[-1].finished == 16 and seen[-1].episodes == 17 and seen[-1].share == pytest.approx(41 / 42)


def test_evaluate_shows_the_limit(tmp_path, capsys):
    run = tmp_path / "run[lr=1e-4]"
    reverie.DreamerV3("RunTestWalk-v0", **TINY).save(run)
    assert main(["evaluate", str(run), "--episodes", "2", "--episode-limit", "5"]) == 0
    printed = capsys.readouterr()
    assert "cut off           2 episodes, after 5 decisions" in printed.out
    assert main(["evaluate", str(run), "--episodes", "2"]) == 0
    assert "cut off" not in capsys.readouterr().out
