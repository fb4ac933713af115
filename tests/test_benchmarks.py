"""The benchmarks' own arithmetic."""

import importlib.util
import json
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from reverie.envs import make

FOLDER = Path(__file__).parent.parent / "benchmarks"


def load(name):
    specification = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


pytest.importorskip("dm_control")
planning = load("plan_in_simulator")

# Where random actions earn nothing: the body still spins fast enough, the ball is about to fall into the cup.
ARRANGED = {
    "finger-spin": {"qvel": {"hinge": -20.0}},
    "ball_in_cup-catch": {"qpos": {"cup_x": 0, "cup_z": 0, "ball_x": 0.02, "ball_z": 0.42}},
}


@pytest.mark.parametrize("name", planning.TASKS)
def test_candidates_are_scored_as_the_environment_rewards_them(name):
    task = planning.TASKS[name]
    adapter = make(f"dmc/{name}-v0", action_repeat=task.action_repeat)
    environment = adapter.environment.unwrapped
    generator = np.random.default_rng(0)
    width = adapter.interface.action_width
    received = []
    for seed in range(3):
        adapter.reset(seed)
        for _ in range(10):  # somewhere in an episode, with contacts
            adapter.step(generator.uniform(-1, 1, width).astype(np.float32))
        with environment.control.physics.reset_context() if name in ARRANGED else nullcontext():
            for field, values in ARRANGED.get(name, {}).items():
                for joint, value in values.items():
                    getattr(environment.control.physics.named.data, field)[joint] = value
        simulator = planning.Simulator(adapter, task, threads=1 + seed % 2)
        candidates = generator.uniform(-1, 1, (5, 12, width)).astype(np.float32)
        expected = simulator.rewards(candidates)
        assert expected.shape == (5, 12 * task.action_repeat)
        np.testing.assert_array_equal(simulator.rewards(candidates), expected)  # the environment was left as it was
        score = simulator(torch.from_numpy(candidates)[None])
        np.testing.assert_allclose(score, expected.sum(-1)[None])
        # Play the fourth candidate frame by frame.
        for frame, planned in enumerate(expected[3]):
            action = candidates[3, frame // task.action_repeat]
            _, reward, *_ = environment.step(action)
            assert reward == pytest.approx(planned, abs=1e-9), (seed, frame)
            received.append(reward)
    assert len(set(received)) > 1, "rewards that are all the same would show nothing"


def test_an_episode_that_was_stopped_goes_on_with_the_same_result(tmp_path, monkeypatch):
    planner = planning.CrossEntropyPlanner(6, 40, 3, 5)
    whole = planning.play("reacher-easy", planning.TASKS["reacher-easy"], planner, planner, 0, 1)
    real, planned = planning.CrossEntropyPlanner.plan, []

    def plan(self, *arguments, **more):
        planned.append(0)
        if len(planned) == 28:
            raise KeyboardInterrupt
        return real(self, *arguments, **more)

    monkeypatch.setattr(planning.CrossEntropyPlanner, "plan", plan)
    underway = tmp_path / "plan.underway"
    with pytest.raises(KeyboardInterrupt):
        planning.play("reacher-easy", planning.TASKS["reacher-easy"], planner, planner, 0, 1, underway)
    planned.clear()
    monkeypatch.setattr(planning.CrossEntropyPlanner, "plan", lambda *a, **b: planned.append(0) or real(*a, **b))
    parts = planning.play("reacher-easy", planning.TASKS["reacher-easy"], planner, planner, 0, 1, underway)
    assert len(planned) == 250 - 20, "two times 10 decisions were kept"
    assert parts["return"] == whole["return"]


def test_an_episode_is_planned_and_the_command_goes_on(tmp_path, monkeypatch, capsys):
    words = ["reacher-easy", "--candidates", "40", "--elites", "5", "--iterations", "3", "--horizon", "6"]
    file = tmp_path / "plan_reacher-easy_40x3.json"

    def run(episodes, *more):
        monkeypatch.setattr(
            sys, "argv", ["plan", *words, "--episodes", str(episodes), "--results", str(tmp_path), *more]
        )
        planning.main()
        return json.loads(file.read_text())

    first = run(1)
    assert [episode["seed"] for episode in first["episodes"]] == [0]
    assert first["episodes"][0]["return"] == first["mean"] > 500  # random actions: 77 with a deviation of 70
    second = run(2)
    assert second["episodes"][0] == first["episodes"][0]
    assert [episode["seed"] for episode in second["episodes"]] == [0, 1]
    assert second["mean"] == pytest.approx(np.mean([episode["return"] for episode in second["episodes"]]), abs=0.01)
    with pytest.raises(SystemExit, match="holds episodes of another planner"):
        run(2, "--horizon", "7")
    planner = planning.CrossEntropyPlanner(6, 40, 3, 5)
    again = planning.play("reacher-easy", planning.TASKS["reacher-easy"], planner, planner, 0, 2)
    assert again["return"] == first["episodes"][0]["return"], "neither threads nor a second time change an episode"
    real, used = planning.CrossEntropyPlanner.plan, []
    monkeypatch.setattr(
        planning.CrossEntropyPlanner,
        "plan",
        lambda self, *arguments, **more: used.append(self.candidates) or real(self, *arguments, **more),
    )
    held = planning.play(
        "reacher-easy", planning.TASKS["reacher-easy"], planner, planning.CrossEntropyPlanner(6, 10, 1, 2), 0, 2
    )
    assert used[0] == 40, "nothing was earned before the first decision"
    assert 0.9 * held["return"] / 4 < used.count(10) <= held["return"] / 4
    used.clear()
    file = tmp_path / "plan_reacher-easy_40x3_repeat_30.json"
    longer = run(1, "--action-repeat", "30")
    assert longer["action_repeat"] == 30
    assert len(used) == 34, "the last of 34 decisions is cut short after 10 frames"
    used.clear()
    file = tmp_path / "plan_reacher-easy_40x3_first_100.json"
    beginning = run(1, "--frames", "100")
    assert beginning["frames"] == 100 and len(used) == 25
    assert beginning["mean"] <= min(100, first["mean"])
    file = tmp_path / "plan_reacher-easy_40x3.json"
    with pytest.raises(SystemExit, match="holds episodes of another planner"):
        file.rename(tmp_path / "plan_reacher-easy_40x3_holding_10x1.json")
        run(2, "--holding", "10", "1", "2")
