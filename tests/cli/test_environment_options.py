"""The options that describe an environment: a module of one's own, keyword arguments, parts to leave out."""

import os
import subprocess
import sys

import gymnasium
import pytest
from run_helpers import expect_sentence

from reverie.cli.environment import _keyword_arguments, make_source
from reverie.cli.main import main
from reverie.cli.train import _parse
from reverie.errors import ConfigError
from reverie.training.settings import TrainSettings

MODULE = """
import sys
import gymnasium, numpy as np
import {other}
class Task(gymnasium.Env):
    observation_space = gymnasium.spaces.Dict(
        a=gymnasium.spaces.Discrete(2), b=gymnasium.spaces.Discrete(2), c=gymnasium.spaces.Text(2)
    )
    action_space = gymnasium.spaces.Discrete(2)
gymnasium.register("Mine-v0", entry_point=Task)
"""


def source_of(*words):
    environment = _parse("dreamer-v3", TrainSettings, {}, ["--quiet", *words]).environment
    return make_source(environment, "dreamer-v3", quiet=True)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with modules of the user's own."""
    (tmp_path / "task_here.py").write_text(MODULE.format(other="beside_it"))
    (tmp_path / "beside_it.py").write_text("")
    (tmp_path / "package_here").mkdir()
    (tmp_path / "package_here" / "__init__.py").write_text("")
    (tmp_path / "package_here" / "tasks.py").write_text(MODULE.format(other="json"))
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit('usage: leaves')\n")
    (tmp_path / "lacks.py").write_text("import a_package_of_nobody\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    yield tmp_path
    for name in ("task_here", "beside_it", "package_here", "package_here.tasks"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("module", ["task_here", "package_here.tasks"])
def test_a_module_in_the_current_folder_is_found(folder, module):
    source = source_of("--env", f"{module}:Mine-v0", "--ignore", "a", "c")
    assert [part.name for part in source.make().interface.observations] == ["b"]
    assert sys.path.count(str(folder)) == 1


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ("nowhere:Mine-v0", ["'nowhere'", "not in the current folder"]),
        ("package_here.nowhere:Mine-v0", ["package_here.nowhere", "not in the current folder"]),
        ("leaves:Mine-v0", ["import of the module 'leaves' raised SystemExit: usage: leaves"]),
        ("lacks:Mine-v0", ["a_package_of_nobody", "imported by lacks"]),
        ("task_here:Other-v0", ["no environment 'task_here:Other-v0'"]),
    ],
)
def test_a_module_that_does_not_bring_the_environment(folder, capsys, environment, words):
    expect_sentence(capsys, main(["train", "dreamer-v3", "--env", environment, "--run", "run"]), *words)
    assert not os.path.exists("run")


def test_python_dash_m():
    shown = subprocess.run([sys.executable, "-m", "reverie", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.strip().count(".") == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--env-kwargs", "length=7"], {"length": 7}),
        (["--env-kwargs", "a=1", "b=x", "--env-kwargs", "c=1.5"], {"a": 1, "b": "x", "c": 1.5}),
        (["--env-kwargs", "a=true", "b=False", "c=null", "d=None"], {"a": True, "b": False, "c": None, "d": None}),
        (["--env-kwargs", 'a=[1, "x"]', 'b={"k": [2]}', 'c="3"'], {"a": [1, "x"], "b": {"k": [2]}, "c": "3"}),
        (["--env-kwargs", "a=", "b=c=d", "c=-3"], {"a": "", "b": "c=d", "c": -3}),
        (["--env-kwargs", "a=NaN", "b=1e999"], {"a": "NaN", "b": "1e999"}),
        (["--env-kwargs", "a=" + "[" * 100_000], {"a": "[" * 100_000}),
        ([], {}),
    ],
)
def test_keyword_arguments(words, expected):
    source = source_of("--env", "CartPole-v1", *words)
    assert source.kwargs == expected and source.to_json()["plain_kwargs"]
    assert all(type(source.kwargs[key]) is type(value) for key, value in expected.items())


@pytest.mark.parametrize("words", [["length"], ["=7"], ["a=1", "a=2"], ["two words=1"], ["1=2"], ["--x=3"]])
def test_words_that_are_no_keyword_arguments(words):
    with pytest.raises(ConfigError, match="must be KEY=VALUE, once for each key"):
        _keyword_arguments(words)


def test_a_keyword_argument_that_the_environment_does_not_take(tmp_path, capsys):
    words = ["--env", "reverie/TMaze-v0", "--env-kwargs", "color=3", "--run", str(tmp_path / "run")]
    expect_sentence(capsys, main(["train", "dreamer-v3", *words]), "color", "could not be made")


def test_parts_are_ignored_once_or_several_times():
    source = source_of("--env", "CartPole-v1", "--ignore", "a", "b", "--ignore", "c")
    assert source.ignore == ("a", "b", "c")
