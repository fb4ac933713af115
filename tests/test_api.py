"""The Python interface: a line for each thing that people do."""

import functools
import inspect
import json
import sys
import threading
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import reverie
from reverie.envs import EnvironmentSource
from reverie.errors import CheckpointError, ConfigError, EnvironmentProblem, RunFolderError

sys.path.insert(0, str(Path(__file__).parent / "training"))
from run_helpers import RUN, TINY, Nested, Walk, walk  # noqa: E402

SETTINGS = {**TINY, **RUN, "steps": 60}


def make(environment, tmp_path, **settings):
    return reverie.DreamerV3(environment, run=tmp_path / "run", **{**SETTINGS, "num_envs": 2, **settings})


def act(agent, observation, count=3):
    """The first actions for one observation, drawn with the same random numbers each time."""
    actions, state = [], None
    torch.manual_seed(0)
    for _ in range(count):
        action, state = agent.predict(observation, state)
        actions.append(action)
    return actions


def test_learn_evaluate_predict_save_load(tmp_path):
    agent = make("CartPole-v1", tmp_path).learn(60, progress=False)
    result = agent.evaluate(episodes=2)
    assert len(result.returns) == 2 and result.mean > 0
    observation = np.array([0.1, 0, -0.1, 0], np.float32)
    actions = act(agent, observation)
    agent.save(tmp_path / "saved")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == ["config.json", "model.safetensors"]
    again = reverie.load(tmp_path / "saved")
    assert act(again, observation) == actions
    assert again.evaluate(episodes=2).returns == result.returns
    for checkpoint in ("best", "latest"):
        assert act(reverie.load(tmp_path / "run", checkpoint=checkpoint), observation) == actions


@pytest.mark.parametrize("name", ["DreamerV3", "DreamerV2"])
def test_predict_acts_as_evaluate_does(name):
    agent = getattr(reverie, name)("CartPole-v1", preset="quick")
    defaults = {
        method: inspect.signature(getattr(agent, method)).parameters["deterministic"].default
        for method in ("predict", "evaluate")
    }
    assert defaults == {"predict": False, "evaluate": False}
    observation = np.zeros(4, np.float32)
    assert act(agent, observation, 20) == act(agent, observation, 20), "PyTorch's seed decides"
    assert len(set(act(agent, observation, 30))) == 2 or name != "DreamerV3", "DreamerV3 samples actions"


def test_learning_goes_on_with_the_run(tmp_path):
    make("CartPole-v1", tmp_path).learn(60, progress=False)
    agent = reverie.load(tmp_path / "run").learn(80, progress=False)
    assert agent.run_folder == tmp_path / "run"
    assert len(list((tmp_path / "run" / "checkpoints").glob("[0-9]*"))) == 2


def test_a_function_makes_environments(tmp_path):
    agent = make(walk, tmp_path).learn(60, progress=False)
    agent.save(tmp_path / "saved")
    with pytest.raises(ConfigError, match="environment="):
        reverie.load(tmp_path / "saved").evaluate(1)
    again = reverie.load(tmp_path / "saved", environment=walk)
    assert again.evaluate(episodes=1).lengths == [20]
    with pytest.raises(ConfigError, match="other observations or actions"):
        reverie.load(tmp_path / "saved", environment=Nested)


def test_an_object_is_one_environment(tmp_path, capsys):
    agent = make(Walk(), tmp_path, num_envs=1, evaluate_every=20).learn(60, progress=True)
    assert capsys.readouterr().err.count("no evaluation") == 1
    assert not (tmp_path / "run" / "scores.json").exists()
    make(Walk(), tmp_path / "asked", num_envs=1, evaluation_envs=0).learn(60, progress=False)
    (score,) = json.loads((tmp_path / "asked" / "run" / "scores.json").read_text())
    assert score["lengths"] == [20, 20], "evaluations are played in the environment of training"
    assert agent.evaluate(episodes=2).lengths == [20, 20]
    with pytest.raises(ConfigError, match="num_envs is 2"):
        make(Walk(), tmp_path / "two", num_envs=2).learn(60)


@pytest.mark.parametrize("environment", [Nested, "RunTestContinuous-v0"])
def test_predict_speaks_the_environments_language(tmp_path, environment):
    agent = make(environment, tmp_path).learn(60, progress=False)
    env = gymnasium.make(environment) if isinstance(environment, str) else environment()
    observation, _ = env.reset(seed=0)
    state = None
    for _ in range(3):
        action, state = agent.predict(observation, state, deterministic=False)
        assert env.action_space.contains(action)
        observation = env.step(action)[0]


def test_learning_outside_the_main_thread(tmp_path):
    agent = make("CartPole-v1", tmp_path)
    errors = []

    def learn():
        try:
            agent.learn(60, progress=False)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=learn)
    thread.start()
    thread.join()
    assert errors == []
    assert (tmp_path / "run" / "scores.json").exists()


@pytest.mark.parametrize(("name", "close"), [("num_env", "num_envs"), ("learning_rte", "learning_rate")])
def test_a_mistyped_setting_names_the_nearest(name, close):
    with pytest.raises(ConfigError, match=f"did you mean '{close}'"):
        reverie.DreamerV3("CartPole-v1", **{name: 1})


def test_load_of_nothing(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        reverie.load(tmp_path / "nothing")


def test_saving_over_a_run_is_refused(tmp_path):
    agent = make("CartPole-v1", tmp_path).learn(60, progress=False)
    with pytest.raises(CheckpointError, match="perhaps a run"):
        agent.save(tmp_path / "run")
    reverie.load(tmp_path / "run").learn(80, progress=False)


def script(good):
    """A class as a script defines it; another one has the same name and source, but not the same goal."""

    class Task(Walk):
        def step(self, action):
            observation, _, *rest = super().step(action)
            return observation, float(action == good), *rest

    return Task


def test_other_code_of_the_same_name_is_another_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = reverie.DreamerV3(script(0), **{**SETTINGS, "num_envs": 1}).learn(60, progress=False)
    assert reverie.DreamerV3(script(0), size="100k").run_folder == first.run_folder
    with pytest.warns(UserWarning, match="good of class Task is 0 there, 1 here; this run is in .*0-2"):
        second = reverie.DreamerV3(script(1), size="100k")
    assert second.run_folder == first.run_folder.with_name("0-2")
    named = reverie.DreamerV3(script(1), run=first.run_folder, **{**SETTINGS, "num_envs": 1})
    with pytest.raises(RunFolderError, match=r"of other code: good of class Task is 0 there, 1 here.*the same code"):
        named.learn(80, progress=False)
    loaded = reverie.load(first.run_folder, environment=script(1))
    with pytest.warns(UserWarning, match="continues with other code.*good of class Task"):
        loaded.learn(70, progress=False)
    config = first.run_folder / "config.json"
    described = json.loads(config.read_text())
    assert described["environment"]["code"]["good of class Task"] == "0", "the run stays that of its first code"
    # The folder of a version that did not describe code.
    del described["environment"]["code"], described["environment"]["parts"]
    config.write_text(json.dumps(described))
    named.learn(80, progress=False)


class Limited(Walk):
    """Takes an argument."""

    def __init__(self, length=20):
        super().__init__(length=length)


def test_what_is_given_to_load_counts(tmp_path):
    source = EnvironmentSource(Limited, action_repeat=2, time_limit=30, kwargs={"length": 9})
    reverie.DreamerV3(source, size="100k").save(tmp_path / "saved")

    def loaded(**given):
        return reverie.load(tmp_path / "saved", **given).source

    recipe = EnvironmentSource(Limited, time_limit=4)
    assert loaded(environment=recipe) is recipe
    again = loaded(environment=Limited, time_limit=12)
    assert (again.action_repeat, again.time_limit, again.kwargs) == (2, 12, {"length": 9})
    bound = loaded(environment=functools.partial(Limited, length=3))
    assert bound.kwargs == {} and bound.make().environment.unwrapped.length == 3
    assert loaded(environment=lambda: Limited(5)).kwargs == {}
    assert loaded(environment=Limited, kwargs={"length": 6}).kwargs == {"length": 6}
    with pytest.raises(ConfigError, match="EnvironmentSource and time_limit beside it"):
        loaded(environment=recipe, time_limit=3)


class Symbols(Walk):
    """Sees a map of eleven symbols."""

    observation_space = gymnasium.spaces.Box(0, 10, (40, 40), np.uint8)

    def _observe(self):
        return np.full((40, 40), self.elapsed % 11, np.uint8)


def test_what_a_part_is_said_to_be_is_kept(tmp_path):
    with pytest.warns(UserWarning, match="treated as a vector"):
        assert make(Symbols, tmp_path).interface.observations[0].kind == "vector"
    make(Symbols, tmp_path, blocks=8, parts={"observation": "image"}).save(tmp_path / "saved")
    again = reverie.load(tmp_path / "saved", environment=Symbols)
    assert again.interface.observations[0].kind == "image" and again.source.parts == {"observation": "image"}
    # The folder of a version that did not keep what the parts are.
    config = tmp_path / "saved" / "config.json"
    described = json.loads(config.read_text())
    del described["environment"]["parts"]
    config.write_text(json.dumps(described))
    assert reverie.load(tmp_path / "saved", environment=Symbols).interface.observations[0].kind == "image"


def test_wrapper_settings_beside_a_recipe_are_refused():
    with pytest.raises(ConfigError, match="EnvironmentSource"):
        reverie.DreamerV3(EnvironmentSource("CartPole-v1"), pixels=True)


def test_making_an_agent_leaves_random_numbers_alone(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    make("CartPole-v1", tmp_path).agent.count_parameters()
    assert torch.rand(1) == expected


class Camera(Walk):
    """Sees an image of 40 x 50 pixels."""

    observation_space = gymnasium.spaces.Box(0, 255, (40, 50, 3), np.uint8)
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None):
        super().__init__()
        self.render_mode = render_mode

    def _observe(self):
        return np.full((40, 50, 3), self.elapsed, np.uint8)

    def render(self):
        return self._observe().repeat(2, 0)


@pytest.mark.parametrize("settings", [{"pixels": True}, {"image_size": 32}, {"pixels": True, "image_size": 48}])
def test_predict_takes_images_as_the_environment_gives_them(tmp_path, settings):
    agent = make(Camera, tmp_path, blocks=8, **settings)
    environment = Camera()
    observation, _ = environment.reset(seed=0)
    seen = environment.render() if "pixels" in settings else observation
    action, state = agent.predict(seen)
    agent.predict(seen, state)
    assert environment.action_space.contains(action)
    resized = agent.adapter.reset(0)
    assert np.array_equal(resized["image"], agent.adapter.encode_observation(seen)["image"])
    agent.predict(agent.adapter.environment.reset(seed=0)[0])
    with pytest.raises(EnvironmentProblem, match="shape"):
        agent.predict(np.zeros(4, np.float32))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 1.5),
        ("seed", "1"),
        ("seed", True),
        ("num_envs", "4"),
        ("num_envs", 2.0),
        ("device", None),
        ("run", b"x"),
        ("log_every", 1.5),
        ("videos", "no"),
        ("steps", [1]),
        ("preset", 3),
        ("checkpoint_minutes", "5"),
        ("vectorization", "threads"),
        ("info", 3),
        ("pixels", "yes"),
        ("action_repeat", 1.5),
        ("change", 1),
    ],
)
def test_arguments_of_a_wrong_type_are_named(tmp_path, monkeypatch, name, value):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=name):
        reverie.DreamerV3("CartPole-v1", **{**SETTINGS, name: value}).learn(20, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("learn", {"steps": 1.5}),
        ("learn", {"steps": True}),
        ("learn", {"from_": 3}),
        ("evaluate", {"episodes": "3"}),
        ("evaluate", {"seed": 0.5}),
        ("evaluate", {"deterministic": "no"}),
        ("dream", {"length": "long"}),
        ("dream_env", {"num_envs": 1.5}),
        ("dream_env", {"temperature": "hot"}),
        ("save", {"folder": b"x"}),
    ],
)
def test_arguments_of_methods_too(method, arguments):
    agent = reverie.DreamerV3("CartPole-v1", **SETTINGS)
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        getattr(agent, method)(**arguments)


def test_numbers_may_come_from_numpy(tmp_path):
    agent = make("CartPole-v1", tmp_path, seed=np.int64(1), replay_ratio=np.float32(4))
    agent.learn(np.int32(60), progress=False)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["seed"] == 1


class Raising(Walk):
    """Raises late in a run."""

    def step(self, action):
        if self.taken > 90:
            raise ValueError("broken")
        return super().step(action)


def test_after_an_error_the_newest_weights_are_there(tmp_path):
    agent = make(Raising, tmp_path, num_envs=1)
    before = {name: value.clone() for name, value in agent.agent.state_dict().items()}
    with pytest.raises(EnvironmentProblem, match="broken"):
        agent.learn(200, progress=False)
    after = agent.agent.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("0*")
    saved = load_file(checkpoint / "agent.safetensors")
    assert all(torch.equal(saved[name], after[name]) for name in after)
