"""Metrics of a run: `metrics.jsonl`, TensorBoard and `scores.json`.

`metrics.jsonl` holds one JSON object per line: the three counters (`env_steps`, `frames`, `updates`), `seconds` of wall
clock since the run began (time between a kill and the resume does not count), then the metrics in the order of their
names. JSON has no NaN or infinity: such a metric is stored as null, and the last key of the line, `not_finite`, maps
its name to "nan", "inf" or "-inf". `read_metrics` puts the float back. The first line also has the run's settings, as
an object `hyperparameters`.

TensorBoard shows the same numbers, over `env_steps` unless the writer is told otherwise. `scores.json` is a list of
evaluations.
"""

from __future__ import annotations

import io
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reverie.errors import ReverieError
from reverie.safe_files import COUNT, NUMBER, RECORD, WHOLE, check_shape, open_regular, optional, parse_json
from reverie.training.event_log import EventLog, newest_stamp
from reverie.training.files import read_json, write_json

COUNTERS = ("env_steps", "frames", "updates")
METRICS_FILE = "metrics.jsonl"
SCORES_FILE = "scores.json"
TENSORBOARD_FOLDER = "tensorboard"
LINE_BYTES = 2**20
"""Longest line of `metrics.jsonl` that is read; the library's own have a few kilobytes."""
_LINE = {
    "env_steps": WHOLE,
    "frames?": WHOLE,
    "updates?": WHOLE,
    "seconds?": NUMBER,
    "generation?": WHOLE,
    "not_finite?": RECORD,
    "hyperparameters?": RECORD,
}
_SCORE = {
    "env_steps": COUNT,
    "frames?": COUNT,
    "updates?": COUNT,
    "generation?": COUNT,
    "mean?": optional(NUMBER),
    "std?": optional(NUMBER),
    "tried?": optional(NUMBER),
    "episodes?": COUNT,
    "returns?": [optional(NUMBER)],
    "lengths?": [COUNT],
    "episode_limit?": COUNT,
    "cut_off?": COUNT,
    "info?": RECORD,
}
"""What a line of `metrics.jsonl` and an entry of `scores.json` must hold; see `check_shape`."""
HYPERPARAMETER_METRICS = ("evaluation/return", "episode/return")
"""What TensorBoard's page of hyperparameters shows beside them."""
_RESERVED = (*COUNTERS, "seconds", "not_finite", "hyperparameters")


class MetricWriter:
    """Appends the metrics of one run to `metrics.jsonl` and to TensorBoard.

    Each line reaches the operating system before `write` returns, so killing the process loses nothing; `flush`
    makes it survive a power cut. One process writes; the file is not locked. Every method may raise OSError (disk
    full); after a failed `write` the file still ends with a whole line.
    """

    def __init__(
        self,
        folder: Path,
        resume_at: Mapping[str, Any] | None = None,
        hyperparameters: Mapping[str, bool | str | float] | None = None,
    ) -> None:
        """Opens the log of a run, cut back to the position of a checkpoint.

        Args:
            folder: run folder; made if missing.
            resume_at: what `position` returned when the checkpoint was written, or `position_after`: lines after it
                are cut off and TensorBoard hides what came later. None starts fresh: what an earlier run left is
                removed from `metrics.jsonl` and hidden in TensorBoard.
            hyperparameters: for the first line of `metrics.jsonl`, and for TensorBoard's page of that name and a table
                among its texts; written once, when the run begins its log.

        Raises:
            OSError: the folder cannot be made or the file cannot be opened.
        """
        position = resume_at or {"metrics_bytes": 0, "env_steps": -1, "seconds": 0.0}
        folder.mkdir(parents=True, exist_ok=True)
        self._tensorboard_folder = folder / TENSORBOARD_FOLDER
        self._events: EventLog | None = None
        self._purge_step: int | None = int(position.get("step", position["env_steps"])) + 1
        if newest_stamp(self._tensorboard_folder) is None:
            self._purge_step = None  # nothing to hide
        self._hyperparameters = dict(hyperparameters or {})
        self._shows_hyperparameters = self._purge_step is None
        self._env_steps = int(position["env_steps"])  # of the last line
        self._start = time.monotonic() - float(position["seconds"])
        self._descriptor: int | None = open_regular(folder / METRICS_FILE, os.O_RDWR | os.O_CREAT)
        self._bytes = _last_line_end(self._descriptor, int(position["metrics_bytes"]))
        os.ftruncate(self._descriptor, self._bytes)
        os.lseek(self._descriptor, self._bytes, os.SEEK_SET)

    def write(self, counters: Mapping[str, int], metrics: Mapping[str, float], step: int | None = None) -> None:
        """Appends one line to `metrics.jsonl` and the same scalars to TensorBoard.

        Args:
            counters: `env_steps`, `frames` and `updates` at this moment.
            metrics: scalars by name, for example `loss/world_model`; rounded to 7 significant digits, integers kept.
            step: where TensorBoard shows them, if not over `env_steps`.

        Raises:
            ValueError: a counter is missing, `env_steps` went backwards, or a metric has a reserved name.
            OSError: the disk is full; the file ends with the last whole line.
        """
        env_steps = self._checked_env_steps(counters)
        reserved = sorted(set(metrics) & set(_RESERVED))
        if reserved:
            raise ValueError(f"Metric names {reserved} are reserved for the counters; rename them.")
        scalars = {name: _rounded(metrics[name]) for name in sorted(metrics)}
        record: dict[str, Any] = {name: int(counters[name]) for name in COUNTERS}
        record["seconds"] = round(self.seconds, 3)
        record |= {name: value if math.isfinite(value) else None for name, value in scalars.items()}
        not_finite = {name: str(value) for name, value in scalars.items() if not math.isfinite(value)}
        if not_finite:
            record["not_finite"] = not_finite
        if self._hyperparameters and not self._bytes:
            record["hyperparameters"] = self._hyperparameters
        self._append((json.dumps(record, allow_nan=False) + "\n").encode())
        self._env_steps = env_steps
        values = [{"tag": name, "simple_value": float(value)} for name, value in scalars.items()]
        self._add_summary(values, env_steps if step is None else step)

    def video(self, name: str, frames: np.ndarray, counters: Mapping[str, int], fps: int = 12) -> None:
        """Shows a video in TensorBoard, as an animated GIF among the images.

        Args:
            name: tag of the video.
            frames: uint8 [T, H, W, 3].
            counters: as for `write`.
            fps: frames per second.

        Raises:
            OSError: the disk is full.
        """
        from reverie.dream.pictures import encode_gif

        self._add_image(name, encode_gif(frames, fps), frames.shape[1], width=frames.shape[2], counters=counters)

    def image(self, name: str, array: np.ndarray, counters: Mapping[str, int]) -> None:
        """Shows a picture in TensorBoard.

        Args:
            name: tag of the picture.
            array: uint8 [H, W, 3] or [H, W].
            counters: as for `write`.

        Raises:
            OSError: the disk is full.
        """
        from PIL import Image

        encoded = io.BytesIO()
        Image.fromarray(array).save(encoded, format="PNG")
        self._add_image(name, encoded.getvalue(), array.shape[0], width=array.shape[1], counters=counters)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds that the run has taken so far, over all resumes."""
        return time.monotonic() - self._start

    def flush(self) -> None:
        """Makes every line written so far survive a power cut (fsync), and hands TensorBoard its events."""
        os.fsync(self._open_descriptor())
        if self._events is not None:
            self._guarded(self._events.flush)

    def position(self) -> dict[str, Any]:
        """Flushes, and returns where the log stands, as JSON types to store in a checkpoint.

        Returns:
            `metrics_bytes` (length of the file), `env_steps` (of the last line, -1 before the first) and `seconds`.
        """
        self.flush()
        return {"metrics_bytes": self._bytes, "env_steps": self._env_steps, "seconds": round(self.seconds, 3)}

    def close(self) -> None:
        """Flushes and closes both logs; a second call does nothing."""
        if self._descriptor is None:
            return
        try:
            self.flush()
        finally:
            os.close(self._descriptor)
            self._descriptor = None
            events, self._events = self._events, None
            if events is not None:
                events.close()

    def _checked_env_steps(self, counters: Mapping[str, int]) -> int:
        """The x axis of a record, refused if a counter is missing or the axis would run backwards."""
        missing = [name for name in COUNTERS if name not in counters]
        if missing:
            raise ValueError(f"The counters {missing} are missing; give {list(COUNTERS)}.")
        env_steps = int(counters["env_steps"])
        if env_steps < self._env_steps:
            raise ValueError(
                f"env_steps went backwards, from {self._env_steps} to {env_steps}; "
                "after loading a checkpoint make a new MetricWriter with resume_at."
            )
        return env_steps

    def _open_descriptor(self) -> int:
        if self._descriptor is None:
            raise ValueError("The MetricWriter is closed; make a new one.")
        return self._descriptor

    def _append(self, line: bytes) -> None:
        """Appends one line as a whole; on a full disk the part that got through is removed again."""
        descriptor = self._open_descriptor()
        written = 0
        try:
            while written < len(line):
                written += os.write(descriptor, line[written:])
        except OSError:
            os.ftruncate(descriptor, self._bytes)
            os.lseek(descriptor, self._bytes, os.SEEK_SET)
            raise
        self._bytes += written

    def _add_image(self, name: str, encoded: bytes, height: int, width: int, counters: Mapping[str, int]) -> None:
        """Stores an encoded PNG or GIF as an image summary."""
        image = {"height": height, "width": width, "colorspace": 3, "encoded_image_string": encoded}
        self._add_summary([{"tag": name, "image": image}], self._checked_env_steps(counters))

    def _add_summary(self, values: list[dict[str, Any]], env_steps: int) -> None:
        """Hands TensorBoard one event with several values, given as the fields of `Summary.Value`."""
        if not values:
            return
        self._guarded(lambda: self._event_log().add(values, env_steps))

    def _event_log(self) -> EventLog:
        """The event file, made on first use."""
        if self._events is None:
            self._open_descriptor()
            self._events = EventLog(self._tensorboard_folder, self._purge_step)
            self._purge_step = None
            if self._hyperparameters and self._shows_hyperparameters:
                self._events.add_hyperparameters(self._hyperparameters, HYPERPARAMETER_METRICS)
                self._shows_hyperparameters = False
        return self._events

    def _guarded(self, action: Callable[[], object]) -> None:
        """Does something with the event file; after an OSError the next call makes another one."""
        try:
            action()
        except OSError:
            self._events = None
            raise


def flat_settings(description: Mapping[str, Any]) -> dict[str, bool | str | float]:
    """The settings of a run for its log: TensorBoard takes truth values, text and numbers.

    Args:
        description: as in `config.json`; what the interface holds and the code of the environment is left out.
    """
    values: dict[str, Any] = {"agent": description["agent"], "preset": description.get("preset")}
    sections = {"environment": "environment/", "settings": "", "agent_config": ""}
    for section, prefix in sections.items():
        own = {name: value for name, value in description[section].items() if name != "code"}
        values |= {f"{prefix}{name}" if name != section else name: value for name, value in own.items()}
    return {name: value if isinstance(value, (bool, int, float, str)) else str(value) for name, value in values.items()}


def _last_line_end(descriptor: int, limit: int) -> int:
    """Returns the length in bytes of the whole lines within the first `limit` bytes of an open file."""
    end = min(limit, os.fstat(descriptor).st_size)
    while end > 0:
        start = max(0, end - 65536)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _rounded(value: float) -> float | int:
    """A scalar (Python, numpy or a tensor without axes) as an int, or as a float of 7 significant digits."""
    if isinstance(value, (int, np.integer)):
        return int(value)
    return float(f"{float(value):.7g}")


def position_after(
    folder: Path, kept: Callable[[dict[str, Any]], bool], step: Callable[[dict[str, Any]], int]
) -> dict[str, Any]:
    """Where the log of a run stood after its first lines, for `resume_at` of `MetricWriter`.

    Args:
        folder: run folder.
        kept: whether a line, as written, was there already; the first that was not, or is damaged, ends the search.
        step: where TensorBoard shows a line.

    Returns:
        What `MetricWriter.position` returned then, and `step` of the last line.
    """
    position: dict[str, Any] = {"metrics_bytes": 0, "env_steps": -1, "seconds": 0.0, "step": -1}
    file = folder / METRICS_FILE
    for line in _lines(file) if file.exists() else ():
        try:
            if not line.endswith(b"\n"):
                break
            record = _parsed(line, str(file))
            after = {"env_steps": record["env_steps"], "seconds": record["seconds"], "step": step(record)}
            if not kept(record):
                break
        except (ReverieError, KeyError, TypeError):
            break
        position |= {**after, "metrics_bytes": position["metrics_bytes"] + len(line)}
    return position


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads `metrics.jsonl`, also while a run writes to it.

    Args:
        path: the file, or the run folder that holds it.

    Returns:
        One dictionary per line, oldest first; non-finite metrics are floats again, `not_finite` and `hyperparameters`
        are gone. A torn last line is left out.

    Raises:
        ReverieError: there is no such file, it is not a regular file, or a line before the last is damaged.
    """
    file = path / METRICS_FILE if path.is_dir() else path
    records: list[dict[str, Any]] = []
    wrong: ReverieError | None = None
    try:
        for number, line in enumerate(_lines(file), start=1):
            if wrong is not None:
                raise wrong
            try:
                record = _parsed(line, f"line {number} of {file}")
                record |= {name: float(text) for name, text in record.pop("not_finite", {}).items()}
                record.pop("hyperparameters", None)
                records.append(record)
            except (ReverieError, ValueError, AttributeError, TypeError) as error:
                reason = str(error).partition(";")[0]
                wrong = ReverieError(f"Line {number} of {file} is damaged ({reason}); delete that line.")
    except FileNotFoundError as error:
        raise ReverieError(f"There is no file {file}; the run has not written metrics yet.") from error
    return records


def _lines(file: Path) -> Iterator[bytes]:
    """The lines of a regular file, each with its end; what is longer than any line of ours is cut in pieces."""
    with os.fdopen(open_regular(file), "rb") as opened:
        while line := opened.readline(LINE_BYTES):
            yield line


def _parsed(line: bytes, name: str) -> dict[str, Any]:
    """A line as a dictionary with the usual counters and numbers."""
    record = parse_json(line, name)
    check_shape(record, _LINE, name)
    numbers = {key: optional(NUMBER) for key in record if key not in {name.rstrip("?") for name in _LINE}}
    check_shape(record, numbers, name)
    return dict(record)


def append_scores(folder: Path, entry: Mapping[str, Any]) -> None:
    """Adds one evaluation to `scores.json`, atomically.

    Args:
        folder: run folder; made if missing.
        entry: `env_steps`, `frames`, `updates`, `episodes`, `returns`, `lengths`, `mean`, `std`, `deterministic`.
            Non-finite returns are stored as null.

    Raises:
        ValueError: `env_steps` is missing.
        OSError: the disk is full; the file keeps its old content.
    """
    if "env_steps" not in entry:
        raise ValueError(f"An evaluation needs env_steps, got the keys {sorted(entry)}.")
    folder.mkdir(parents=True, exist_ok=True)
    _write_scores(folder, [*read_scores(folder), dict(entry)])


def read_scores(folder: Path) -> list[dict[str, Any]]:
    """Reads the evaluations of a run, oldest first; an empty list if there are none yet.

    Returns that were not finite come back as NaN.

    Raises:
        ReverieError: `scores.json` does not hold a list of evaluations with `env_steps`.
    """
    path = folder / SCORES_FILE
    if not path.exists():
        return []
    scores = read_json(path, [_SCORE])
    return [{name: _from_null(value) for name, value in entry.items()} for entry in scores]


def truncate_scores(folder: Path, env_steps: int) -> None:
    """Drops the evaluations made after a checkpoint.

    Args:
        folder: run folder.
        env_steps: counter of the checkpoint that the run resumes from; -1 if there is none, which drops everything.

    Raises:
        OSError: the disk is full; the file keeps its old content.
    """
    scores = read_scores(folder)
    kept = [entry for entry in scores if entry["env_steps"] <= env_steps]
    if len(kept) < len(scores):
        _write_scores(folder, kept)


def _write_scores(folder: Path, scores: list[dict[str, Any]]) -> None:
    write_json(folder / SCORES_FILE, [{name: _to_null(value) for name, value in entry.items()} for entry in scores])


def _to_null(value: Any) -> Any:
    """Replaces non-finite floats by None, also inside a list or array."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_to_null(item) for item in value]
    if isinstance(value, (float, np.floating)) and not math.isfinite(value):
        return None
    return value


def _from_null(value: Any) -> Any:
    """Inverse of `_to_null`: None becomes NaN."""
    if isinstance(value, list):
        return [_from_null(item) for item in value]
    return math.nan if value is None else value
