import importlib.util
import json
import subprocess
import sys
import threading

import gymnasium
import numpy as np
import pytest
from env_helpers import Frames, Noisy, Scripted, one_hot

from reverie.envs import EnvironmentSource, make
from reverie.envs.extras import extra_for, list_environments
from reverie.errors import ConfigError, EnvironmentProblem, SpaceError


class Shooter(Scripted):
    """An image with a vector, larger than agents see."""

    def __init__(self):
        space = gymnasium.spaces.Dict(
            {"view": gymnasium.spaces.Box(0, 255, (300, 400, 3), np.uint8), "ammo": gymnasium.spaces.Discrete(9)}
        )
        super().__init__({"view": np.full((300, 400, 3), 7, np.uint8), "ammo": 4}, space=space)


def test_from_id_function_class_and_object():
    for environment in ("CartPole-v1", lambda: gymnasium.make("CartPole-v1"), gymnasium.make("CartPole-v1")):
        adapter = make(environment)
        assert adapter.reset(0)["observation"].shape == (4,)
        adapter.close()
    assert make(Noisy, kwargs={"length": 2}).environment.length == 2


def test_an_object_stays_open():
    environment = Noisy()
    make(environment).close()
    assert not environment.closed


def test_module_ids(tmp_path, monkeypatch):
    text = "import gymnasium, env_helpers\ngymnasium.register('OfMyOwn-v0', entry_point=env_helpers.Noisy)\n"
    (tmp_path / "module_of_my_own.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert isinstance(make("module_of_my_own:OfMyOwn-v0").environment.unwrapped, Noisy)
    del gymnasium.registry["OfMyOwn-v0"]


def test_pixels_of_a_module_id(tmp_path, monkeypatch):
    (tmp_path / "own_pixels.py").write_text(
        "import gymnasium\ngymnasium.register('OwnPixels-v0', 'gymnasium.envs.classic_control.cartpole:CartPoleEnv')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    adapter = make("own_pixels:OwnPixels-v0", pixels=True)
    assert adapter.interface.observations[0].shape == (64, 64, 3)


def test_time_limit():
    for environment in ("CartPole-v1", lambda: gymnasium.make("CartPole-v1")):
        adapter = make(environment, time_limit=4, action_repeat=2)
        adapter.reset(0)
        assert adapter.step(one_hot(0))[2:4] == (False, False)
        assert adapter.step(one_hot(1))[2:4] == (False, True)
    longer = make("MountainCar-v0", time_limit=300)
    longer.reset(0)
    ends = [longer.step(one_hot(1, 3))[3] for _ in range(300)]
    assert ends.index(True) == 299


@pytest.mark.parametrize(
    ("environment_id", "words"),
    [
        ("CartPol-v1", ["no environment 'CartPol-v1'", "did you mean CartPole-v1"]),
        ("cartpole-v1", ["did you mean CartPole-v1"]),
        ("CartPole-v7", ["did you mean CartPole-v1"]),
        ("reverie/TMaz-v0", ["reverie/TMaze-v0"]),
        ("nowhere/Nothing-v3", ["no environment"]),
        ("qqqq", ["`reverie envs` lists"]),
        ("a_module_that_is_not_there:Task-v0", ["not installed", "a_module_that_is_not_there"]),
    ],
)
def test_unknown_ids(environment_id, words):
    with pytest.raises(EnvironmentProblem) as caught:
        make(environment_id)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("environment_id", "extra"),
    [
        ("LunarLander-v3", "box2d"),
        ("CarRacing-v3", "box2d"),
        ("BipedalWalkerHardcore-v3", "box2d"),
        ("HalfCheetah-v5", "mujoco"),
        ("InvertedDoublePendulum-v5", "mujoco"),
        ("ALE/Pong-v5", "atari"),
        ("dmc/walker-walk-v0", "dmc"),
        ("MiniGrid-Empty-5x5-v0", "minigrid"),
        ("BabyAI-GoToObj-v0", "minigrid"),
        ("VizdoomTakeCover-v1", "vizdoom"),
        ("bsuite/memory_len-v0", "bsuite"),
    ],
)
def test_missing_packages_name_their_extra(environment_id, extra):
    found = extra_for(environment_id)
    assert found.name == extra
    if found.installed:
        pytest.skip(f"{found.package} is installed")
    with pytest.raises(EnvironmentProblem) as caught:
        make(environment_id)
    assert f'pip install "reverie-rl[{extra}]"' in str(caught.value)


def test_an_own_id_that_looks_like_an_extra_works():
    gymnasium.register("CrafterOfMine-v0", entry_point=Noisy)
    make("CrafterOfMine-v0")
    del gymnasium.registry["CrafterOfMine-v0"]


def test_environments_that_cannot_be_made():
    with pytest.raises(EnvironmentProblem, match="'CartPole-v1' could not be made with kwargs {'color': 1}"):
        make("CartPole-v1", kwargs={"color": 1})
    with pytest.raises(EnvironmentProblem, match="ZeroDivisionError") as caught:
        make(lambda: 1 / 0)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(EnvironmentProblem, match="type builtins.int"):
        make(lambda: 3)
    with pytest.raises(EnvironmentProblem, match="type builtins.int"):
        make(3)


class OldGym:
    def __call__(self):
        return self

    def reset(self):
        return 0

    def step(self, action):
        return 0, 0.0, False, {}


def test_old_gym_objects_are_refused():
    with pytest.raises(EnvironmentProblem, match="another interface such as old gym"):
        make(OldGym())
    with pytest.raises(EnvironmentProblem, match="another interface such as old gym"):
        make(OldGym)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"action_repeat": 0}, "action_repeat is 0"),
        ({"time_limit": 0}, "time_limit is 0"),
        ({"image_size": 16}, "32 to 256"),
        ({"image_size": (64, 512)}, "32 to 256"),
        ({"image_size": 64}, "holds no image"),
    ],
)
def test_settings_that_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        make("CartPole-v1", **settings)
    with pytest.raises(ConfigError, match="already made"):
        make(Noisy(), kwargs={"length": 3})


def test_pixels_of_cartpole():
    adapter = make("CartPole-v1", pixels=True)
    (part,) = adapter.interface.observations
    assert (part.name, part.kind, part.shape) == ("image", "image", (64, 64, 3))
    first = adapter.reset(0)["image"]
    assert first.dtype == np.uint8 and first.std() > 5
    for _ in range(8):
        last = adapter.step(one_hot(1))[0]["image"]
    assert (first != last).any()
    assert adapter.render().shape == (400, 600, 3)
    adapter.close()


def test_pixels_from_a_class_and_repeated_frames_are_not_rendered():
    adapter = make(Frames, pixels=True, image_size=(40, 50), action_repeat=3)
    assert adapter.reset(0)["image"].shape == (40, 50, 3)
    observation = adapter.step(one_hot(0))[0]
    assert (observation["image"] == 3).all() and adapter.environment.unwrapped.rendered == 2
    assert adapter.action_repeat == 3


def test_pixels_that_cannot_be_had():
    with pytest.raises(EnvironmentProblem, match="render_mode=None"):
        make(Frames(), pixels=True)
    with pytest.raises(EnvironmentProblem, match="renders only"):
        make("reverie/TMaze-v0", pixels=True)
    make(Frames(render_mode="rgb_array"), pixels=True).reset(0)


def test_render_where_possible():
    adapter = make("CartPole-v1", render=True)
    adapter.reset(0)
    assert adapter.render().dtype == np.uint8
    silent = make("reverie/TMaze-v0", render=True)
    silent.reset(0)
    assert silent.render() is None
    assert make("CartPole-v1").render() is None


def test_native_images_are_resized_wherever_they_are():
    with pytest.raises(SpaceError, match="image_size=64"):
        make(Shooter)
    adapter = make(Shooter, image_size=64)
    assert [(part.name, part.shape) for part in adapter.interface.observations] == [
        ("ammo", (1,)),
        ("view", (64, 64, 3)),
    ]
    observation = adapter.reset(0)
    assert (observation["view"] == 7).all() and observation["ammo"].tolist() == [4]


def test_source_survives_json():
    source = EnvironmentSource(
        "Pendulum-v1", pixels=True, image_size=48, action_repeat=2, time_limit=99, kwargs={"g": 9.0}
    )
    data = json.loads(json.dumps(source.to_json()))
    assert EnvironmentSource.from_json(data) == source
    assert source.name == "Pendulum-v1" and source.image_size == (48, 48)


def test_functions_and_objects_are_stored_by_name():
    data = EnvironmentSource(Noisy, time_limit=3, kwargs={"length": 2}).to_json()
    assert data["kind"] == "function" and data["environment"] == "env_helpers.Noisy"
    with pytest.raises(ConfigError, match=r"'env_helpers.Noisy' .* pass it again in Python, .*environment="):
        EnvironmentSource.from_json(data).make()
    rebuilt = EnvironmentSource.from_json(data, Noisy)
    assert rebuilt.kwargs == {"length": 2} and rebuilt.time_limit == 3
    assert EnvironmentSource.from_json(data, Noisy()).kwargs == {}
    data = EnvironmentSource(gymnasium.make("CartPole-v1")).to_json()
    assert (data["kind"], data["environment"], data["rebuildable"]) == ("object", "CartPole-v1", False)
    data = EnvironmentSource("CartPole-v1", kwargs={"sutton_barto_reward": object()}).to_json()
    json.dumps(data)
    with pytest.raises(ConfigError, match="JSON cannot hold"):
        EnvironmentSource.from_json(data).make()


def test_source_travels_to_workers():
    length = 3
    source = EnvironmentSource(lambda: Noisy(length), action_repeat=2)
    assert EnvironmentSource.from_worker(source.for_worker()).make().environment.unwrapped.length == 3
    with pytest.raises(ConfigError, match="is an object"):
        EnvironmentSource(Noisy()).for_worker()
    lock = threading.Lock()
    with pytest.raises(ConfigError, match="cannot be sent"):
        EnvironmentSource(lambda: Noisy(lock)).for_worker()


def test_registration_travels_with_the_id():
    gymnasium.register("OnlyHere-v0", entry_point=Noisy)
    payload = EnvironmentSource("OnlyHere-v0").for_worker()
    del gymnasium.registry["OnlyHere-v0"]
    assert isinstance(EnvironmentSource.from_worker(payload).make().environment.unwrapped, Noisy)
    del gymnasium.registry["OnlyHere-v0"]


def test_list_of_environments():
    rows = {row["id"]: row for row in list_environments()}
    assert rows["CartPole-v1"] == {"id": "CartPole-v1", "suite": "classic-control", "extra": None, "installed": True}
    assert rows["reverie/TMaze-v0"]["suite"] == "reverie"
    assert rows["LunarLander-v3"]["extra"] == "box2d"
    assert "HalfCheetah-v4" not in rows and "CartPole-v0" not in rows
    assert any(row["extra"] == "atari" for row in rows.values())


def test_import_is_light():
    program = (
        "import sys, reverie.envs; print([m for m in ('torch', 'pygame', 'PIL', 'cloudpickle') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pixels": "str"}, "pixels is 'str', but it must be True or False"),
        ({"pixels": 1}, "pixels is 1"),
        ({"action_repeat": 1.5}, "action_repeat is 1.5, but it must be a whole number"),
        ({"action_repeat": True}, "action_repeat is True"),
        ({"action_repeat": None}, "action_repeat is None"),
        ({"time_limit": True}, "time_limit is True"),
        ({"time_limit": "9"}, "time_limit is '9'"),
        ({"image_size": "64"}, "image_size is '64'"),
        ({"image_size": 64.0}, "image_size is 64.0"),
        ({"image_size": True}, "image_size is True"),
        ({"image_size": (64, "64")}, "image_size is"),
        ({"image_size": {64, 32}}, "image_size is"),
        ({"image_size": [64]}, "image_size is"),
        ({"kwargs": "length=7"}, "kwargs is 'length=7', but it must be a dictionary"),
        ({"kwargs": {1: 2}}, "kwargs is"),
        ({"parts": [("a", "image")]}, "parts is"),
        ({"parts": {"a": 3}}, "part 'a' is said to be"),
        ({"ignore": 3}, "ignore is 3, but it must be a list of names"),
    ],
)
def test_options_of_a_wrong_type_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        EnvironmentSource("CartPole-v1", **settings)


def test_numbers_of_numpy_are_numbers():
    source = EnvironmentSource(
        "CartPole-v1", pixels=np.True_, image_size=np.int64(40), action_repeat=np.int8(2), time_limit=np.int32(9)
    )
    assert source.image_size == (40, 40) and source.pixels is True
    assert json.loads(json.dumps(source.to_json()))["action_repeat"] == 2


BROKEN = {
    "missing": ("import something_of_nobody", ["No module named 'something_of_nobody'", "imported by minigrid"]),
    "library": ("raise ImportError('libGL.so.1: cannot open shared object file')", ["libGL.so.1", "import fails"]),
    "other": ("raise ValueError('numpy.dtype size changed')", ["ValueError: numpy.dtype size changed", "minigrid"]),
    "exits": ("raise SystemExit(3)", ["import of the module 'minigrid' raised SystemExit: 3"]),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_an_extra_whose_import_fails_says_which(tmp_path, monkeypatch, kind):
    if importlib.util.find_spec("minigrid") is not None:
        pytest.skip("minigrid is installed")
    code, words = BROKEN[kind]
    (tmp_path / "minigrid").mkdir()
    (tmp_path / "minigrid" / "__init__.py").write_text("from minigrid import core\n")
    (tmp_path / "minigrid" / "core.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EnvironmentProblem) as caught:
        make("MiniGrid-Empty-5x5-v0")
    assert all(word in str(caught.value) for word in words), str(caught.value)
    row = next(row for row in list_environments() if row["suite"] == "minigrid")
    assert not row["installed"]
