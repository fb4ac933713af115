"""Numbers that are not finite stop a run before its checkpoint is overwritten."""

import pytest
import torch
from run_helpers import content, expect_sentence, train

from reverie.behaviors.actor_critic import ActorCritic
from reverie.training.trainer import Trainer


@pytest.mark.parametrize(
    ("env", "parts"),
    [
        ("RunTestNanObservation-v0", ["nan"]),
        ("RunTestInfObservation-v0", ["inf"]),
        ("RunTestNanReward-v0", ["reward", "nan"]),
        ("RunTestInfReward-v0", ["reward", "inf"]),
        ("RunTestShape-v0", ["shape", "(3,)", "(2,)"]),
        ("RunTestDtype-v0", ["dtype", "float32"]),
    ],
)
@pytest.mark.parametrize("vectorization", ["in-process", "workers"])
def test_an_environment_that_breaks_its_contract(tmp_path, capsys, env, parts, vectorization):
    if vectorization == "workers" and "Reward" not in env:
        pytest.skip("one kind is enough")
    code = train(tmp_path / "run", env=env, num_envs=2, vectorization=vectorization)
    expect_sentence(capsys, code, *parts)


def _spoil(monkeypatch, after, harm):
    """Spoils the agent once it has gone on for some steps."""
    advance = Trainer._advance

    def spoiled(self):
        if self.env_steps >= after:
            harm(self.agent)
        advance(self)

    monkeypatch.setattr(Trainer, "_advance", spoiled)


def _all_weights(agent):
    with torch.no_grad():
        for value in agent.parameters():
            value.fill_(torch.nan)


def _one_weight(agent):
    with torch.no_grad():
        next(agent.behavior.actor.parameters()).view(-1)[0] = torch.inf


@pytest.mark.parametrize("env", ["RunTestWalk-v0", "RunTestContinuous-v0"])
@pytest.mark.parametrize("harm", [_all_weights, _one_weight])
def test_spoiled_weights_stop_the_run_and_leave_its_checkpoints(tmp_path, monkeypatch, capsys, env, harm):
    run = tmp_path / "run"
    assert train(run, env=env, steps=60, evaluate_every=60) == 0
    capsys.readouterr()
    before = content(run / "checkpoints")
    with monkeypatch.context() as patch:
        _spoil(patch, 90, harm)
        code = train(run, env=env, steps=300, evaluate_every=60, checkpoint_minutes=1e9)
        expect_sentence(capsys, code, "finite")
    assert {path: data for path, data in content(run / "checkpoints").items() if path in before} == before


def test_weights_spoiled_before_the_first_update_are_not_saved(tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    _spoil(monkeypatch, 0, _all_weights)
    expect_sentence(capsys, train(run, steps=40), "finite")
    assert not (run / "checkpoints").exists()


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch, capsys, number):
    run = tmp_path / "run"
    assert train(run, steps=60) == 0
    capsys.readouterr()
    before = content(run / "checkpoints")
    loss = ActorCritic.loss

    def spoiled(self, *arguments):
        terms, metrics, returns = loss(self, *arguments)
        return {**terms, "policy": terms["policy"] * number}, metrics, returns

    with monkeypatch.context() as patch:
        patch.setattr(ActorCritic, "loss", spoiled)
        expect_sentence(capsys, train(run, steps=120), "loss/policy", "no longer finite", "before another checkpoint")
    assert content(run / "checkpoints") == before
    assert train(run, steps=120) == 0
