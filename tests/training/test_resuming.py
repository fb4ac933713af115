"""Going on: after an upgrade, with other settings, from another run's weights, and after a fault of the environment."""

import json
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from run_helpers import RUN, TINY, Walk, checkpoints, expect_sentence, train, words

import reverie
import reverie.agents.dreamer_v3 as dreamer_v3
from reverie.cli.main import main
from reverie.errors import ConfigError, EnvironmentProblem, RunFolderError
from reverie.training.collector import Collector

STORED = Path(__file__).parent / "stored"
SMALL = {**TINY, **RUN, "num_envs": 2, "steps": 60}


def config(run):
    return json.loads((run / "config.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("finished") / "run"
    assert train(run, env="RunTestWalk-v0", steps=60, num_envs=2) == 0
    return run


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


# ---------------------------------------------------------------- versions


@pytest.mark.parametrize("stored", sorted(STORED.glob("version_*[0-9]"), key=str), ids=lambda path: path.name)
def test_runs_of_earlier_versions_resume_and_act(stored, tmp_path):
    run = shutil.copytree(stored, tmp_path / "run")
    before = config(run)
    agent = reverie.DreamerV3("CartPole-v1", run=run).learn(90, progress=False)
    assert agent.config.units == before["agent_config"]["units"], "a run keeps its settings, whatever presets say now"
    assert [score["env_steps"] for score in json.loads((run / "scores.json").read_text())][:2] == [60, 64]
    for path in (stored, stored.with_name(f"{stored.name}_saved")):
        assert reverie.load(path).predict(np.zeros(4, np.float32))[0] in (0, 1)


def test_a_version_with_one_more_setting_resumes(run, monkeypatch):
    @dataclass(frozen=True)
    class NextVersion(dreamer_v3.DreamerV3Config):
        new_option: float = 1.0

    NextVersion.__module__ = dreamer_v3.__name__
    monkeypatch.setattr(dreamer_v3, "DreamerV3Config", NextVersion)
    monkeypatch.setitem(dreamer_v3.PRESETS, "paper", {"new_option": 2.0})
    agent = reverie.DreamerV3("RunTestWalk-v0", run=run).learn(80, progress=False)
    assert agent.config.new_option == 1.0, "what the version without it did, not what a preset of today says"
    with pytest.raises(RunFolderError, match="new_option is 1.0 there and 3.0 here"):
        reverie.DreamerV3("RunTestWalk-v0", run=run, new_option=3.0, change=False).learn(100, progress=False)


def test_a_setting_of_a_later_version_is_named(run, capsys):
    description = config(run)
    description["agent_config"]["from_the_future"] = 1
    (run / "config.json").write_text(json.dumps(description))
    code = main(words(run, env="RunTestWalk-v0", steps=80, num_envs=2, preset=None))
    expect_sentence(capsys, code, "from_the_future", "version")


def test_presets_that_changed_do_not_strand_a_run(run, monkeypatch):
    monkeypatch.setitem(dreamer_v3.PRESETS, "paper", {"learning_rate": 0.5, "num_envs": 9})
    agent = reverie.DreamerV3("RunTestWalk-v0", run=run)
    assert agent.config.learning_rate == 4e-5
    agent.learn(70, progress=False)
    assert config(run)["settings"]["num_envs"] == 2


# ---------------------------------------------------------------- other settings

CHANGES = {
    "learning_rate": 1e-3,
    "replay_ratio": 8.0,
    "batch_size": 2,
    "batch_length": 6,
    "entropy": 1e-2,
    "replay_capacity": 5_000,
    "horizon": 2,
    "discount_horizon": 50.0,
}
TIED = {"units": 8, "variables": 8, "deterministic": 64, "replay_context": 0}


def test_settings_without_stored_tensors_change_on_demand(run, capsys):
    line = words(run, env="RunTestWalk-v0", num_envs=2, **{**CHANGES, "steps": 100})
    expect_sentence(capsys, main(line), "is 4", "there", "--change")
    assert main([*line, "--change"]) == 0
    after = config(run)
    assert {name: after["agent_config"][name] for name in CHANGES} == CHANGES
    (change,) = after["changes"]
    assert change["env_steps"] == 60 and change["settings"]["batch_size"] == [4, 2]
    assert main([*words(run, env="RunTestWalk-v0", num_envs=2, **{**CHANGES, "steps": 120})]) == 0
    assert config(run)["changes"] == after["changes"]


@pytest.mark.parametrize("name", TIED)
def test_settings_that_tensors_depend_on_do_not_change(run, capsys, name):
    before = config(run)
    line = words(run, env="RunTestWalk-v0", num_envs=2, steps=100, **{name: TIED[name]})
    expect_sentence(capsys, main([*line, "--change"]), name, "tensors depend")
    assert config(run) == before


@pytest.mark.parametrize(("name", "value"), [("num_envs", 3), ("replay_storage", "disk")])
def test_settings_of_the_run_do_not_change(run, capsys, name, value):
    line = words(run, env="RunTestWalk-v0", **{"num_envs": 2, "steps": 100, name: value})
    assert "--change" not in expect_sentence(capsys, main([*line, "--change"]), name)


def test_in_python_a_named_folder_is_the_demand(run, tmp_path, monkeypatch):
    options = {**SMALL, "learning_rate": 1e-3}
    with pytest.raises(RunFolderError, match="learning_rate"):
        reverie.DreamerV3("RunTestWalk-v0", run=run, change=False, **options).learn(80, progress=False)
    with pytest.warns(UserWarning, match="continues with learning_rate 0.001 instead of 4e-05"):
        reverie.DreamerV3("RunTestWalk-v0", run=run, **options).learn(80, progress=False)
    monkeypatch.chdir(tmp_path)
    reverie.DreamerV3("RunTestWalk-v0", **SMALL).learn(60, progress=False)
    with pytest.raises(RunFolderError, match="learning_rate"):
        reverie.DreamerV3("RunTestWalk-v0", **options).learn(80, progress=False)


# ---------------------------------------------------------------- beginning with another run


def weights(agent):
    return {name: value.clone() for name, value in agent.agent.state_dict().items()}


def test_a_run_begins_with_the_weights_of_another(finished, tmp_path, capsys):
    run = tmp_path / "next"
    line = words(run, env="RunTestWalk-v0", num_envs=2, steps=20)  # ends within the warm-up: the weights stay
    assert main([*line, "--from", str(finished)]) == 0
    first, second = (weights(reverie.load(path, checkpoint="best")) for path in (finished, run))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert config(run)["from"] == {"run": str(finished), "checkpoint": "best", "replay": False, "env_steps": 60}
    assert main([*words(run, env="RunTestWalk-v0", num_envs=2, steps=70), "--from", str(finished)]) == 0, "it resumes"
    capsys.readouterr()
    expect_sentence(capsys, main([*line, "--from", str(run)]), str(finished), str(run))


def test_a_run_begins_with_the_experience_of_another(finished, tmp_path):
    agent = reverie.DreamerV3("RunTestWalk-v0", run=tmp_path / "next", **SMALL)
    agent.learn(60, progress=False, from_=finished, from_replay=True)
    first, *_ = (json.loads(line) for line in (tmp_path / "next" / "metrics.jsonl").read_text().splitlines())
    assert first["replay/rows"] > first["env_steps"] + 60


def test_settings_come_from_the_run_that_it_begins_with(finished, tmp_path):
    agent = reverie.DreamerV3("RunTestWalk-v0", run=tmp_path / "next", num_envs=2, videos=False, evaluation_episodes=1)
    agent.learn(20, progress=False, from_=finished)
    assert agent.config.units == TINY["units"]
    agent.save(tmp_path / "saved")
    other = reverie.DreamerV3("RunTestWalk-v0", run=tmp_path / "third", num_envs=2, videos=False, evaluation_episodes=1)
    other.learn(20, progress=False, from_=tmp_path / "saved")
    assert other.config == agent.config


def test_trained_weights_act_in_the_warm_up(finished, tmp_path, monkeypatch):
    purposes, real = [], Collector.collect
    monkeypatch.setattr(Collector, "collect", lambda self, purpose: purposes.append(purpose) or real(self, purpose))
    for name, origin, purpose in (("next", finished, "experience"), ("new", None, "held")):
        options = {**SMALL, "warmup_steps": 20, "warmup_actions": "held"}
        reverie.DreamerV3("RunTestWalk-v0", run=tmp_path / name, **options).learn(10, progress=False, from_=origin)
        assert set(purposes) == {purpose}
        purposes.clear()


@pytest.mark.parametrize("env", ["RunTestContinuous-v0", "CartPole-v1"])
def test_other_spaces_are_refused(finished, tmp_path, capsys, env):
    line = words(tmp_path / "next", env=env, num_envs=2, steps=20)
    expect_sentence(capsys, main([*line, "--from", str(finished)]), "same spaces")


# ---------------------------------------------------------------- faults of the environment


SIMULATOR = {"broken": True, "steps": 0}


class Flaky(Walk):
    """Raises at one step of all that are taken in this process."""

    def step(self, action):
        SIMULATOR["steps"] += 1
        if SIMULATOR["broken"] and SIMULATOR["steps"] == 150:
            raise ConnectionError("the simulator does not answer")
        return super().step(action)


def test_an_exception_of_the_environment_loses_nothing(tmp_path, monkeypatch):
    run = tmp_path / "run"
    settings = {**SMALL, "steps": 200, "vectorization": "in-process"}
    agent = reverie.DreamerV3(Flaky, run=run, **settings)
    with pytest.raises(EnvironmentProblem, match=r"does not answer.*checkpoint was written at step 14\d"):
        agent.learn(progress=False)
    (name,) = checkpoints(run)
    assert int(name) in range(140, 150)
    SIMULATOR["broken"], before = False, SIMULATOR["steps"]
    reverie.DreamerV3(Flaky, run=run, **{**settings, "evaluation_episodes": 1}).learn(progress=False)
    assert SIMULATOR["steps"] - before < 90, "the first 140 steps are not repeated"
    state = json.loads((run / "checkpoints" / checkpoints(run)[-1] / "state.json").read_text())
    assert state["collector"]["broken"] is False


# ---------------------------------------------------------------- one simulator


class OnlyOne(Walk):
    """Holds a port, so that a second one cannot be made."""

    alive = made = 0

    def __init__(self):
        super().__init__()
        if OnlyOne.alive:
            raise OSError("port 5005 is in use")
        OnlyOne.alive += 1
        OnlyOne.made += 1

    def close(self):
        OnlyOne.alive -= 1


@pytest.mark.parametrize(
    "options", [{"num_envs": 1}, {"num_envs": 1, "evaluation_envs": 0}, {"num_envs": 1, "steps": 90}]
)
def test_one_simulator_at_a_time(tmp_path, options):
    OnlyOne.alive = 0
    run = tmp_path / "run"
    settings = {**SMALL, "evaluate_every": 20, **options}
    agent = reverie.DreamerV3(OnlyOne, run=run, **settings).learn(progress=False)
    assert OnlyOne.alive == 0
    agent.adapter.reset(0)
    assert agent.evaluate(3).lengths == [20] * 3
    agent.save(tmp_path / "saved")
    reverie.load(tmp_path / "saved", environment=OnlyOne).dream(10, 1)
    assert OnlyOne.alive == 0


def test_evaluation_in_the_training_environments_changes_no_training(tmp_path):
    rows = []
    for every in (0, 20):
        run = tmp_path / str(every)
        reverie.DreamerV3(Walk, run=run, **{**SMALL, "evaluate_every": every, "evaluation_envs": 0}).learn(
            progress=False
        )
        rows.append(weights(reverie.load(run, environment=Walk, checkpoint="latest")))
    assert all(torch.equal(rows[0][name], rows[1][name]) for name in rows[0])


# ---------------------------------------------------------------- without the environment


def test_a_saved_agent_acts_without_its_environment(tmp_path):
    made = []

    def make():
        made.append(1)
        return Walk()

    agent = reverie.DreamerV3(make, run=tmp_path / "run", **SMALL).learn(progress=False)
    agent.save(tmp_path / "saved")
    count = len(made)
    for path in (tmp_path / "saved", tmp_path / "run"):
        loaded = reverie.load(path)
        action, state = loaded.predict(np.zeros(2, np.float32))
        assert action in (0, 1)
        batch, state = loaded.predict(np.zeros((5, 2), np.float32))
        assert batch.shape == (5,) and set(batch) <= {0, 1}
        loaded.predict(np.zeros((5, 2), np.float32), state, episode_start=np.array([True, False, False, True, False]))
        with pytest.raises(ConfigError, match="5 observations"):
            loaded.predict(np.zeros((5, 2), np.float32), loaded.predict(np.zeros(2, np.float32))[1])
        assert len(made) == count
        with pytest.raises(ConfigError, match="environment="):
            loaded.evaluate(1)
        loaded.save(tmp_path / "again")
        assert config(tmp_path / "again")["environment"] == config(tmp_path / "saved")["environment"]


def test_a_batch_acts_as_single_observations_do():
    space = gymnasium.spaces.Dict(
        {"place": gymnasium.spaces.Box(-1, 1, (2,), np.float32), "room": gymnasium.spaces.Discrete(3)}
    )

    class Task(Walk):
        observation_space = space
        action_space = gymnasium.spaces.Tuple(
            (gymnasium.spaces.Discrete(3), gymnasium.spaces.Box(-2, 2, (2,), np.float32))
        )

    agent = reverie.DreamerV3(Task, preset="paper", **TINY)
    observations = {"place": np.array([[0.1, 0.2], [-0.5, 0.9], [0, 0]], np.float32), "room": np.array([0, 2, 1])}
    single = [
        agent.predict({"place": observations["place"][i], "room": observations["room"][i]}, deterministic=True)[0]
        for i in range(3)
    ]
    choices, arms = agent.predict(observations, deterministic=True)[0]
    assert list(choices) == [one[0] for one in single]
    assert np.allclose(arms, [one[1] for one in single], atol=1e-5)


@pytest.mark.parametrize("name", ["DreamerV3", "DreamerV1"])
def test_latents_of_a_data_set(name):
    agent = getattr(reverie, name)("CartPole-v1", preset="quick")
    generator = np.random.default_rng(0)
    observations = generator.normal(size=(6, 4)).astype(np.float32)
    alone = agent.latents(observations)
    assert alone.shape == (6, agent.agent.world_model.rssm.features) and alone.dtype == np.float32
    episode = agent.latents(observations, actions=np.array([0, 1, 0, 1, 1, 0]))
    assert np.allclose(episode[0], alone[0], atol=1e-5) and not np.allclose(episode[1:], alone[1:], atol=1e-3)
    other = agent.latents(observations, actions=np.array([0, 0, 0, 1, 1, 0]))
    assert np.allclose(other[:2], episode[:2], atol=1e-5) and not np.allclose(other[2], episode[2], atol=1e-5)
    with pytest.raises(ConfigError, match="needs a batch"):
        agent.latents(observations[0])
    with pytest.raises(ConfigError, match="not as many actions"):
        agent.latents(observations, actions=np.zeros(3, int))


def test_a_module_is_imported_only_if_the_user_asks(tmp_path, monkeypatch, capsys):
    home = tmp_path / "home"
    home.mkdir()
    (home / "strangers_task.py").write_text(
        "import gymnasium, pathlib, sys\n"
        "pathlib.Path(__file__).with_name('imported').touch()\n"
        "sys.path.insert(0, str(pathlib.Path(__file__).parent))\n"
        "from run_helpers import Walk\n"
        "gymnasium.register('StrangersTask-v0', entry_point=Walk)\n"
    )
    monkeypatch.syspath_prepend(str(home))
    run = tmp_path / "run"
    assert main(words(run, env="strangers_task:StrangersTask-v0", num_envs=2, steps=60)) == 0
    reverie.load(run).save(tmp_path / "saved")
    del gymnasium.registry["StrangersTask-v0"]
    monkeypatch.delitem(__import__("sys").modules, "strangers_task")
    (home / "imported").unlink()
    capsys.readouterr()
    for folder in (run, tmp_path / "saved"):
        for command in (["evaluate", str(folder), "--episodes", "1"], ["dream", str(folder)]):
            expect_sentence(capsys, main(command), "strangers_task", "--trust-environment", "--env")
        with pytest.raises(EnvironmentProblem, match="trust_environment=True"):
            reverie.load(folder).evaluate(1)
    assert not (home / "imported").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(["evaluate", str(run), "--episodes", "1", "--env", "strangers_task:StrangersTask-v0"]) == 0
    assert (home / "imported").exists()
