"""Evolution in dreams: one batch of rollouts equals a loop, and controllers get better."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import reverie
from reverie.behaviors.controllers import HiddenController, LinearController, flat_actions
from reverie.behaviors.evolution import Evolution
from reverie.dream.dream import Dream, collect_starts
from reverie.dream.evolve import ControlledAgent, dreamed_returns, evolve
from reverie.errors import ConfigError
from reverie.spaces import ActionPart
from reverie.training.evaluation import evaluate

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from run_helpers import RUN, TINY  # noqa: E402


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory):
    run = tmp_path_factory.mktemp("evolve") / "run"
    return reverie.DreamerV3("CartPole-v1", run=run, **{**TINY, **RUN, "num_envs": 2}).learn(60, progress=False)


@pytest.fixture
def dream(cartpole):
    agent = cartpole.agent
    return Dream(agent.world_model, collect_starts(agent, cartpole.source, 6, 1, 0), 1, most_likely=True)


def test_outputs_become_actions():
    parts = (ActionPart("arm", "continuous", 2), ActionPart("leg", "discrete", 2, (3, 2)))
    outputs = torch.tensor([[0.3, -1.0, 0.1, 0.9, -0.5, -0.2, -0.1]])
    assert flat_actions(outputs, parts)[0].tolist() == pytest.approx([0.3, -1.0, 0, 1, 0, 0, 1])


def test_one_batch_equals_a_loop_over_candidates(cartpole, dream):
    controller = HiddenController(dream.world_model.rssm.features, 2, 5)
    parameters = torch.randn(3, controller.count)
    parts, horizon = cartpole.interface.actions, 30
    dream.random = np.random.default_rng(1)
    returns = dreamed_returns(dream, controller, parameters, parts, 4, horizon)
    assert returns.shape == (3, 4)
    starts = np.random.default_rng(1).integers(6, size=4)
    lengths = []
    for row, expected in zip(parameters, returns, strict=True):
        totals = []
        for start in starts:
            alone = Dream(dream.world_model, dream.starts, 1, most_likely=True)
            alone.begin_at(np.array([start]))
            total, ended, length = 0.0, False, 0
            while not ended and length < horizon:
                outputs = controller(row[None], alone.state.feature[None])[0]
                reward, end, _ = alone.step(flat_actions(outputs, parts).numpy())
                total, ended, length = total + float(reward[0]), bool(end[0]), length + 1
            totals.append(total)
            lengths.append(length)
        assert totals == pytest.approx(list(expected), abs=1e-4)
    assert len(set(lengths)) > 1, "the rollouts should end at different steps, so that some leave the batch earlier"


def test_a_controller_learns_what_is_rewarded(cartpole, dream, monkeypatch):
    step = dream.step

    def rewarding(action):
        reward, ended, probability = step(action)
        return action[:, 1], np.zeros_like(ended), probability

    monkeypatch.setattr(dream, "step", rewarding)
    controller = LinearController(dream.world_model.rssm.features, 2)
    evolution = Evolution(controller.count, population=8)
    seen = []
    history = evolve(
        dream, controller, evolution, cartpole.interface.actions, 12, rollouts=4, horizon=6, progress=seen.append
    )
    assert [generation.number for generation in seen] == list(range(1, 13)) and seen == history
    assert history[-1].best == 6 and history[-1].mean > 5 and history[0].mean < history[-1].mean


def test_the_controller_plays_in_the_real_environment(cartpole, dream):
    controller = LinearController(dream.world_model.rssm.features, 2)
    right = np.zeros(controller.count)
    right[1] = 1  # bias of the second output, "push right"
    result = evaluate(ControlledAgent(cartpole.agent, controller, right), cartpole.source, 4, 0)
    assert max(result.lengths) <= 11, "always pushing to one side fells the pole within 11 steps"


def test_what_cannot_be_evolved(cartpole, dream):
    controller = LinearController(dream.world_model.rssm.features, 2)
    parts = cartpole.interface.actions
    with pytest.raises(ConfigError, match=f"count={controller.count}"):
        evolve(dream, controller, Evolution(3), parts, 1)
    for options in ({"rollouts": 0}, {"horizon": 0}, {"generations": 0}):
        with pytest.raises(ConfigError, match="at least 1"):
            evolve(dream, controller, Evolution(controller.count), parts, **{"generations": 1, **options})
