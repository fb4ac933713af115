"""Code that is not an id is told by its source and the values it holds, the same in every process."""

import functools
import importlib.util
import json
import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from env_helpers import Noisy

from reverie.envs import EnvironmentSource
from reverie.envs.code_identity import code_difference, describe_code

SCRIPT = '''
import functools
import gymnasium
import numpy as np
import rewards_of_mine

GOAL = 3
CONFIG = {"wind": 0.5}

class Base(gymnasium.Env):
    def limit(self):
        return 10

def bonus(x):
    """How much more."""
    return x * CONFIG["wind"]

class Task(Base):
    observation_space = gymnasium.spaces.Box(-1, 1, (GOAL,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    good = 1

    def __init__(self, length=5):
        self.length = length

    def step(self, action):
        steps = action + GOAL
        reward = rewards_of_mine.reward(steps) + bonus(action)
        return 0, reward, False, False, {}

    @property
    def name(self):
        return "task"

make = lambda: Task(length=7)
'''
REWARDS = "SCALE = 2\n\ndef reward(x):\n    return SCALE * x\n\ndef unused():\n    return 1\n"


def load(folder, script=SCRIPT, rewards=REWARDS, name="task_of_mine"):
    """The module that a script is, loaded anew; what it imports lies beside it."""
    modules = {"rewards_of_mine": rewards, name: script}
    for module, text in modules.items():
        path = folder / f"{module}.py"
        path.write_text(text)
        specification = importlib.util.spec_from_file_location(module, path)
        sys.modules[module] = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(sys.modules[module])
    return sys.modules[name]


@pytest.fixture(autouse=True)
def forget_modules():
    yield
    for name in ("rewards_of_mine", "task_of_mine", "another_name"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("steps = action + GOAL", "steps = action - GOAL", "class Task has other source code"),
        ("return 10", "return 11", "class Base has other source code"),
        ("return x * CONFIG", "return x + CONFIG", "function bonus has other source code"),
        ("GOAL = 3", "GOAL = 4", "GOAL of class Task is 3 there, 4 here"),
        ('"wind": 0.5', '"wind": 0.6', "CONFIG of function bonus has other source code"),
        ("length=5", "length=6", "default length of class Task is 5 there, 6 here"),
        ("good = 1", "good = 2", "good of class Task is 1 there, 2 here"),
        ('return "task"', 'return "other"', "class Task has other source code"),
        ("return SCALE * x", "return SCALE + x", "function reward has other source code"),
        ("SCALE = 2", "SCALE = 3", "SCALE of function reward is 2 there, 3 here"),
        ("length=7", "length=8", "the lambda has other source code"),
    ],
)
def test_an_edit_counts(tmp_path, old, new, words):
    assert old in SCRIPT + REWARDS
    before = describe_code(load(tmp_path).make)
    after = describe_code(load(tmp_path, SCRIPT.replace(old, new), REWARDS.replace(old, new)).make)
    assert words in code_difference(before, after)


def test_layout_comments_and_place_do_not_count(tmp_path):
    before = describe_code(load(tmp_path).Task)
    edited = SCRIPT.replace('    """How much more."""\n', "").replace("return 10", "# ten\n\n        return (10)")
    edited = "# a comment\n\n\nOTHER = 3\n" + edited.replace("    ", "      ")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    rewards = REWARDS.replace("return 1\n", "return 2\n")
    assert describe_code(load(folder, edited, rewards, "another_name").Task) == before


def test_the_same_in_another_process(tmp_path):
    here = describe_code(load(tmp_path).make)
    program = (
        "import json, task_of_mine; from reverie.envs.code_identity import describe_code\n"
        "print(json.dumps(describe_code(task_of_mine.make)))"
    )
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert json.loads(done.stdout) == here
    assert here == json.loads(json.dumps(here)) and not any("0x" in text for text in here.values())


def closure(good, log=None):
    seen = [] if log is None else log

    class Task(gymnasium.Env):
        def step(self, action):
            seen.append(action)
            return good

    return Task


def function(good):
    return lambda: closure(good)()


class Plain(Noisy):
    def __init__(self, good=0):
        super().__init__()
        self.good, self.state = good, object()


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (closure(0), closure(1), "good of class Task is 0 there, 1 here"),
        (closure({"a": [1]}), closure({"a": [2]}), "good of class Task is {'a': list(1)} there, {'a': list(2)} here"),
        (closure(np.zeros(3)), closure(np.ones(3)), "good of class Task is array (3,)"),
        (function(0), function(1), "good of the lambda is 0 there, 1 here"),
        (closure(function(0)), closure(function(1)), "good of the lambda is 0 there, 1 here"),
        (functools.partial(Plain, 1), functools.partial(Plain, 2), "argument 0 of the environment is 1 there, 2 here"),
        (
            functools.partial(Plain, good=1),
            functools.partial(Plain),
            "good of the environment belongs to it only there",
        ),
        (Plain(1), Plain(2), "good of the environment is 1 there, 2 here"),
        (Plain, Noisy, "class Plain"),
        (lambda: Plain(1), lambda: Plain(2), "the lambda has other source code"),
        (
            gymnasium.wrappers.TimeLimit(Plain(), 3),
            gymnasium.wrappers.TimeLimit(Plain(), 4),
            "max_episode_steps of the environment is 3 there, 4 here",
        ),
        (
            gymnasium.make("CartPole-v1"),
            gymnasium.make("MountainCar-v0"),
            "max_episode_steps of the environment is 500 there",
        ),
    ],
)
def test_what_code_holds_counts(one, other, words):
    first, second = describe_code(one), describe_code(other)
    assert code_difference(first, first) is None
    assert words in code_difference(first, second)


def test_what_code_changes_itself_does_not_count():
    log = []
    task = closure(0, log)
    before = describe_code(task)
    task().step(1)
    assert log == [1] and describe_code(task) == before
    environment = Plain()
    before = describe_code(environment)
    environment.reset(seed=0)
    assert describe_code(environment) == before


def test_installed_code_is_not_described():
    assert describe_code(gymnasium.envs.classic_control.CartPoleEnv) == {}
    assert EnvironmentSource("CartPole-v1").code == {} and EnvironmentSource("reverie/TMaze-v0").code == {}


def test_installed_modules_are_not_imported_for_it():
    """MuJoCo reads how to render when it is first imported, so naming a run must not import it."""
    program = (
        "import sys; from reverie.envs import EnvironmentSource\n"
        "print(EnvironmentSource('Ant-v5').code, 'gymnasium.envs.mujoco.ant_v5' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{} False"


def test_code_without_a_file_is_told_by_its_bytecode():
    def made(text):
        namespace = {"__name__": "__main__", "gymnasium": gymnasium}
        exec(text, namespace)
        return describe_code(namespace["Task"])

    text = "class Task(gymnasium.Env):\n    def step(self, action):\n        return action in {'a', 'b'}\n"
    assert made(text) == made("\n\n# moved\n" + text)
    assert "class Task has other source code" in code_difference(made(text), made(text.replace("'b'", "'c'")))


def test_an_id_of_the_users_own_is_told_by_its_class(tmp_path):
    for old, new, words in (
        ("", "", None),
        ("return 10", "return 11", "class Base has other"),
        ("length=5", "length=6", "length"),
    ):
        found = []
        for text, length in ((SCRIPT, 3), (SCRIPT.replace(old, new) if old else SCRIPT, 3 + (words == "length"))):
            load(tmp_path, text)
            gymnasium.register("CodeOfMine-v0", "task_of_mine:Task", kwargs={"length": length}, max_episode_steps=9)
            found.append(EnvironmentSource("CodeOfMine-v0").code)
            del gymnasium.registry["CodeOfMine-v0"]
        assert found[0]["max_episode_steps of the registration"] == "9"
        difference = code_difference(*found)
        assert difference is None if words is None else words in difference


def test_arguments_that_json_cannot_hold_are_told_by_their_code():
    one, other = (EnvironmentSource(Plain, kwargs={"good": function(value)}) for value in (1, 2))
    assert one.identity() == other.identity()
    assert code_difference(one.code, other.code) == "good of the lambda is 1 there, 2 here"
