"""What a run does that was told nothing but its environment, and what it says when it cannot learn."""

import json
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from run_helpers import RUN, TINY, metrics, train, words

import reverie
from reverie.agents.registry import AGENTS, PIPELINES, config_class, default_preset, make_config, preset_values, presets
from reverie.cli.main import main
from reverie.spaces import ActionPart, Interface, ObservationPart
from reverie.training.estimate import Costs, duration, time_costs
from reverie.training.settings import TrainSettings
from reverie.training.stored_run import run_defaults

SMALL = {**TINY, **RUN}
del SMALL["preset"]


class Endless(gymnasium.Env):
    """Its episodes do not end."""

    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action):
        return np.zeros(3, np.float32), 1.0, False, False, {}


def interface(image=False, continuous=False):
    observation = ObservationPart("o", "image", (64, 64, 3)) if image else ObservationPart("o", "vector", (4,))
    action = ActionPart("action", "continuous", 1) if continuous else ActionPart("action", "discrete", 1, (2,))
    return Interface((observation,), (action,))


# ---------------------------------------------------------------- which preset


def test_a_cpu_is_quick_and_a_gpu_follows_the_paper():
    assert default_preset("planet", "cpu") == "quick" and default_preset("planet", "cuda") == "paper"
    for agent in AGENTS | PIPELINES:
        assert {"quick", "paper"} <= presets(agent).keys()


@pytest.mark.parametrize(
    ("task", "ratio"),
    [
        (interface(continuous=True), 1024),  # DeepMind Control from vectors
        (interface(), 1024),
        (interface(image=True, continuous=True), 256),  # DeepMind Control from images
        (interface(image=True), 32),  # Atari
    ],
)
def test_the_papers_replay_ratio_belongs_to_the_kind_of_task(task, ratio):
    assert make_config("dreamer-v3", {}, "paper", task).replay_ratio == ratio
    assert make_config("dreamer-v3", {"replay_ratio": 7.0}, "paper", task).replay_ratio == 7


def test_the_older_papers_have_settings_for_control_and_for_atari():
    assert make_config("dreamer-v2", {}, "paper", interface(continuous=True)) == make_config("dreamer-v2", {}, "dmc")
    assert make_config("dreamer-v2", {}, "paper", interface()) == make_config("dreamer-v2", {})
    assert make_config("dreamer-v1", {}, "paper", interface(continuous=True)) == make_config("dreamer-v1", {})
    assert make_config("dreamer-v1", {}, "paper", interface()) == make_config("dreamer-v1", {}, "atari")


def test_presets_name_settings_that_there_are():
    for agent in AGENTS:
        known = config_class(agent).__dataclass_fields__.keys() | TrainSettings.__dataclass_fields__.keys()
        for preset in presets(agent):
            for task in (interface(), interface(image=True), interface(continuous=True)):
                assert preset_values(agent, preset, task).keys() <= known


def test_a_command_with_nothing_but_its_environment(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr("reverie.training.trainer.Trainer.run", lambda self: seen.append(self) or False)
    line = ["train", "dreamer-v3", "--device", "cpu", "--env"]
    assert main([*line, "Pendulum-v1"]) == 130 and main([*line, "reverie/CatchPixels-v0"]) == 130
    learner = reverie.DreamerV3("reverie/CatchPixels-v0", device="cpu", run="other")
    with pytest.raises(KeyboardInterrupt):
        learner.learn()
    for trainer, image in zip(seen, (False, True, True), strict=True):
        values = preset_values("dreamer-v3", "quick", interface(image))
        assert trainer.preset == "quick"
        assert (trainer.settings.steps, trainer.settings.num_envs) == (values["steps"], values["num_envs"])
        assert trainer.config == make_config("dreamer-v3", {}, "quick", interface(image))


def test_a_run_keeps_its_preset_when_it_is_resumed(tmp_path, capsys):
    run = tmp_path / "run"
    assert train(run, steps=100, preset="paper") == 0
    assert train(run, steps=200, preset=None) == 0
    assert json.loads((run / "config.json").read_text())["preset"] == "paper"
    assert reverie.DreamerV3("CartPole-v1", run=run, **SMALL).config.learning_rate == 4e-5


# ---------------------------------------------------------------- what it says before it starts


def test_the_first_lines_tell_preset_ratio_updates_and_time(tmp_path, capsys):
    line = [word for word in words(tmp_path / "run", steps=120, preset=None) if word != "--quiet"]
    assert main(line) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "preset quick · 120 steps · replay ratio 4 · 9 updates of" in said  # 1 + (120 - 50) x 4 / 32
    assert "about" in said


def test_timing_touches_no_random_state():
    config = make_config("dreamer-v3", TINY, "quick")
    torch.manual_seed(3)
    before = torch.get_rng_state()
    costs = time_costs(config, interface(), torch.device("cpu"), torch.float32, num_envs=2)
    assert torch.equal(before, torch.get_rng_state())
    assert 0 < costs.decision < costs.update < 5


def test_seconds_and_how_they_are_said():
    assert Costs(update=0.5, decision=0.01).seconds(updates=100, decisions=1000) == pytest.approx(60)
    said = [duration(seconds) for seconds in (40, 89, 600, 7080, 12_000, 3600 * 30, 86_400 * 8)]
    assert said == ["40 s", "89 s", "10 min", "118 min", "3 h 20 min", "30 h", "8 days"]


# ---------------------------------------------------------------- runs that cannot learn


def test_a_warm_up_longer_than_the_run_is_named_before_and_after(tmp_path):
    learner = reverie.DreamerV3("CartPole-v1", run=tmp_path / "run", **{**SMALL, "warmup_steps": 1000})
    with pytest.warns(UserWarning) as caught:
        learner.learn(60, progress=False)
    before, after = (str(warning.message) for warning in caught)
    assert before.startswith("no update will be made") and "1,000 steps" in before and "60 steps" in before
    assert after.startswith("the agent has not learned") and "no update was made" in after


def test_a_run_too_short_for_one_window_is_named(tmp_path):
    learner = reverie.DreamerV3("CartPole-v1", run=tmp_path / "run", **{**SMALL, "num_envs": 16})
    with pytest.warns(UserWarning, match="a window of 9 steps of one of 16 environments"):
        learner.learn(100, progress=False)


def test_episodes_that_never_end_are_named(tmp_path):
    options = {"evaluation_episodes": 1, "candidates": 10, "elites": 3, "iterations": 1}
    learner = reverie.PlaNet(Endless(), run=tmp_path / "run", preset="quick", **options)
    with pytest.warns(UserWarning, match="waits for the end of 5 episodes; .*time-limit"):
        learner.learn(40, progress=False)


def test_an_evaluation_of_weights_without_updates_says_so(tmp_path, capsys):
    run = tmp_path / "run"
    with pytest.warns(UserWarning):
        reverie.DreamerV3("CartPole-v1", run=run, **{**SMALL, "warmup_steps": 1000}).learn(60, progress=False)
    assert main(["evaluate", str(run), "--episodes", "1"]) == 0
    assert "has made no update" in capsys.readouterr().err
    learner = reverie.load(run)
    learner.save(tmp_path / "saved")
    with pytest.warns(UserWarning, match="has made no update"):
        reverie.load(tmp_path / "saved").evaluate(1)


def test_a_run_that_learns_says_nothing_of_it(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reverie.DreamerV3("CartPole-v1", run=tmp_path / "run", **SMALL).learn(200, progress=False)
        reverie.load(tmp_path / "run").evaluate(1)


# ---------------------------------------------------------------- ending early


def test_a_run_ends_when_an_evaluation_is_good_enough(tmp_path, capsys):
    run = tmp_path / "run"
    assert train(run, steps=400, evaluate_every=100, stop_at=5) == 0
    assert metrics(run)[-1]["env_steps"] < 120
    scores = json.loads((run / "scores.json").read_text())
    assert len(scores) == 1 and scores[0]["mean"] >= 5
    assert train(run, steps=400, evaluate_every=100, stop_at=5) == 0  # complete: changes nothing
    assert json.loads((run / "scores.json").read_text()) == scores
    assert train(run, steps=200, evaluate_every=100) == 0
    assert len(json.loads((run / "scores.json").read_text())) == 2


@pytest.mark.parametrize(
    ("steps", "chosen", "warmup"),
    [(None, {}, 8000), (40_000, {}, 8000), (10_000, {}, 2000), (3, {}, 1), (10_000, {"warmup_steps": 9000}, 9000)],
)
def test_the_warm_up_of_a_short_run_is_a_fifth_of_it_unless_it_was_chosen(steps, chosen, warmup, tmp_path):
    _, values = run_defaults("dreamer-v3", None, "quick", stored=None, interface=interface(), steps=steps)
    assert {**values, **chosen}["warmup_steps"] == warmup
    if steps == 10_000:
        learner = reverie.DreamerV3("CartPole-v1", run=tmp_path / "run", steps=steps, preset="quick", **chosen)
        assert learner.config.warmup_steps == warmup
