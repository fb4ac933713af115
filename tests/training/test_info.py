"""Numbers of the environment's info, evaluations and settings in metrics.jsonl, scores.json and TensorBoard."""

import json
import math

import gymnasium
import numpy as np
import pytest
from run_helpers import RUN, TINY, Tells, assert_same_run, metrics, train, words

import reverie
from reverie.cli.main import main
from reverie.envs import EnvironmentSource, make_pool
from reverie.envs.episodes import info_number, info_numbers
from reverie.errors import ConfigError
from reverie.training.metrics import read_metrics
from reverie.training.pipeline.players import Players
from reverie.training.pipeline.policies import Job, RandomPolicy
from reverie.training.settings import TrainSettings

NAMES = ("success", "stats/height")


@pytest.mark.parametrize(
    ("value", "number"),
    [(True, 1.0), (np.bool_(False), 0.0), (3, 3.0), (np.float32(0.5), 0.5), (np.array([7]), 7.0), (np.array(2), 2.0)]
    + [(value, math.nan) for value in ("x", None, [1, 2], np.nan, np.inf, {}, object(), 10**400, [[1], [2, 3]])],
)
def test_what_counts_as_a_number(value, number):
    info = {"here": value, "below": {"deep": {"er": value}}, "a/b": value}
    for name in ("here", "below/deep/er", "a/b"):
        assert info_number(info, name) == pytest.approx(number, nan_ok=True)
    assert math.isnan(info_number(info, "nowhere")) and math.isnan(info_number(info, "here/er"))
    assert math.isnan(info_number(None, "here"))
    assert info_numbers(info) == ([] if math.isnan(number) else ["a/b", "below/deep/er", "here"])


@pytest.mark.parametrize("vectorization", ["in-process", "workers"])
def test_numbers_of_every_environment(vectorization):
    with make_pool(EnvironmentSource(Tells), 2, 0, vectorization, info=(*NAMES, "text")) as pool:
        steps = pool.reset()
        assert all(np.isnan(values).all() for values in steps.info.values())
        for _ in range(5):
            steps = pool.step(np.eye(2, dtype=np.float32))
    assert steps.is_last.all()
    assert set(steps.info["success"]) <= {0, 1} and steps.info["stats/height"].tolist() == [5, 5]
    assert np.isnan(steps.info["text"]).all()


def learner(run, **settings):
    return reverie.DreamerV3(Tells, run=run, **{**TINY, **RUN, "vectorization": "in-process", **settings})


def test_they_are_logged_and_evaluated(tmp_path):
    agent = learner(tmp_path, info=NAMES)
    agent.learn(200, progress=False)
    lines = metrics(tmp_path)
    training = [line for line in lines if "episode/count" in line]
    assert training and all(line["info/stats/height"] == 5 for line in training)
    count = sum(line["episode/count"] for line in training)
    successes = sum(line["info/success"] * line["episode/count"] for line in training)
    assert 0.2 < successes / count < 0.8
    (line,) = [line for line in lines if "evaluation/return" in line]
    assert line["evaluation/return"] == 5 == line["evaluation/length"] and line["evaluation/return_std"] == 0
    (score,) = json.loads((tmp_path / "scores.json").read_text())
    assert score["info"] == {"success": line["evaluation/info/success"], "stats/height": 5}
    loaded = reverie.load(tmp_path, environment=Tells)
    result = loaded.evaluate(20)
    assert result.info["stats/height"] == [5] * 20 and set(result.info["success"]) == {0, 1}
    assert loaded.evaluate(1, info="stats/height").info == {"stats/height": [5]}
    with pytest.warns(UserWarning, match="no number 'height', 'text' at the end of any episode"):
        assert set(loaded.evaluate(1, info=("height", "text", "success")).info) == {"success"}


def test_a_resumed_run_has_the_same_numbers(tmp_path):
    for name, stops in (("whole", (150,)), ("parts", (70, 150))):
        for steps in stops:
            learner(tmp_path / name, info=NAMES, evaluate_every=70, log_every=35).learn(steps, progress=False)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_names_must_be_names():
    assert TrainSettings(info=["a", "b"]).info == ("a", "b") and TrainSettings(info="a").info == ("a",)
    for wrong in (3, ("",), (None,), None):
        with pytest.raises(ConfigError, match="info must be names"):
            TrainSettings(info=wrong)


def test_on_the_command_line(tmp_path, capsys):
    gymnasium.register("Tells-v0", entry_point="run_helpers:Tells")
    try:
        assert (
            main([*words(tmp_path, "Tells-v0", vectorization="in-process"), "--info", "success", "stats/height"]) == 0
        )
        assert main(["evaluate", str(tmp_path), "--episodes", "3"]) == 0
        out = capsys.readouterr().out
        assert "success  " in out and "stats/height      5 in" in out
        assert main(["evaluate", str(tmp_path), "--episodes", "1", "--info", "success"]) == 0
        assert "stats/height" not in capsys.readouterr().out
    finally:
        gymnasium.registry.pop("Tells-v0")


def test_the_log_has_evaluations_and_settings(tmp_path):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    assert train(tmp_path, steps=60, entropy=2e-4) == 0
    assert train(tmp_path, steps=90, entropy=2e-4) == 0
    found = {}
    for file in sorted((tmp_path / "tensorboard").iterdir()):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value))
    assert [step for step, _ in found["evaluation/return"]] == [60, 90]
    assert found["_hparams_/session_start_info"][0][1].metadata.plugin_data.plugin_name == "hparams"
    assert len(found["_hparams_/session_start_info"]) == 1
    (_, table), *_ = found["hyperparameters/text_summary"]
    text = table.tensor.string_val[0].decode()
    assert (
        "| entropy | 0.0002 |" in text and "| environment | CartPole-v1 |" in text and "| agent | dreamer-v3 |" in text
    )
    first, *others = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    settings = first["hyperparameters"]
    assert (settings["entropy"], settings["environment"], settings["agent"]) == (2e-4, "CartPole-v1", "dreamer-v3")
    assert not any("hyperparameters" in line for line in others)
    assert not any("hyperparameters" in line for line in read_metrics(tmp_path))


@pytest.mark.parametrize("processes", [0, 1])
def test_the_players_of_world_models_pass_them_on(processes):
    source = EnvironmentSource(Tells)
    policy = RandomPolicy(source.make().interface.actions, 1, "held")
    players = Players(source, processes, 2, ("success", "stats/height", "text"))
    try:
        episodes = list(players.play(policy, [Job(seed) for seed in range(12)], longest=100))
    finally:
        players.close()
    assert [episode.info["stats/height"] for episode in episodes] == [5] * 12
    assert {episode.info["success"] for episode in episodes} == {0, 1}
    assert all(math.isnan(episode.info["text"]) for episode in episodes)


def telling_catch():
    """Pictures, and info that tells whether the last one was caught."""
    return Catching(gymnasium.make("reverie/CatchPixels-v0"))


class Catching(gymnasium.Wrapper):
    def step(self, action):
        observation, reward, terminated, truncated, _ = self.env.step(action)
        return observation, reward, terminated, truncated, {"caught": reward > 0}


def test_world_models_logs_them(tmp_path):
    settings = {"latent": 3, "memory_units": 8, "collect_episodes": 3, "vision_batch": 20, "memory_updates": 1}
    settings |= {"memory_batch": 2, "memory_length": 5, "population": 4, "rollouts": 1, "generations": 1}
    settings |= {"evolve_in": "environment", "evaluation_episodes": 2}
    agent = reverie.WorldModels(
        telling_catch, run=tmp_path, preset="paper", vectorization="in-process", info="caught", **settings
    )
    agent.learn(progress=False)
    lines = metrics(tmp_path)
    tried = [line["info/caught"] for line in lines if "episode/return" in line]
    assert len(tried) == 1 and 0 <= tried[0] <= 1
    (share,) = [line["evaluation/info/caught"] for line in lines if "evaluation/return" in line]
    assert share in (0, 0.5, 1)
    assert json.loads((tmp_path / "scores.json").read_text())[-1]["info"] == {"caught": share}
    assert agent.evaluate(2).info.keys() == {"caught"}
