"""One seed gives one history: with workers, with interruptions, in every combination."""

import json
import signal
import warnings

import pytest
import run_helpers
from run_helpers import assert_same_run, checkpoints, metrics, replay_rows, train

import reverie
from reverie.envs import vectorize
from reverie.training import trainer
from reverie.training.memory import warn_if_large
from reverie.training.metrics import read_scores
from reverie.training.trainer import Trainer


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never interrupted, evaluated every 150 steps."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert train(run, evaluate_every=150) == 0
    return run


def test_one_seed_gives_one_history(whole, tmp_path):
    assert train(tmp_path / "again", evaluate_every=150) == 0
    assert_same_run(whole, tmp_path / "again")
    assert len(metrics(whole)) == 6 + 2  # and two evaluations
    assert train(tmp_path / "other", seed=1, evaluate_every=150) == 0
    assert metrics(whole) != metrics(tmp_path / "other")


def test_workers_give_the_same_history(whole, tmp_path):
    assert train(tmp_path / "run", vectorization="workers", evaluate_every=150) == 0
    assert_same_run(whole, tmp_path / "run")


def test_more_steps_go_on_where_a_shorter_run_ended(whole, tmp_path):
    run = tmp_path / "run"
    assert train(run, steps=150, evaluate_every=150) == 0
    assert metrics(run) == metrics(whole)[:4]
    assert train(run, evaluate_every=150) == 0
    assert_same_run(whole, run)
    assert read_scores(run) == read_scores(whole)


def test_checkpoints_by_the_clock_change_nothing(whole, tmp_path):
    run = tmp_path / "run"
    assert train(run, evaluate_every=150, checkpoint_minutes=0.002) == 0
    assert_same_run(whole, run)


@pytest.mark.parametrize("storage", ["ram", "disk"])
def test_stopping_at_any_step_changes_nothing(tmp_path, monkeypatch, storage):
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert train(whole, replay_storage=storage) == 0
    advance = Trainer._advance
    steps = []

    def stop_soon(self):
        advance(self)
        steps.append(self.env_steps)
        self._interruption.requested = len(steps) % 17 == 0

    monkeypatch.setattr(Trainer, "_advance", stop_soon)
    codes = []
    while not codes or codes[-1] == 130:
        codes.append(train(run, replay_storage=storage))
    assert codes[-1] == 0 and codes.count(130) >= 4
    assert steps == sorted(set(steps))
    assert_same_run(whole, run)


def test_the_command_of_a_complete_run_changes_nothing(copied_run, capsys):
    before = run_helpers.content(copied_run / "checkpoints")
    lines, scores = metrics(copied_run), read_scores(copied_run)
    assert train(copied_run, evaluate_every=150, videos=True) == 0
    assert run_helpers.content(copied_run / "checkpoints") == before
    assert (metrics(copied_run), read_scores(copied_run)) == (lines, scores)
    assert "run folder" in capsys.readouterr().out


def test_a_kill_before_the_last_evaluation_loses_neither_line_nor_score(tmp_path, monkeypatch):
    """The clock may write a checkpoint at the very last step, before its metrics and its evaluation."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert train(whole, steps=130) == 0

    class Killed(BaseException):
        pass

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save_checkpoint", _save_then(Trainer.save_checkpoint, 130, Killed))
        with pytest.raises(Killed):
            train(run, steps=130, checkpoint_minutes=0)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_evaluate", _score_then(Trainer._evaluate, Killed))
        with pytest.raises(Killed):
            train(run, steps=130)
    assert train(run, steps=130) == 0
    assert_same_run(whole, run)
    assert read_scores(run) == read_scores(whole)


def _save_then(save, steps, error):
    def method(self):
        save(self)
        if self.env_steps >= steps:
            raise error

    return method


def _score_then(evaluate, error):
    def method(self):
        def killed():
            raise error

        self.save_checkpoint = killed
        evaluate(self)

    return method


def test_an_environment_that_is_not_deterministic_resumes_with_a_warning(tmp_path, capsys):
    run = tmp_path / "run"
    options = {"env": "RunTestUrandom-v0", "num_envs": 2}
    assert train(run, steps=110, **options) == 0
    end = json.loads((run / "checkpoints" / checkpoints(run)[-1] / "state.json").read_text())["replay"]["end_row"]
    assert train(run, steps=160, **options) == 0
    assert "reverie: warning: the environment did not return" in capsys.readouterr().err
    rows, manifest = replay_rows(run)
    assert end - 1 in manifest["closed_rows"]
    assert rows["is_first", 0][end].all()
    assert not rows["is_terminal", 0][end - 1].any()


def test_a_run_without_videos_or_with_another_precision_of_the_clock_is_the_same_run(copied_run):
    assert train(copied_run, steps=310, evaluate_every=150, checkpoint_minutes=1, log_every=60) == 0


def test_every_metric_has_its_counters_in_order(whole):
    lines = metrics(whole)
    for name in ("env_steps", "frames", "updates"):
        values = [line[name] for line in lines]
        assert values == sorted(values)
    last = lines[-1]
    # replay_ratio 4 = 4 x 8 replayed steps x updates / steps after the warm-up, and one update at its end
    assert abs(last["updates"] - 1 - (last["env_steps"] - 52) * 4 / 32) <= 1
    assert last["frames"] == last["env_steps"]


@pytest.mark.filterwarnings("ignore:the worker process:RuntimeWarning")
def test_a_simulator_that_crashes_ends_neither_training_nor_evaluation(tmp_path):
    assert train(tmp_path / "run", env="RunTestCrash-v0", vectorization="workers", steps=100) == 0
    assert len(json.loads((tmp_path / "run" / "scores.json").read_text())) == 1


def test_ctrl_c_during_an_evaluation_leaves_a_run_that_evaluates_when_it_goes_on(tmp_path, monkeypatch):
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert train(whole, steps=120, evaluate_every=60) == 0
    real, interrupted = trainer.evaluate, []

    def evaluate(*arguments, stop, **options):
        if not interrupted:
            interrupted.append(True)
            assert not stop()
            signal.raise_signal(signal.SIGINT)
            assert stop()
        return real(*arguments, stop=stop, **options)

    monkeypatch.setattr(trainer, "evaluate", evaluate)
    assert train(run, steps=120, evaluate_every=60) == 130
    assert len(checkpoints(run)) == 1 and not (run / "scores.json").exists()
    assert train(run, steps=120, evaluate_every=60) == 0
    assert_same_run(whole, run)
    assert (run / "scores.json").read_text() == (whole / "scores.json").read_text()


@pytest.mark.parametrize("storage", ["ram", "disk"])
def test_a_replay_that_will_not_fit_is_announced(tmp_path, storage):
    with pytest.warns(UserWarning, match="--replay-capacity") as seen:
        warn_if_large(10**18, 5_000, storage, tmp_path)
    assert len(seen) == (2 if storage == "ram" else 1)
    assert "the replay of 5,000 steps will take 1e+09 GB" in str(seen[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_large(1000, 5_000, storage, tmp_path)


@pytest.mark.parametrize("num_envs", [1, 2])
def test_where_environments_run_is_measured_once(tmp_path, monkeypatch, num_envs):
    measured, real = [], vectorize.measure_step_seconds
    monkeypatch.setattr(vectorize, "processors", lambda: 2)
    monkeypatch.setattr(vectorize, "measure_step_seconds", lambda *given: measured.append(given) or real(*given))
    run = tmp_path / "run"
    for steps in (60, 80):
        assert train(run, env="RunTestWalk-v0", num_envs=num_envs, steps=steps, evaluate_every=20) == 0
    reverie.load(run).evaluate(2)
    assert len(measured) == (num_envs > 1), "one environment is stepped and evaluated in this process"
