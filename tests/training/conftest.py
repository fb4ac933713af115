import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # run_helpers, also for worker processes


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """A run of 300 steps with two checkpoints, its evaluations and its videos; copy it before changing it."""
    from run_helpers import train

    run = tmp_path_factory.mktemp("finished") / "run"
    assert train(run, evaluate_every=150, videos=True) == 0
    return run


@pytest.fixture
def copied_run(finished_run, tmp_path):
    """A copy of the finished run."""
    import shutil

    return Path(shutil.copytree(finished_run, tmp_path / "copy"))
