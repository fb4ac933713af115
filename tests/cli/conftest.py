import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))  # run_helpers


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """A run with one checkpoint and its video; read it only."""
    from run_helpers import train

    run = tmp_path_factory.mktemp("cli") / "CartPole-v1" / "dreamer-v3" / "0"
    assert train(run, steps=80, videos=True) == 0
    return run


@pytest.fixture
def run_copy(small_run, tmp_path):
    """A copy of the small run."""
    return Path(shutil.copytree(small_run, tmp_path / "copy"))
