"""A process that adds, trains and saves is killed at random instants; the last committed save must come back."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from replay_helpers import digest, fill, make_replay


def run_until_killed(folder: Path, storage: str) -> None:
    """Resumes from the committed manifest, if any, and goes on for ever."""
    replay = make_replay(folder / "replay", storage)
    commit = folder / "commit.json"
    number = 0
    if commit.exists():
        saved = json.loads(commit.read_text())
        replay.restore(saved["manifest"])
        number = saved["number"]
        if number % 2:
            replay.close_episodes()
    random = np.random.default_rng(os.getpid())
    while True:
        fill(replay, int(random.integers(1, 20)), replay._end)
        for _ in range(2 if replay.num_windows else 0):
            batch = replay.sample(6)
            latents = {"deterministic": random.normal(size=(6, 4, 3)), "stochastic": random.integers(9, size=(6, 4, 2))}
            replay.update_latents(batch.index, 1, latents)
        number += 1
        name = f"save-{number}" if number % 3 else "same-name"
        manifest = replay.save(name)
        data = {"manifest": manifest, "number": number, "digest": digest(replay, latents=storage == "ram")}
        (folder / "commit.writing").write_text(json.dumps(data))
        os.replace(folder / "commit.writing", commit)
        replay.forget_snapshots([name])


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("storage", ["ram", "disk"])
def test_kill_at_random_instants(tmp_path, storage):
    random = np.random.default_rng(3)
    numbers = []
    for _ in range(6):
        process = subprocess.Popen([sys.executable, __file__, str(tmp_path), storage])
        before = numbers[-1] if numbers else 0
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            if (tmp_path / "commit.json").exists() and json.loads((tmp_path / "commit.json").read_text())[
                "number"
            ] > before:
                break
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.25))
        assert process.poll() is None, "the process died by itself"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        saved = json.loads((tmp_path / "commit.json").read_text())
        replay = make_replay(tmp_path / "replay", storage, seed=0)
        replay.restore(saved["manifest"])
        assert digest(replay, latents=storage == "ram") == saved["digest"]
        numbers.append(saved["number"])
        if replay.num_windows:
            replay.sample(8)
    assert numbers == sorted(set(numbers))


if __name__ == "__main__":
    run_until_killed(Path(sys.argv[1]), sys.argv[2])
