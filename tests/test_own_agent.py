"""Agents of other packages: registered in Python, or brought by an installed package."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

import reverie
from reverie.agents import registry
from reverie.agents.dreamer_v3 import DreamerV3Config
from reverie.errors import ConfigError

PACKAGE = Path(__file__).parent.parent / "examples" / "own_agent"
SMALL = {"size": "100k", "deterministic": 16, "hidden": 8, "units": 16, "batch_size": 2, "batch_length": 8}
SMALL |= {"num_envs": 2, "horizon": 3, "replay_ratio": 2.0, "warmup_steps": 50, "evaluate_every": 0}
SMALL |= {"evaluation_episodes": 1}
OPTIONS = [word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", str(value))]
COMMANDS = [
    ["train", "--help"],
    ["train", "gaussian-dreamer", "--env", "CartPole-v1", "--run", "run", "--no-videos", *OPTIONS, "--steps", "60"],
    ["train", "gaussian-dreamer", "--env", "CartPole-v1", "--run", "run", "--no-videos", *OPTIONS, "--steps", "80"],
    ["evaluate", "run", "--episodes", "1"],
    ["dream", "run", "--length", "8", "--output", "dream.gif"],
]
PROGRAM = f"""
from reverie.cli.main import main
for words in {COMMANDS}:
    assert main(words) == 0, words
import reverie
agent = reverie.load("run")
print(type(agent).__name__, agent.config.minimum_deviation, agent.evaluate(episodes=1).mean > 0)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Where the example's package is installed: outside the environment, on the path of programs that are told so."""
    target = tmp_path_factory.mktemp("site")
    words = ["install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(target)]
    copy = tmp_path_factory.mktemp("source") / PACKAGE.name
    copy.mkdir()
    for file in PACKAGE.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    subprocess.run([sys.executable, "-m", "pip", *words, str(copy)], check=True)
    return target


def test_an_installed_agent_is_trained_resumed_evaluated_dreamed_in_and_loaded(installed, tmp_path):
    path = os.pathsep.join([str(installed), str(Path(reverie.__file__).parents[1])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ", gaussian-dreamer\n" in done.stdout and "mean return" in done.stdout
    assert (tmp_path / "dream.gif").stat().st_size > 1000
    assert done.stdout.endswith("GaussianDreamer 0.1 True\n")


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})


@dataclass(frozen=True)
class MineConfig(DreamerV3Config):
    name: ClassVar[str] = "mine"


class Mine(reverie.Learner):
    agent_name = "mine"


def test_a_registered_agent_of_this_program(registered, tmp_path):
    with pytest.raises(ConfigError, match="no agent is called 'mine'"):
        Mine("CartPole-v1")
    assert reverie.register_agent(MineConfig) is MineConfig
    reverie.register_agent(MineConfig)  # once more is no conflict: notebooks run cells again
    agent = Mine("CartPole-v1", run=tmp_path / "run", device="cpu", videos=False, **SMALL)
    assert agent.preset == "paper"  # its module has no presets
    agent.learn(60, progress=False)
    assert type(reverie.load(tmp_path / "run")) is Mine
    agent.save(tmp_path / "saved")
    assert reverie.load(tmp_path / "saved").config == agent.config


def test_what_cannot_be_registered(registered):
    class NoName:
        pass

    @dataclass(frozen=True)
    class Taken(DreamerV3Config):
        name: ClassVar[str] = "planet"

    with pytest.raises(ConfigError, match="NoName cannot be registered as an agent: it lacks a method schedule"):
        reverie.register_agent(NoName)
    with pytest.raises(ConfigError, match="'planet' already; give Taken another name"):
        reverie.register_agent(Taken)
