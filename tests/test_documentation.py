"""What the documentation says about names, settings, sizes and metrics agrees with the code."""

import ast
import importlib
import json
import pydoc
import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import get_args

import gymnasium
import pytest

import reverie
from reverie.agents import registry
from reverie.agents.registry import AGENTS, PIPELINES, config_class, preset_values, presets
from reverie.api import LEARNERS, DreamerV1, DreamerV2, DreamerV3, DreamerV3In2023, PlaNet, WorldModels
from reverie.cli.main import COMMANDS, main
from reverie.cli.train import RunOptions
from reverie.envs.extras import EXTRAS
from reverie.envs.suites import TASKS
from reverie.spaces import ActionPart, Interface, ObservationPart
from reverie.training.benchmark import INTERFACES
from reverie.training.pipeline.world_models import WorldModelsTraining
from reverie.training.published import Choice, published_tables, published_tasks
from reverie.training.settings import MAY_CHANGE, TrainSettings
from reverie.training.trainer import Trainer

ROOT = Path(__file__).parent.parent
PAGES = {path.stem: path.read_text() for path in (ROOT / "docs").glob("*.md")}
AGENT_PAGES = {
    "dreamer-v3": ("dreamer_v3", "## Settings of `dreamer-v3`"),
    "dreamer-v3-2023": ("dreamer_v3", "Settings of `dreamer-v3-2023`:"),
    "dreamer-v2": ("dreamer_v2", "## Settings"),
    "dreamer-v1": ("dreamer_v1", "## Settings"),
    "planet": ("planet", "## Settings"),
}
TINY_2018 = {"latent": 3, "memory_units": 8, "collect_episodes": 3, "vision_batch": 20, "memory_updates": 2}
TINY_2018 |= {"memory_batch": 2, "memory_length": 10, "population": 4, "rollouts": 2, "generations": 1}
TINY_2018 |= {"dream_horizon": 6, "evaluation_episodes": 2, "living_reward": None, "action_head": True}
LARGEST = 12_000_000
TINY = {"size": "100k", "deterministic": 32, "hidden": 16, "units": 16, "variables": 4, "classes": 4}
TINY_2023 = {"size": "nano", "deterministic": 32, "units": 16, "variables": 4, "classes": 4}
TINY_2021 = {"deterministic": 16, "units": 8, "vector_units": 8, "variables": 4, "classes": 4}
TINY_2021 |= {"replay_ratio": 4}
TINY_2020 = {"deterministic": 16, "units": 8, "vector_units": 8, "update_every": 10, "updates": 1}
TINY_2020 |= {"representation": "contrastive", "continuation": True}
TINY_2019 = {"deterministic": 16, "vector_units": 8, "random_episodes": 4, "updates": 1, "warmup_steps": None}
TINY_2019 |= {"candidates": 8, "elites": 2, "iterations": 2, "overshooting_scale": 0.1, "global_prior_scale": 0.1}
SHORT = {"batch_size": 4, "batch_length": 8, "horizon": 3, "warmup_steps": 50, "videos": False}
SHORT |= {"evaluate_every": 0, "evaluation_episodes": 2}


def rows(text: str) -> list[list[str]]:
    """Cells of the table rows whose first cell is in backticks."""
    lines = [line.strip().strip("|").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line] for line in lines]


@pytest.mark.parametrize("agent", AGENTS)
def test_agents_have_a_class(agent):
    assert agent in LEARNERS, f"api/learners.py has no class for {agent}"
    assert LEARNERS[agent].__name__ in reverie.__all__
    assert getattr(reverie, LEARNERS[agent].__name__) is LEARNERS[agent]


@pytest.mark.parametrize("agent", AGENTS)
def test_settings_are_documented(agent):
    assert agent in AGENT_PAGES, f"say here where the settings of {agent} are documented"
    page, heading = AGENT_PAGES[agent]
    section = PAGES[page].split(heading)[1].split("\n## ")[0]
    table = {cells[0].strip("`"): cells[1] for cells in rows(section)}
    cls = config_class(agent)
    assert set(table) >= {field.name for field in fields(cls)}
    for field in fields(cls):
        written = table.pop(field.name)
        if field.default is not None:
            assert written == str(field.default) or float(written) == field.default, field.name


@pytest.mark.parametrize("agent", AGENTS)
def test_presets_are_documented(agent):
    for preset in presets(agent).keys() - {"paper"}:
        assert f"`{preset}`" in PAGES[AGENT_PAGES[agent][0]], preset


@pytest.mark.parametrize("agent", PIPELINES)
def test_settings_of_agents_in_stages_are_documented(agent):
    table = {cells[0].strip("`"): cells[1] for cells in rows(PAGES[agent.replace("-", "_")].split("## Settings")[1])}
    cls = config_class(agent)
    for field in fields(cls):
        assert table.pop(field.name) == str(field.default), field.name
    for name, value in preset_values(agent, "quick").items():
        assert f"`{name}` {value}" in " ".join(PAGES[agent.replace("-", "_")].split()), name


def test_run_options_are_documented():
    table = {cells[0].split("`")[1]: cells for cells in rows(PAGES["command_line"]) if cells[0].startswith("`--")}
    for field in fields(TrainSettings):
        cells = table.pop("--" + field.name.replace("_", "-"))
        assert cells[3] == ("yes" if field.name in MAY_CHANGE else "no"), field.name
    names = {"from" if field.name == "origin" else field.name for field in fields(RunOptions)}
    assert set(table) == {"--" + name.replace("_", "-") for name in names}


def test_sizes_are_those_of_the_tables():
    gray = Interface((ObservationPart("image", "image", (96, 96, 1)),), (ActionPart("action", "discrete", 1, (18,)),))
    checked = 0
    for agent, columns in (("dreamer-v3", 5), ("dreamer-v3-2023", 4)):
        cls = config_class(agent)
        sizes = importlib.import_module(cls.__module__).SIZES
        for cells in rows(PAGES["dreamer_v3"]):
            name = cells[0].strip("`")
            if name not in sizes:
                continue
            numbers = [int(cell.replace(",", "")) for cell in cells[1:]]
            assert tuple(numbers[:columns]) == tuple(sizes[name]), name
            for interface, count in zip((*INTERFACES.values(), gray), numbers[columns:], strict=False):
                if count < LARGEST:
                    assert cls(size=name).build(interface).count_parameters()["total"] == count, (name, count)
                    checked += 1
    assert checked >= 12


def test_commands_are_documented():
    named = {cells[0] for cells in rows(PAGES["command_line"])}
    for command in COMMANDS:
        assert f"`reverie {command}`" in named
        assert f"## reverie {command}\n" in PAGES["command_line"]
        assert callable(importlib.import_module(f"reverie.cli.{command}").main)


def test_tasks_are_documented():
    assert {cells[0].strip("`") for cells in rows(PAGES["environments"]) if "reverie/" in cells[0]} == set(TASKS)


def test_extras_are_documented():
    project = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1].split("\n[")[0]
    table = {cells[0].strip("`"): cells for cells in rows(PAGES["environments"].split("## Optional packages")[1])}
    assert set(table) == {extra.name for extra in EXTRAS}
    for name, cells in table.items():
        assert cells[3].startswith("yes") == bool(re.search(rf"^{name} = ", project, re.M)), name


def test_published_scores_are_documented():
    table = {cells[0].strip("`"): cells[1:] for cells in rows(PAGES["published_scores"])}
    for published in published_tables():
        source = table[published.file][0]
        arxiv = re.findall(r"arXiv:[\d.]+|github\.com/[\w/]+", source)
        assert arxiv and arxiv[0] in published.source, published.file
    tasks = {
        f"{suite}{name}" for suite in table if suite.endswith("/") for name in re.findall("[\\w-]+", table[suite][0])
    }
    assert tasks == set(published_tasks())
    assert set(get_args(Choice)) <= set(table)


def test_pointers_into_the_code_resolve():
    for page in (*PAGES.values(), (ROOT / "ARCHITECTURE.md").read_text()):
        for pointer in re.findall(r"`(reverie(?:\.\w+)+)(?:\(\w*\))?`", page):
            assert pydoc.locate(pointer) is not None, pointer


def test_links_and_named_tests_exist():
    for path in (ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")):
        text = path.read_text()
        for target in re.findall(r"\]\((?!http)([^)#]+)", text):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
        for target in re.findall(r"`((?:tests|examples|src|docs)/[\w/.]+\.\w+)`", text):
            assert (ROOT / target).exists(), f"{path.name}: {target}"
    mine = {node.name for node in ast.parse(Path(__file__).read_text()).body if isinstance(node, ast.FunctionDef)}
    assert set(re.findall(r"`(test_\w+)`", (ROOT / "ARCHITECTURE.md").read_text())) <= mine


def training_commands():
    """Every `reverie train` line of a code block, without its comment; those that build on another run are left out."""
    found = []
    for page in (*PAGES.values(), (ROOT / "README.md").read_text()):
        for block in re.findall(r"```\n(.*?)```", page, re.S):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True) if line.startswith("reverie train ") else []
                if words and not {"...", "--reuse", "--vision", "--from", "--change", "SEED"} & set(words):
                    found.append(" ".join(words[1:]))
    return sorted(set(found))


@pytest.mark.parametrize("line", training_commands())
def test_documented_training_commands_begin(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if "gaussian-dreamer" in line:  # tests/test_own_agent.py installs its package
        monkeypatch.setattr(registry, "_registered", {})
        monkeypatch.syspath_prepend(ROOT / "examples" / "own_agent")
        reverie.register_agent(importlib.import_module("gaussian_dreamer").GaussianDreamerConfig)
    for cls in (Trainer, WorldModelsTraining):
        monkeypatch.setattr(cls, "run", lambda self: False)  # it would now train
    code = main(shlex.split(line))
    said = capsys.readouterr()
    if "pip install" in said.err:
        pytest.skip(said.err)
    assert code == 130, said.err


def test_python_in_the_documentation_compiles():
    for name, page in PAGES.items():
        for block in re.findall(r"```python\n(.*?)```", page, re.S):
            compile(block, name, "exec")


def telling_cart_pole():
    """CartPole whose info has a number."""
    return Telling(gymnasium.make("CartPole-v1"))


class Telling(gymnasium.Wrapper):
    def step(self, action):
        observation, reward, terminated, truncated, _ = self.env.step(action)
        return observation, reward, terminated, truncated, {"upright": not terminated}


def test_metrics_are_documented(tmp_path):
    documented = {cells[0].strip("`") for cells in rows(PAGES["metrics"])}
    written = set()
    older = ((DreamerV2, TINY_2021), (DreamerV1, TINY_2020), (PlaNet, TINY_2019))
    for cls, settings in ((DreamerV3, TINY), (DreamerV3In2023, TINY_2023), *older):
        run = tmp_path / cls.agent_name
        chosen = {name: value for name, value in {**SHORT, **settings}.items() if value is not None}
        cls(telling_cart_pole, run=run, log_every=60, info="upright", **chosen).learn(150, progress=False)
    run = tmp_path / "world-models"
    WorldModels("reverie/CatchPixels-v0", run=run, vectorization="in-process", **TINY_2018).learn(progress=False)
    for path in tmp_path.iterdir():
        for line in (path / "metrics.jsonl").read_text().splitlines():
            written |= set(json.loads(line)) - {"seconds", "hyperparameters"}
        for name in json.loads((path / "scores.json").read_text())[0]:
            assert f"`{name}`" in PAGES["metrics"], name
    written = {re.sub(r"(loss/reconstruction/).*", r"\1<part>", name) for name in written}
    written = {re.sub(r"(info/).*", r"\1<name>", name) for name in written}
    assert written - documented == set()
    metrics = {name for name in documented if re.fullmatch(r"[a-z_]+/[a-z_/<>]+", name)}
    assert metrics - written == set(), "documented, but never written"
