"""Which runs of a figure count as seeds of one thing, and how the others are told apart."""

import json
from dataclasses import asdict

import pytest

from reverie.agents.registry import AGENTS, config_class, make_config
from reverie.envs import EnvironmentSource
from reverie.errors import ReverieError
from reverie.training.run_groups import differing_settings, group_runs, read_identity, with_defaults, without_copies
from reverie.training.settings import TrainSettings, may_change_in_stages

TASK = "CartPole-v1"


def parts(*shape):
    kind = "image" if len(shape) == 3 else "vector"
    observation = {"name": "observation", "kind": kind, "shape": list(shape), "classes": []}
    return {
        "observations": [observation],
        "actions": [{"name": "action", "kind": "discrete", "size": 1, "classes": [2]}],
    }


def describe(folder, agent="dreamer-v3", seed=0, task=TASK, environment=None, settings=None, shape=(4,), **config):
    """A folder with the config.json that a run would write."""
    content = {"version": "0.1.0", "agent": agent, "seed": seed}
    content["agent_config"] = asdict(make_config(agent, config))
    if agent in AGENTS:
        content["settings"] = asdict(TrainSettings(seed=seed, **(settings or {})))
    else:
        content["settings"] = {"seed": seed, "vision": None, **(settings or {})}
    content["environment"] = EnvironmentSource(task, **(environment or {})).to_json()
    content["interface"] = parts(*shape)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def rewrite(folder, change):
    path = folder / "config.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def names(folders, by=None):
    runs = with_defaults([read_identity(folder) for folder in folders])
    return [f"{group.name} ({group.count})" for group in group_runs(runs, by).get(TASK, [])]


def several(root, *variants):
    return [describe(root / str(place), **variant) for place, variant in enumerate(variants)]


@pytest.mark.parametrize(
    "variants, expected",
    [
        ([{"seed": 0}, {"seed": 1}], ["dreamer-v3 (2 seeds)"]),
        (
            [{"seed": 0, "horizon": 30}, {"seed": 0, "horizon": 5}, {"seed": 1, "horizon": 5}],
            ["dreamer-v3: horizon=5 (2 seeds)", "dreamer-v3: horizon=30 (1 seed)"],
        ),
        (
            [{"settings": {"num_envs": 8}}, {}],
            ["dreamer-v3: num_envs=4 (1 seed)", "dreamer-v3: num_envs=8 (1 seed)"],
        ),
        (
            [{"environment": {"pixels": True}, "shape": (64, 64, 3)}, {}],
            ["dreamer-v3: pixels=no (1 seed)", "dreamer-v3: pixels=yes (1 seed)"],
        ),
        (
            [{"environment": {"kwargs": {"goal": [1, 2]}}}, {}],
            ["dreamer-v3: goal=1x2 (1 seed)", "dreamer-v3: goal=default (1 seed)"],
        ),
        (
            [{"shape": (4,)}, {"shape": (6,)}],
            ["dreamer-v3: observation.observation=vector 4 (1 seed)"]
            + ["dreamer-v3: observation.observation=vector 6 (1 seed)"],
        ),
        (
            [{"agent": "planet", "horizon": 5}, {"horizon": 5}, {"horizon": 15}],
            ["dreamer-v3: horizon=5 (1 seed)", "dreamer-v3: horizon=15 (1 seed)", "planet (1 seed)"],
        ),
        (
            [{"agent": "planet", "environment": {"action_repeat": 8}}, {}],
            ["dreamer-v3: action_repeat=1 (1 seed)", "planet: action_repeat=8 (1 seed)"],
        ),
        (
            [{"environment": {"kwargs": {"horizon": 3}}}, {"horizon": 5}],
            ["dreamer-v3: kwargs.horizon=3, agent_config.horizon=15 (1 seed)"]
            + ["dreamer-v3: kwargs.horizon=default, agent_config.horizon=5 (1 seed)"],
        ),
    ],
)
def test_groups_are_named_by_what_differs(tmp_path, variants, expected):
    assert sorted(names(several(tmp_path, *variants))) == sorted(expected)


def test_numbers_are_in_order(tmp_path):
    folders = several(tmp_path, *({"horizon": horizon} for horizon in (30, 5, 100)))
    assert [name.split("=")[1].split()[0] for name in names(folders)] == ["5", "30", "100"]


def test_what_does_not_change_learning_does_not_split(tmp_path):
    other = {"steps": 5, "device": "cpu", "threads": 3, "vectorization": "workers", "checkpoint_minutes": 1.0}
    other |= {"evaluate_every": 7, "evaluation_episodes": 3, "log_every": 9, "videos": False, "replay_storage": "disk"}
    folders = several(tmp_path, {"seed": 0}, {"seed": 1, "settings": other})
    rewrite(folders[1], lambda content: content.update(version="0.0.1"))
    assert names(folders) == ["dreamer-v3 (2 seeds)"]


def test_missing_settings_are_those_of_today(tmp_path):
    folders = several(tmp_path, *({"seed": seed} for seed in range(4)), {"seed": 4, "horizon": 5})
    rewrite(folders[1], lambda content: [content.pop(name) for name in ("settings", "interface", "agent_config")])
    rewrite(folders[2], lambda content: content["agent_config"].pop("horizon"))
    rewrite(folders[3], lambda content: content.update(environment=TASK))
    assert names(folders) == ["dreamer-v3: horizon=5 (1 seed)", "dreamer-v3: horizon=15 (4 seeds)"]
    rewrite(folders[0], lambda content: content["agent_config"].update(replay_ratio=32))  # 32.0 in the others
    assert len(names(folders)) == 2


def test_runs_in_stages(tmp_path):
    cheap = {"agent": "world-models"}
    longer = {**cheap, "seed": 1, "generations": 9, "evaluate_every": 3, "evaluation_episodes": 5}
    other = {**cheap, "seed": 2, "temperature": 0.5}
    folders = several(tmp_path, cheap, longer, other)
    rewrite(folders[0], lambda content: content["settings"].pop("vision"))
    rewrite(folders[1], lambda content: content["agent_config"].pop("iterations"))
    expected = ["world-models: temperature=0.5 (1 seed)", "world-models: temperature=1.15 (2 seeds)"]
    assert names(folders) == expected
    again = several(tmp_path / "again", {**cheap, "iterations": 2}, {**cheap, "iterations": 2, "generations": 9})
    assert names(again) == ["world-models: generations=9 (1 seed)", "world-models: generations=1800 (1 seed)"]
    vision = {"settings": {"vision": "/a/long/path/to/some/folder/with/runs/first"}}
    borrowed = several(tmp_path / "v", {**cheap, **vision}, cheap)
    assert "world-models: vision=default (1 seed)" in names(borrowed)


@pytest.mark.parametrize("agent", AGENTS)
def test_no_other_agent_has_settings_of_stages(agent):
    assert not may_change_in_stages(1) & set(config_class(agent).__dataclass_fields__)


def test_long_values_are_short_and_differ(tmp_path):
    paths = [f"/a/very/long/path/to/levels/{name}/of/the/same/long/ending" for name in ("north", "south", "east")]
    found = names(several(tmp_path, *({"environment": {"kwargs": {"level": path}}} for path in paths)))
    values = {name.split("level=")[1].removesuffix(" (1 seed)") for name in found}
    assert len(values) == 3 and max(map(len, values)) <= 24


def test_addresses_are_no_difference(tmp_path):
    folders = several(tmp_path, *({"seed": seed, "environment": {"kwargs": {"f": object()}}} for seed in (0, 1)))
    rewrite(folders[1], lambda content: content["environment"]["kwargs"].update(f="<object object at 0x7fab>"))
    assert names(folders) == ["dreamer-v3 (2 seeds)"]


def test_deliberate_pooling(tmp_path):
    variants = [{"horizon": horizon, "settings": {"num_envs": envs}} for horizon in (5, 15) for envs in (1, 2)]
    folders = several(tmp_path, *variants)
    assert names(folders, ["horizon"]) == ["dreamer-v3: horizon=5 (2 runs)", "dreamer-v3: horizon=15 (2 runs)"]
    assert names(folders, ["num-envs"]) == ["dreamer-v3: num_envs=1 (2 runs)", "dreamer-v3: num_envs=2 (2 runs)"]
    assert names(folders, ["agent"]) == ["dreamer-v3 (4 runs)"]
    assert names(folders, ["agent_config.horizon", "num_envs"]) == names(folders)
    runs = with_defaults([read_identity(folder) for folder in folders])
    assert [group.pooled for group in group_runs(runs, ["horizon"])[TASK]] == [("num_envs",), ("num_envs",)]
    assert differing_settings(runs) == ["horizon", "num_envs"]
    elsewhere = read_identity(describe(tmp_path / "other", task="Acrobot-v1", horizon=5))
    assert differing_settings([elsewhere, *runs[:1]]) == ["task", "num_envs"]
    with pytest.raises(ReverieError, match="No run has a setting 'horizn' to group by; did you mean 'horizon'"):
        group_runs(runs, ["horizn"])


def test_the_same_settings_and_seed_are_no_further_seed(tmp_path):
    folders = several(tmp_path, {}, {"settings": {"steps": 7, "precision": "bfloat16"}}, {"seed": 1}, {"horizon": 5})
    runs = with_defaults([read_identity(folder) for folder in folders])
    kept, copies = without_copies(runs)
    assert [run.folder for run in kept] == [folders[0], folders[2], folders[3]]
    assert [(copy.folder, run.folder) for copy, run in copies] == [(folders[1], folders[0])]
    assert without_copies(runs, ["precision"])[1] == []
    labeled = with_defaults([read_identity(folder, label) for folder, label in zip(folders, "abaa", strict=True)])
    assert without_copies(labeled)[1] == []
    assert [group.name for group in group_runs(labeled)[TASK]] == ["a: horizon=5", "a: horizon=15", "b"]


def test_groups_of_several_tasks_share_colors(tmp_path):
    variants = [{"horizon": 5}, {"horizon": 15}, {"horizon": 15, "task": "Acrobot-v1", "environment": {}}]
    groups = group_runs(with_defaults([read_identity(folder) for folder in several(tmp_path, *variants)]))
    assert groups["Acrobot-v1"][0].name == "dreamer-v3"
    assert groups["Acrobot-v1"][0].color_key == groups[TASK][1].color_key != groups[TASK][0].color_key


def test_another_history_is_another_group(tmp_path):
    """Runs whose settings agree in the end, but which began with another run or were changed on the way."""
    folders = [describe(tmp_path / str(number), seed=number) for number in range(3)]
    rewrite(folders[1], lambda c: c.update({"from": {"run": "runs/a", "env_steps": 60, "replay": False}}))
    rewrite(folders[2], lambda c: c.update({"changes": [{"env_steps": 40, "settings": {"entropy": [0.1, 0.2]}}]}))
    (groups,) = group_runs(with_defaults([read_identity(folder) for folder in folders])).values()
    assert len(groups) == 3
    names = " ".join(group.name for group in groups)
    assert "runs/a" in names and "entropy" in names
