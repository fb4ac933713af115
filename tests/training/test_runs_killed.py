"""Real processes: Ctrl-C, a second process in the folder, and kill -9 at any instant."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_helpers import assert_same_run, checkpoints, metrics, start, train, words

from reverie.training.metrics import read_metrics, read_scores

OPTIONS = {"steps": 300, "evaluate_every": 100, "checkpoint_minutes": 0.0005}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never interrupted."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert train(run, **OPTIONS) == 0
    return run


class Launcher:
    """Trains in processes that are killed."""

    def __init__(self, errors):
        self.errors = errors
        program = Path(__file__).with_name("launcher.py")
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def train(self, run, kill_after=None, seconds=None, **options):
        """Returns the exit code, -9 after a kill."""
        order = {"words": words(run, **options), "kill_after": kill_after, "seconds": seconds}
        self.process.stdin.write(json.dumps({**order, "errors": str(self.errors)}) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture
def launcher(tmp_path):
    it = Launcher(tmp_path / "errors.txt")
    yield it
    it.process.stdin.close()
    it.process.wait()


def _newest(run):
    names = checkpoints(run) if (run / "checkpoints").is_dir() else []
    return int(names[-1]) if names else -1


def test_kill_9_at_any_instant(whole, tmp_path, launcher):
    run = tmp_path / "run"
    random_moments = random.Random(0)
    newest, kills = -1, 0
    for attempt in range(30):
        if attempt % 3 == 0:
            # Inside the writing that follows a new checkpoint, which makes progress certain.
            code = launcher.train(run, [1, random_moments.randrange(60)], **OPTIONS)
        elif attempt % 3 == 1:
            code = launcher.train(run, [0, random_moments.randrange(90)], **OPTIONS)
        else:
            code = launcher.train(run, seconds=random_moments.uniform(0.02, 0.4), **OPTIONS)
        kills += code == -signal.SIGKILL
        assert code in (0, -signal.SIGKILL), launcher.errors.read_text()
        assert _newest(run) >= newest
        newest = _newest(run)
        if (run / "metrics.jsonl").exists():
            lines = read_metrics(run)
            evaluated = [line["env_steps"] for line in lines if "evaluation/return" in line]
            logged = [line["env_steps"] for line in lines if "evaluation/return" not in line]
            assert logged == sorted(set(logged)) and evaluated == sorted(set(evaluated))
    assert kills >= 20
    assert launcher.train(run, **OPTIONS) == 0
    assert_same_run(whole, run)
    assert read_scores(run) == read_scores(whole)
    assert "Traceback" not in launcher.errors.read_text()
    assert [path for path in run.rglob(".*") if path.name != ".lock"] == []


def test_kill_9_at_every_change_of_the_file_system(tmp_path, launcher):
    """Kills from the first file of a run to its second checkpoint (all of them where KILLS=1 is set)."""
    options = {**OPTIONS, "steps": 60, "evaluation_episodes": 1, "num_envs": 10}
    for operations in range(int(os.environ.get("FROM", "0")), 180, int(os.environ.get("KILLS", "45"))):
        run = tmp_path / str(operations)
        code = launcher.train(run, [0, operations], **options)
        assert code in (0, -signal.SIGKILL), launcher.errors.read_text()
        assert launcher.train(run, **options) == 0, launcher.errors.read_text()
        assert [line["env_steps"] for line in metrics(run)] == [line["env_steps"] for line in metrics(tmp_path / "0")]


def test_kill_9_of_a_command(whole, tmp_path):
    run = tmp_path / "run"
    for _ in range(2):
        before = _newest(run)
        process = start(run, **OPTIONS)
        while _newest(run) <= before and process.poll() is None:
            time.sleep(0.001)
        process.kill()
        process.communicate()
    assert train(run, **OPTIONS) == 0
    assert_same_run(whole, run)


def test_ctrl_c_writes_a_checkpoint_and_a_second_process_is_refused(whole, tmp_path, capsys):
    run = tmp_path / "run"
    process = start(run, **{**OPTIONS, "steps": 100_000, "checkpoint_minutes": 60, "evaluate_every": 100})
    while not (run / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.005)
    assert train(run, **OPTIONS) == 2
    assert "another process is training in" in capsys.readouterr().err
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "stopped at step" in out and "repeat the command" in out
    assert "Traceback" not in err
    assert 0 <= _newest(run) < OPTIONS["steps"]
    assert train(run, **OPTIONS) == 0
    assert_same_run(whole, run)
