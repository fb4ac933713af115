"""Collected frames on disk, as memory maps that grow episode by episode."""

from __future__ import annotations

import contextlib
import mmap
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverie.errors import CheckpointError, RunFolderError
from reverie.replay.files import checksum, damaged, map_array
from reverie.safe_files import COUNT, POSITIVE, RECORD
from reverie.training.files import read_json, write_json
from reverie.training.pipeline.players import Players
from reverie.training.pipeline.policies import Job, Policy

PROGRESS = "progress.json"
PROGRESS_SHAPE = {"rows": COUNT, "tried?": COUNT, "steps?": COUNT, "lengths": [POSITIVE], "crc32?": RECORD}
CHECKED_AT_ONCE = 4096
"""Rows whose checksum is taken at once."""
SPARE_BYTES = 100_000_000
"""Free space that is left for the other stages. (Writing to a map where none is left would kill the process.)"""
MOST_TOO_SHORT = 500
"""Consecutive episodes that may be too short to be stored."""
ROUND, COMMIT_EVERY = 200, 20
"""Episodes that are handed out at once, and those after which they are counted as stored."""


class FrameStore:
    """Rows of whole episodes: image, action, reward and flags, one `.npy` file each.

    The files have room for `capacity` rows from the beginning, and take disk space only for rows that are written.
    What `commit` has counted survives a crash.

    Args:
        folder: made if it is not there.
        name: of the image part.
        action_width: A.
        capacity: maximum number of rows; None takes the files as they are.

    Attributes:
        rows: stored so far.
        lengths: rows of each episode.
        tried: episodes that were played, also those too short to be stored.
        steps: decisions in them.
        unchecked: rows that an earlier process stored and `verify` has not looked at.

    Raises:
        RunFolderError: the folder holds rows of other shapes, or a file is missing or damaged.
    """

    def __init__(self, folder: Path, name: str, action_width: int, capacity: int | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name = folder, name
        fields: dict[str, tuple[tuple[int, ...], Any]] = {
            name: ((64, 64, 3), np.uint8),
            "action": ((action_width,), np.float32),
            "reward": ((), np.float32),
            "is_first": ((), np.bool_),
            "is_terminal": ((), np.bool_),
        }
        self._read_progress()
        self._paths = {key: folder / f"{number}_{key.replace('/', '_')}.npy" for number, key in enumerate(fields)}
        self.arrays: dict[str, np.memmap[Any, Any]] = {}
        for key, (shape, dtype) in fields.items():
            path = self._paths[key]
            if not path.exists():
                if capacity is None or self.rows:
                    raise RunFolderError(
                        f"{folder} has no {path.name}, which should hold {self.rows:,} rows; restore it from a copy, "
                        f"or collect in another --run"
                    )
                np.lib.format.open_memmap(path, "w+", dtype, (capacity, *shape)).flush()
            try:
                array = map_array(path, (None, *shape), np.dtype(dtype), writable=True)
            except CheckpointError as error:
                reason = str(error).partition(";")[0]
                raise RunFolderError(f"{reason}; restore it from a copy, or choose another --run") from error
            if len(array) < self.rows or (capacity is not None and len(array) != capacity):
                raise RunFolderError(
                    f"{path} has {len(array):,} rows, expected {self.rows if capacity is None else capacity:,}; choose "
                    f"another --run"
                )
            self.arrays[key] = array

    def _read_progress(self) -> None:
        """Takes over what an earlier process counted as stored."""
        path = self.folder / PROGRESS
        progress: dict[str, Any] = read_json(path, PROGRESS_SHAPE) if path.exists() else {"rows": 0, "lengths": []}
        self.rows: int = progress["rows"]
        self.lengths: list[int] = progress["lengths"]
        if sum(self.lengths) != self.rows:
            raise CheckpointError(
                f"{path} is damaged: its episodes have {sum(self.lengths):,} rows together, and it counts {self.rows:,}"
            )
        self.tried: int = progress.get("tried", len(self.lengths))
        self.steps: int = progress.get("steps", self.rows - len(self.lengths))
        self._crc32: dict[str, int] = progress.get("crc32", {})
        self.unchecked = self.rows

    def verify(self, progress: Callable[[int], None] = lambda rows: None) -> None:
        """Compares rows that an earlier process stored with their checksums; those of older versions get theirs here.

        Args:
            progress: called with the number of rows that were read.

        Raises:
            CheckpointError: the rows of a file are not those that were stored; names the file.
        """
        if not self.unchecked:
            return
        found = dict.fromkeys(self.arrays, 0)
        for begin in range(0, self.unchecked, CHECKED_AT_ONCE):
            part = slice(begin, min(begin + CHECKED_AT_ONCE, self.unchecked))
            for key, array in self.arrays.items():
                found[key] = checksum(np.asarray(array[part]), found[key])
            progress(part.stop)
        for key, value in found.items():
            if self._crc32.get(key, value) != value:
                raise damaged(self._paths[key], "its rows are not those that were stored (checksum)")
        self._crc32, self.unchecked = found, 0

    @property
    def starts(self) -> NDArray[np.int64]:
        """Number of the first row of every episode."""
        return np.concatenate([[0], np.cumsum(self.lengths)[:-1]]).astype(np.int64)

    @property
    def row_bytes(self) -> int:
        """Disk space of one row."""
        return sum(array.nbytes // len(array) for array in self.arrays.values())

    def append(self, episode: Mapping[str, NDArray[Any]]) -> None:
        """Writes the rows of one episode, [T, ...] each.

        Raises:
            RunFolderError: there is no space left for it.
        """
        length = len(episode["reward"])
        size = length * self.row_bytes
        free = shutil.disk_usage(self.folder).free
        if free < size + SPARE_BYTES:
            raise RunFolderError(
                f"{self.folder} has {free / 1e6:.0f} MB left, too few for another episode: free some space, then "
                f"repeat the command to continue"
            )
        self.verify()
        rows = slice(self.rows, self.rows + length)
        for key, array in self.arrays.items():
            array[rows] = episode[key]
            self._crc32[key] = checksum(np.asarray(array[rows]), self._crc32.get(key, 0))
        self.rows = rows.stop
        self.lengths.append(length)

    @contextlib.contextmanager
    def read_at_random(self) -> Iterator[NDArray[np.uint8]]:
        """The frames, for reading in random order, where most of what a system reads ahead would be wasted."""
        images = self.arrays[self.name]
        memory: Any = images._mmap  # type: ignore[attr-defined]
        advise = memory.madvise if hasattr(mmap, "MADV_RANDOM") else None
        if advise:
            advise(mmap.MADV_RANDOM)
        try:
            yield images
        finally:
            if advise:
                advise(mmap.MADV_NORMAL)

    def copy_from(self, other: FrameStore) -> None:
        """Takes all episodes of another store, in place of its own.

        Raises:
            RunFolderError: there is no space left for them.
        """
        other.verify()
        self.rows, self.lengths, self._crc32, self.unchecked = 0, [], {}, 0
        for start, length in zip(other.starts, other.lengths, strict=True):
            self.append({key: array[start : start + length] for key, array in other.arrays.items()})
        self.tried, self.steps = other.tried, other.steps
        self.commit()

    def commit(self) -> None:
        """Makes everything durable that was appended."""
        for array in self.arrays.values():
            array.flush()
        counts = {"rows": self.rows, "tried": self.tried, "steps": self.steps, "crc32": self._crc32}
        write_json(self.folder / PROGRESS, {**counts, "lengths": self.lengths})


def collect(
    players: Players,
    policy: Policy,
    store: FrameStore,
    episodes: int,
    longest: int,
    shortest: int,
    job: Callable[[int], Job],
    progress: Callable[[int], None],
    stop: Callable[[], bool],
) -> None:
    """Plays episodes into a store until it has enough (released code of World Models, `extract.py`).

    Args:
        players: play.
        policy: acts.
        store: continues from the episodes that it has.
        episodes: how many are wanted.
        longest: rows after which an episode is cut off.
        shortest: episodes with fewer rows are not stored.
        job: the job of each number; episode after episode is tried from the first number that was not.
        progress: called with the number of stored episodes.
        stop: asked often; the episodes that are being played are given up if it says true.

    Raises:
        RunFolderError: hundreds of consecutive episodes were too short, or there is no space left.
    """
    stored_at = store.tried
    while len(store.lengths) < episodes and not stop():
        jobs = [job(store.tried + k) for k in range(min(ROUND, episodes - len(store.lengths)))]
        for episode in players.play(policy, jobs, longest=longest, record=True, stop=stop):
            store.tried += 1
            store.steps += episode.length
            assert episode.rows is not None
            if episode.length + 1 >= shortest:
                store.append(episode.rows)
                stored_at = store.tried
            if store.tried % COMMIT_EVERY == 0:
                store.commit()
            progress(len(store.lengths))
        store.commit()
        if store.tried - stored_at >= MOST_TOO_SHORT:
            raise RunFolderError(
                f"none of the last {store.tried - stored_at} episodes had {shortest} observations; lower "
                f"--shortest-episode in another --run"
            )
