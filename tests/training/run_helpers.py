"""Tiny training runs for tests: their command lines, what they leave behind, and environments that misbehave."""

import json
import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import torch
from safetensors.torch import load_file

from reverie.cli.main import main

TINY = {
    "size": "100k",
    "deterministic": 32,
    "hidden": 16,
    "units": 16,
    "variables": 4,
    "classes": 4,
    "batch_size": 4,
    "batch_length": 8,
    "horizon": 3,
    "warmup_steps": 50,
    "replay_ratio": 4,
}
RUN = {
    "preset": "paper",
    "num_envs": 4,
    "threads": 1,
    "log_every": 50,
    "evaluation_episodes": 2,
    "evaluate_every": 0,
    "videos": False,
}
PYTHON = Path(sys.executable)


def words(run, env="CartPole-v1", agent="dreamer-v3", **options):
    """The command line of a tiny run."""
    line = ["train", agent, "--env", env, "--run", str(run), "--quiet"]
    for name, value in {**TINY, **RUN, "steps": 300, **options}.items():
        if value is None:
            continue
        option = name.replace("_", "-")
        line += (
            [f"--{option}" if value else f"--no-{option}"] if isinstance(value, bool) else [f"--{option}", str(value)]
        )
    return line


def train(run, **options):
    """Trains in this process; returns the exit code."""
    return main(words(run, **options))


def start(run, **options):
    """Starts a real process that trains."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [PYTHON.with_name("reverie"), *words(run, **options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def checkpoints(run):
    """Names of the checkpoints, oldest first."""
    return sorted(path.name for path in (run / "checkpoints").glob("[0-9]*"))


def metrics(run):
    """The lines of metrics.jsonl without the settings and what depends on the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    others = ("seconds", "hyperparameters")
    return [{k: v for k, v in line.items() if k not in others and not k.startswith("speed/")} for line in lines]


def tensors(run):
    """Every tensor of the newest checkpoint: weights, optimizer, random state, environments."""
    folder = run / "checkpoints" / checkpoints(run)[-1]
    files = sorted(folder.glob("*.safetensors"))
    return {f"{path.stem}/{name}": value for path in files for name, value in load_file(path).items()}


def replay_rows(run):
    """The experience of the newest checkpoint: field -> rows, and its manifest without the number of the save."""
    state = json.loads((run / "checkpoints" / checkpoints(run)[-1] / "state.json").read_text())
    manifest = state["replay"]
    rows = {}
    for record in manifest["chunks"]:
        for path in sorted((run / "replay" / f"chunk-{record['index']:08d}").glob("*.npy")):
            rows[path.stem, record["index"]] = np.load(path, allow_pickle=False)[: record["rows"]]
    return rows, {**manifest, "serial": None}


def assert_same_run(one, other):
    """Two runs have the same history, weights, random state and experience."""
    assert metrics(one) == metrics(other)
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert different == []
    (rows, manifest), (other_rows, other_manifest) = replay_rows(one), replay_rows(other)
    assert manifest == other_manifest
    assert all(np.array_equal(rows[key], other_rows[key]) for key in rows)


def content(folder):
    """Every file below a folder and its bytes."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def expect_sentence(capsys, code, *parts):
    """The command ended with code 2 and said one sentence besides warnings, with every part in it; returns it."""
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if line and not line.startswith("reverie: warning: ")]
    assert code == 2, printed
    assert "Traceback" not in printed.err
    assert len(lines) == 1 and lines[0].startswith("reverie: "), printed.err
    for part in parts:
        assert part in lines[0], lines[0]
    return lines[0]


class Tells(gymnasium.Env):
    """Episodes of 5 steps whose info tells numbers; about half of them succeed."""

    observation_space = gymnasium.spaces.Box(-10, 10, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.succeeds, self.elapsed = self.np_random.random() < 0.5, 0
        return np.zeros(2, np.float32), {"success": True}

    def step(self, action):
        self.elapsed += 1
        last = self.elapsed == 5
        info = {"success": last and self.succeeds, "stats": {"height": np.float32(self.elapsed)}, "text": "x"}
        return np.full(2, self.elapsed, np.float32), 1.0, last, False, info


class Walk(gymnasium.Env):
    """Goes left or right; what `fault` says goes wrong at step `at`."""

    observation_space = gymnasium.spaces.Box(-10, 10, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, fault=None, at=30, length=20):
        self.fault, self.at, self.length, self.taken = fault, at, length, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.elapsed = 0
        return self._observe(), {}

    def step(self, action):
        self.elapsed += 1
        self.taken += 1
        if self.fault == "crash" and self.taken > self.at:
            os._exit(3)
        reward = float(action)
        if self.fault in ("nan reward", "inf reward") and self.taken > self.at:
            reward = float(self.fault.split()[0])
        return self._observe(), reward, False, self.elapsed >= self.length, {}

    def _observe(self):
        if self.fault == "urandom":
            return np.frombuffer(os.urandom(2), np.uint8).astype(np.float32) / 256
        observation = np.array([self.elapsed / 10, 0.5], np.float32)
        if self.taken <= self.at:
            return observation
        faults = {
            "nan observation": np.array([np.nan, 0], np.float32),
            "inf observation": np.array([np.inf, 0], np.float32),
            "shape": np.zeros(3, np.float32),
            "dtype": np.array(["a", "b"]),
        }
        return faults.get(self.fault, observation)


class Continuous(Walk):
    """The same with one continuous action."""

    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def step(self, action):
        return super().step(action[0])


class Text(Walk):
    """Observes text, which no agent can."""

    observation_space = gymnasium.spaces.Text(5)


class Nested(Walk):
    """Dict observations and actions."""

    observation_space = gymnasium.spaces.Dict(
        {"place": gymnasium.spaces.Box(-10, 10, (2,), np.float32), "room": gymnasium.spaces.Discrete(3)}
    )
    action_space = gymnasium.spaces.Dict(
        {"arm": gymnasium.spaces.Box(-2, 2, (2,), np.float32), "leg": gymnasium.spaces.Discrete(3)}
    )

    def step(self, action):
        return super().step(action["leg"])

    def _observe(self):
        return {"place": super()._observe(), "room": self.elapsed % 3}


def walk():
    """A function that makes an environment."""
    return Walk()


for _id, _class, _fault in (
    ("RunTestWalk-v0", Walk, None),
    ("RunTestContinuous-v0", Continuous, None),
    ("RunTestText-v0", Text, None),
    ("RunTestNested-v0", Nested, None),
    ("RunTestUrandom-v0", Walk, "urandom"),
    ("RunTestNanObservation-v0", Walk, "nan observation"),
    ("RunTestInfObservation-v0", Walk, "inf observation"),
    ("RunTestNanReward-v0", Walk, "nan reward"),
    ("RunTestInfReward-v0", Walk, "inf reward"),
    ("RunTestShape-v0", Walk, "shape"),
    ("RunTestDtype-v0", Walk, "dtype"),
    ("RunTestCrash-v0", Walk, "crash"),
):
    if _id not in gymnasium.registry:
        gymnasium.register(id=_id, entry_point=f"{__name__}:{_class.__name__}", kwargs={"fault": _fault})
