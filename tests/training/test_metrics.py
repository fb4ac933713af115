import contextlib
import io
import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from reverie.errors import ReverieError
from reverie.training.metrics import (
    MetricWriter,
    append_scores,
    position_after,
    read_metrics,
    read_scores,
    truncate_scores,
)


def counters(env_steps):
    return {"env_steps": env_steps, "frames": 2 * env_steps, "updates": env_steps // 4}


def events(folder):
    accumulator = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def steps(folder):
    return [record["env_steps"] for record in read_metrics(folder)]


def test_lines_and_tensorboard_hold_the_same_scalars(tmp_path):
    writer = MetricWriter(tmp_path / "run")
    writer.write(counters(8), {"loss/b": 1 / 3, "episode/length": 12, "loss/a": np.float32(2.5)})
    writer.write(counters(16), {"loss/b": 123456789.123})
    writer.close()
    first, second = (json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    names = ["env_steps", "frames", "updates", "seconds", "episode/length", "loss/a", "loss/b"]
    assert list(first) == names
    assert [first[name] for name in names[:3]] == [8, 16, 2]
    assert first["loss/b"] == 0.3333333 and first["loss/a"] == 2.5 and first["episode/length"] == 12
    assert second["loss/b"] == 123456800.0
    assert 0 <= first["seconds"] <= second["seconds"] < 60
    scalars = events(tmp_path / "run").Scalars("loss/b")
    assert [event.step for event in scalars] == [8, 16]
    assert scalars[0].value == pytest.approx(1 / 3, rel=1e-6)


def test_non_finite_metrics_stay_valid_json_and_come_back(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.write(counters(1), {"a": math.nan, "b": -math.inf, "c": 1.0})
    writer.close()

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    raw = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert raw["a"] is None and raw["b"] is None
    assert raw["not_finite"] == {"a": "nan", "b": "-inf"}
    record = read_metrics(tmp_path)[0]
    assert math.isnan(record["a"]) and record["b"] == -math.inf and record["c"] == 1.0
    assert "not_finite" not in record


def test_summary_writer_is_lazy(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.flush()
    writer.close()
    writer.close()
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


def test_resume_cuts_back_to_the_checkpoint(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.write(counters(10), {"x": 1.0})
    writer.write(counters(20), {"x": 2.0})
    position = json.loads(json.dumps(writer.position()))
    writer.write(counters(30), {"x": 3.0})
    writer.write(counters(40), {"x": 4.0})
    writer.close()
    time.sleep(1.1)  # TensorBoard orders event files by their second
    resumed = MetricWriter(tmp_path, position)
    assert steps(tmp_path) == [10, 20]
    resumed.write(counters(25), {"x": 5.0})
    resumed.close()
    assert steps(tmp_path) == [10, 20, 25]
    assert [(event.step, event.value) for event in events(tmp_path).Scalars("x")] == [(10, 1.0), (20, 2.0), (25, 5.0)]


def test_the_position_after_some_lines(tmp_path):
    writer = MetricWriter(tmp_path)
    positions = [writer.position()]
    for step in (10, 20, 30):
        time.sleep(0.002)
        writer.write(counters(step), {"x": float(step)})
        positions.append(writer.position())
    writer.close()
    file = tmp_path / "metrics.jsonl"
    seconds = [0.0, *(json.loads(line)["seconds"] for line in file.read_text().splitlines())]
    assert seconds[1] > 0
    with file.open("a") as stream:
        stream.write('{"env_steps": 35, damaged}\n{"env_steps": 40')
    for kept, position, time_of_line in zip((5, 15, 25, 99), positions, seconds, strict=True):
        found = position_after(tmp_path, lambda record, kept=kept: record["env_steps"] <= kept, lambda record: 7)
        assert found["metrics_bytes"] == position["metrics_bytes"] and found["env_steps"] == position["env_steps"]
        assert found["seconds"] == time_of_line and found["step"] == (-1 if kept == 5 else 7)
    assert position_after(tmp_path / "none", lambda record: True, lambda record: 7)["metrics_bytes"] == 0


def test_tensorboard_over_another_axis(tmp_path):
    writer = MetricWriter(tmp_path)
    for update in range(1, 7):
        writer.write(counters(1000), {"x": float(update)}, step=update)
    writer.close()
    position = position_after(tmp_path, lambda record: record["x"] <= 3, lambda record: int(record["x"]))
    writer = MetricWriter(tmp_path, position)
    for update in range(4, 9):
        writer.write(counters(1000), {"x": 10.0 * update}, step=update)
    writer.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("x")]
    assert shown == [(1, 1), (2, 2), (3, 3), *((update, 10 * update) for update in range(4, 9))]


def test_seconds_go_on_after_a_resume(tmp_path):
    writer = MetricWriter(tmp_path, {"metrics_bytes": 0, "env_steps": -1, "seconds": 100.0})
    writer.write(counters(1), {})
    assert 100 <= read_metrics(tmp_path)[0]["seconds"] < 110
    assert 100 <= writer.position()["seconds"] < 110
    writer.close()


def test_without_a_checkpoint_the_log_starts_afresh(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.write(counters(10), {"x": 1.0})
    writer.close()
    time.sleep(1.1)
    writer = MetricWriter(tmp_path)
    writer.write(counters(5), {"x": 2.0})
    writer.close()
    assert steps(tmp_path) == [5]
    assert [event.step for event in events(tmp_path).Scalars("x")] == [5]


@pytest.mark.parametrize("extra", [b'{"env_steps": 99, "x"', b"\x00" * 70000])
def test_torn_last_line_is_skipped_and_repaired(tmp_path, extra):
    writer = MetricWriter(tmp_path)
    writer.write(counters(10), {"x": 1.0})
    writer.close()
    path = tmp_path / "metrics.jsonl"
    with open(path, "ab") as file:
        file.write(extra)
    assert steps(tmp_path) == [10]
    # The stored length lies inside the torn line, as after a power cut that lost the end of the file.
    MetricWriter(tmp_path, {"metrics_bytes": path.stat().st_size, "env_steps": 10, "seconds": 0.0}).close()
    assert path.read_bytes().endswith(b"}\n")
    assert steps(tmp_path) == [10]


def test_position_beyond_the_file_keeps_what_is_there(tmp_path):
    MetricWriter(tmp_path, {"metrics_bytes": 5000, "env_steps": 7, "seconds": 1.0}).close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""


def test_damaged_line_in_the_middle_is_reported(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"env_steps": 1}\n{"env\n{"env_steps": 3}\n')
    with pytest.raises(ReverieError, match="Line 2"):
        read_metrics(tmp_path)
    with pytest.raises(ReverieError, match="not written metrics"):
        read_metrics(tmp_path / "absent.jsonl")


def test_wrong_use_is_refused(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.write(counters(10), {})
    with pytest.raises(ValueError, match="backwards"):
        writer.write(counters(9), {})
    with pytest.raises(ValueError, match="updates"):
        writer.write({"env_steps": 11, "frames": 11}, {})
    with pytest.raises(ValueError, match="reserved"):
        writer.write(counters(11), {"seconds": 1.0})
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write(counters(11), {"x": 1.0})
    assert steps(tmp_path) == [10]


def test_video_and_image_reach_tensorboard(tmp_path):
    frames = np.zeros((7, 20, 30, 3), np.uint8)
    for index in range(7):
        frames[index, :, index * 4 : index * 4 + 4] = (255, 30 * index, 0)
    picture = np.arange(20 * 30 * 3, dtype=np.uint32).reshape(20, 30, 3).astype(np.uint8)
    writer = MetricWriter(tmp_path)
    writer.video("open_loop", frames, counters(40), fps=10)
    writer.image("plot", picture, counters(40))
    writer.image("gray", picture[..., 0], counters(40))
    writer.close()
    log = events(tmp_path)
    event = log.Images("open_loop")[0]
    assert (event.step, event.height, event.width) == (40, 20, 30)
    gif = Image.open(io.BytesIO(event.encoded_image_string))
    assert gif.format == "GIF" and gif.n_frames == 7 and gif.info["duration"] == 100
    gif.seek(3)
    np.testing.assert_allclose(np.asarray(gif.convert("RGB")), frames[3], atol=12)
    png = Image.open(io.BytesIO(log.Images("plot")[0].encoded_image_string))
    np.testing.assert_array_equal(np.asarray(png), picture)
    assert len(log.Images("gray")) == 1


def test_killed_process_loses_no_written_line(tmp_path):
    program = """
import os, signal, sys
from pathlib import Path
from reverie.training.metrics import MetricWriter
writer = MetricWriter(Path(sys.argv[1]))
for step in range(50):
    writer.write({"env_steps": step, "frames": step, "updates": 0}, {})
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert steps(tmp_path) == list(range(50))


def test_full_disk_raises_and_leaves_whole_lines(tmp_path):
    program = """
import resource, sys
from pathlib import Path
from reverie.training.metrics import MetricWriter
writer = MetricWriter(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    for step in range(1000):
        writer.write({"env_steps": step, "frames": step, "updates": 0}, {})
except OSError:
    print(step, Path(sys.argv[1], "metrics.jsonl").read_bytes()[-2:])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.write({"env_steps": step, "frames": step, "updates": 0}, {})
writer.close()
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    failed, ending = int(done.stdout.split()[0]), done.stdout.split()[1]
    assert ending == r"b'}\n'"
    assert 5 < failed < 30
    assert steps(tmp_path) == list(range(failed + 1))


def test_tensorboard_failure_is_raised_and_the_next_write_recovers(tmp_path, monkeypatch):
    writer = MetricWriter(tmp_path)
    writer.write(counters(1), {"x": 1.0})

    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer._events, "flush", full)
    with pytest.raises(OSError, match="No space"):
        writer.flush()
    time.sleep(1.1)
    writer.write(counters(2), {"x": 2.0})
    writer.close()
    assert steps(tmp_path) == [1, 2]
    assert events(tmp_path).Scalars("x")[-1].step == 2


def evaluation(env_steps, returns):
    return {
        **counters(env_steps),
        "episodes": len(returns),
        "returns": returns,
        "lengths": [10] * len(returns),
        "mean": float(np.mean(returns)),
        "std": float(np.std(returns)),
        "deterministic": True,
    }


def test_scores_round_trip_and_truncation(tmp_path):
    folder = tmp_path / "run"
    assert read_scores(folder) == []
    for env_steps in (100, 200, 300):
        append_scores(folder, evaluation(env_steps, [1.0, 3.0]))
    assert read_scores(folder)[1] == evaluation(200, [1.0, 3.0])
    truncate_scores(folder, 200)
    assert [entry["env_steps"] for entry in read_scores(folder)] == [100, 200]
    truncate_scores(folder, -1)
    assert read_scores(folder) == []
    assert os.listdir(folder) == ["scores.json"]


def test_non_finite_scores_are_null_in_the_file(tmp_path):
    append_scores(tmp_path, evaluation(100, [1.0, 2.0]) | {"returns": [1.0, math.inf], "mean": math.inf})
    raw = json.loads((tmp_path / "scores.json").read_text())
    assert raw[0]["returns"] == [1.0, None] and raw[0]["mean"] is None
    entry = read_scores(tmp_path)[0]
    assert entry["returns"][0] == 1.0 and math.isnan(entry["returns"][1]) and math.isnan(entry["mean"])


def test_wrong_scores_are_refused(tmp_path):
    with pytest.raises(ValueError, match="env_steps"):
        append_scores(tmp_path, {"mean": 1.0})
    (tmp_path / "scores.json").write_text('{"mean": 1}')
    with pytest.raises(ReverieError, match="scores.json is damaged.*expected a list"):
        read_scores(tmp_path)


def test_tensorboard_reads_in_the_order_of_steps_after_the_clock_was_set_back(tmp_path, monkeypatch):
    def write(at, step, resume_at):
        monkeypatch.setattr("reverie.training.event_log.time.time", lambda: at)
        with contextlib.closing(MetricWriter(tmp_path, resume_at)) as writer:
            writer.write(counters(step), {"x": float(step)})
            return writer.position()

    position = write(2_000_000_000.0, 10, None)
    position = write(1_000_000_000.0, 20, position)
    write(1_000_000_000.0, 30, position)
    files = sorted(path.name for path in (tmp_path / "tensorboard").iterdir())
    assert [name[20:30] for name in files] == ["2000000000", "2000000001", "2000000002"]
    accumulator = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in accumulator.Scalars("x")] == [10, 20, 30]


@pytest.mark.parametrize(
    "line",
    ["[" * 10**5, '{"env_steps": "1"}', '{"env_steps": 1, "x": [1]}', '{"env_steps": NaN}', "7", " " * 3 * 2**20],
    ids=["deep", "text", "list", "nan", "number", "long"],
)
def test_lines_that_no_run_writes_are_refused(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text(f'{line}\n{{"env_steps": 3}}\n')
    with pytest.raises(ReverieError, match="Line 1 .* is damaged"):
        read_metrics(tmp_path)
