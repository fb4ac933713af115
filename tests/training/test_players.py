"""Whole episodes in worker processes and in this process, and the policies that play them."""

import os
import signal
import subprocess
import time
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch

from process_helpers import ends
from reverie.agents.registry import make_config
from reverie.envs import EnvironmentSource, make
from reverie.errors import EnvironmentProblem
from reverie.models.vision_memory import MemoryState
from reverie.spaces import ActionPart
from reverie.training.pipeline import players
from reverie.training.pipeline.players import Players
from reverie.training.pipeline.policies import ControllerPolicy, Job, RandomPolicy

CATCH = EnvironmentSource("reverie/CatchPixels-v0")
ACTIONS = (ActionPart("action", "discrete", 1, (3,)),)
CONFIG = make_config(
    "world-models",
    {"latent": 3, "memory_units": 8, "collect_episodes": 2, "curiosity": 1.0, "evolve_in": "environment"},
)


@pytest.fixture(scope="module")
def agent():
    torch.manual_seed(0)
    return CONFIG.build(make("reverie/CatchPixels-v0").interface).eval()


def controllers(agent, jobs):
    generator = np.random.default_rng(0)
    return [Job(seed, generator.normal(size=agent.controller.count)) for seed in range(jobs)]


def same(first, second):
    assert [(e.total, e.length) for e in first] == [(e.total, e.length) for e in second]
    assert [e.surprise for e in first] == pytest.approx([e.surprise for e in second], rel=1e-4)


def test_processes_play_as_this_process_does(agent):
    policy = ControllerPolicy(CONFIG, agent)
    here, there = Players(CATCH, 0, 3), Players(CATCH, 2, 3)
    jobs = controllers(agent, 8)
    try:
        expected = list(here.play(policy, jobs, longest=1000))
        assert [e.length for e in expected] == [19] * 8 and len({e.total for e in expected}) > 1
        same(list(there.play(policy, jobs, longest=1000)), expected)
        killed = []

        def kill_one() -> bool:
            pid = there._processes[0]._worker.pid
            if pid and not killed:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            return False

        same(list(there.play(policy, jobs, longest=1000, stop=kill_one)), expected)
        assert killed and there._processes[0]._worker.pid not in (None, *killed)
        assert list(there.play(policy, jobs, longest=1000, stop=lambda: True)) == []
        same(list(there.play(policy, jobs[:2], longest=1000)), expected[:2])
    finally:
        here.close()
        there.close()


def test_recorded_rows_are_what_was_seen_and_done():
    players = Players(CATCH, 0, 2)
    episodes = list(players.play(RandomPolicy(ACTIONS, 3, "held"), [Job(5), Job(6)], longest=8, record=True))
    adapter = make("reverie/CatchPixels-v0")
    for seed, episode in zip((5, 6), episodes, strict=True):
        rows = episode.rows
        assert episode.length == 7 and rows["image"].shape == (8, 64, 64, 3)
        assert rows["is_first"].tolist() == [True] + [False] * 7
        seen, total = adapter.reset(seed), 0.0
        for step in range(8):
            np.testing.assert_array_equal(rows["image"][step], seen["image"])
            if step < 7:
                seen, reward, *_ = adapter.step(rows["action"][step])
                assert rows["reward"][step + 1] == reward
                total += reward
        assert episode.total == total
    players.close()


def test_wandering_actions_have_their_deviation_and_correlation():
    parts = (ActionPart("action", "continuous", 2),)
    policy = RandomPolicy(parts, 10, "wandering")
    policy.begin([Job(seed) for seed in range(400)])
    policy.deviation[:] = 0.3  # so that clipping at 1 does not matter
    actions = np.stack([policy.act({}) for _ in range(200)])[60:]
    assert actions.std() == pytest.approx(0.3, rel=0.05)
    assert np.abs(actions.mean((0, 2))).max() < 0.6
    apart = (actions[10:] * actions[:-10]).mean() / actions.var()
    assert apart == pytest.approx(np.exp(-1), abs=0.06)
    policy.keep(np.array([3, 7]))
    assert policy.act({}).shape == (2, 2)


def test_varied_actions_last_another_time_in_every_episode():
    policy = RandomPolicy((ActionPart("action", "continuous", 1),), 100, "varied")
    policy.begin([Job(seed) for seed in range(400)])
    actions = np.stack([policy.act({})[:, 0] for _ in range(2000)])
    changes = (actions[1:] != actions[:-1]).mean(0)
    mean_hold = 1 / changes
    expected = (policy.longest + 1) / 2
    assert np.abs(mean_hold / expected - 1).mean() < 0.15
    assert policy.longest.min() == 1 and 90 < policy.longest.max() <= 100
    assert np.mean(policy.longest <= 10) == pytest.approx(np.log(11) / np.log(101), abs=0.08)
    policy.keep(np.array([3, 7]))
    assert policy.act({}).shape == (2, 1)


def test_surprise_is_the_loss_of_m(agent):
    model = agent.world_model
    state = MemoryState(torch.randn(2, 3), torch.randn(2, 8), torch.randn(2, 8), torch.zeros(2, dtype=torch.bool))
    action, following = torch.eye(3)[:2], torch.randn(2, 3)
    output, _ = model.memory.step(model._memory(state), state.latent, action, state.opens)
    zeros = torch.zeros(2)
    expected = model.memory.loss(output, following, zeros, zeros)["latent"]
    assert float(model.surprise(state, action, following).mean()) == pytest.approx(float(expected), rel=1e-5)


def test_a_controller_without_memory_leaves_m_out(agent):
    alone = replace(CONFIG, controller_reads="z", curiosity=0.0)
    for config, remembers in ((CONFIG, True), (alone, False)):
        blind = config.build(make("reverie/CatchPixels-v0").interface)
        policy = ControllerPolicy(config, blind)
        policy.begin([Job(0, np.ones(blind.controller.count))])
        for _ in range(2):
            policy.act({"image": np.zeros((1, 64, 64, 3), np.uint8)})
        assert bool(policy.state.hidden.any()) == remembers


def test_few_batches_are_played_ahead(agent, monkeypatch):
    handed, real = [], players.ThreadPoolExecutor.submit
    monkeypatch.setattr(
        players.ThreadPoolExecutor, "submit", lambda self, *words: handed.append(1) or real(self, *words)
    )
    pool = Players(CATCH, 1, 2)
    try:
        episodes = pool.play(ControllerPolicy(CONFIG, agent), controllers(agent, 20), longest=4)
        assert next(episodes).length == 3
        assert len(handed) == 1 + players.BATCHES_AHEAD
        assert len(list(episodes)) == 19 and len(handed) == 10
    finally:
        pool.close()


class Breaks(gymnasium.Env):
    """Its third step raises."""

    observation_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return np.zeros((64, 64, 3), np.uint8), {}

    def step(self, action):
        self.steps += 1
        if self.steps == 3:
            raise ValueError("the wheel came off")
        return np.zeros((64, 64, 3), np.uint8), 0.0, False, False, {}


class Closes(Breaks):
    """Tells that it was closed, as one must that has started a program of its own."""

    def close(self):
        with open(os.environ["CLOSED"], "a") as file:
            file.write("closed\n")


@pytest.mark.parametrize("processes", [0, 1])
def test_environments_are_closed(tmp_path, monkeypatch, processes):
    monkeypatch.setenv("CLOSED", str(tmp_path / "closed"))
    pool = Players(EnvironmentSource(Closes), processes, 3)
    policy = RandomPolicy((ActionPart("action", "discrete", 1, (2,)),), 3, "held")
    assert len(list(pool.play(policy, [Job(0), Job(1), Job(2)], longest=2))) == 3
    pool.close()
    assert (tmp_path / "closed").read_text() == "closed\n" * 3


class Endless(Breaks):
    """Started a program, whose process id is in `PROGRAM`, and never ends."""

    def __init__(self):
        self.program = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with open(os.environ["PROGRAM"], "w") as file:
            file.write(str(self.program.pid))

    def step(self, action):
        time.sleep(0.001)
        return np.zeros((64, 64, 3), np.uint8), 0.0, False, False, {}


def test_programs_of_environments_end_when_playing_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setenv("PROGRAM", str(tmp_path / "program"))
    pool = Players(EnvironmentSource(Endless), 1, 1)
    policy = RandomPolicy((ActionPart("action", "discrete", 1, (2,)),), 3, "held")
    assert list(pool.play(policy, [Job(0)], longest=10**9, stop=(tmp_path / "program").exists)) == []
    pool.close()
    assert ends(int((tmp_path / "program").read_text()))


@pytest.mark.parametrize("processes", [0, 1])
def test_what_an_environment_raises_is_raised_here(processes):
    pool = Players(EnvironmentSource(Breaks), processes, 2)
    policy = RandomPolicy((ActionPart("action", "discrete", 1, (2,)),), 3, "held")
    with pytest.raises(EnvironmentProblem, match="the wheel came off"):
        list(pool.play(policy, [Job(0), Job(1), Job(2)], longest=9))
    pool.close()
