"""Sequence replay: uniform windows over the streams of parallel environments, with an online queue.

Time rows have absolute numbers from 0 on. The replay holds the rows `first` to `end - 1` of all E environments, which
advance in lockstep; a window is `length` consecutive rows of one environment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from reverie.errors import ConfigError
from reverie.replay.chunks import ChunkFiles, ChunkStore, DiskChunks, MemoryChunks
from reverie.replay.fields import Field, check_fields
from reverie.replay.files import Array
from reverie.replay.layout import write_notes
from reverie.replay.manifest import (
    SAVE_NAME,
    ChunkRecord,
    Manifest,
    chunk_rows_between,
    make_layout,
    restore_random,
)
from reverie.replay.persistence import check_chunks, extend_record, load_chunks
from reverie.replay.saves import Saves


@dataclass(frozen=True)
class Batch:
    """A batch of windows.

    Attributes:
        data: for each field a new contiguous array [B, L, ...].
        index: int64 [B, 2], the environment and absolute start time of each window; to be handed back to
            `SequenceReplay.update_latents`.
    """

    data: dict[str, np.ndarray]
    index: np.ndarray


class SequenceReplay:
    """Replay of the newest rows of E environments, sampled as windows of `length` rows.

    Windows start at every row (stride 1) and may cross episode borders, never environments. Each new non-overlapping
    window is served once by the online queue before uniform samples fill the batch.

    Rows are forgotten one time row at a time, oldest first; memory and files are given back a chunk at a time, so at
    most `capacity // num_envs + 2 * chunk_rows` time rows take memory. Not safe to use from several threads at once.

    With storage `disk` the chunks are memory-mapped files and latents are rewritten in place: after a crash they may
    be newer than the last save; everything else is as it was at the save. A map holds a file descriptor: where chunks
    are many and the limit (`ulimit -n`) is low, maps are reopened and sampling takes several times longer.

    With storage `ram` a save writes the new rows to the same files and the latents to a snapshot, and a restore is
    exact. A folder has one line of history: continuing from an older save overwrites the rows of newer ones, whose
    restore then fails with CheckpointError.

    Args:
        fields: fields of a row; `is_first` and `is_last` (bool scalars) are required.
        num_envs: number of environments E.
        capacity: number of env rows (time rows x E) to keep at most.
        length: rows in a window, L.
        seed: seed of the sampling.
        folder: where saves and, with storage `disk`, the rows go; made when first needed.
        storage: `ram` or `disk`.
        online: whether to serve new windows first.
        chunk_rows: time rows in a chunk; at most the capacity in time rows is used.

    Raises:
        ConfigError: a setting cannot work, such as a capacity below one window for every environment.
    """

    def __init__(
        self,
        fields: Sequence[Field],
        num_envs: int,
        capacity: int,
        length: int,
        seed: int,
        *,
        folder: Path | None = None,
        storage: Literal["ram", "disk"] = "ram",
        online: bool = True,
        chunk_rows: int = 1024,
    ) -> None:
        check_fields(fields)
        _check_settings(
            num_envs,
            capacity,
            length,
            seed=seed,
            folder=folder,
            storage=storage,
            chunk_rows=chunk_rows,
        )
        self.fields = tuple(fields)
        self.num_envs = num_envs
        self.capacity = capacity
        self.length = length
        self.storage = storage
        self.online = online
        self.folder = Path(folder) if folder is not None else None
        self._row_limit = capacity // num_envs
        self._position = {field.name: number for number, field in enumerate(self.fields)}
        self._first = 0
        self._end = 0
        self._online_cursor = 0
        self._closed_rows: list[int] = []
        self._episode_starts = np.full(num_envs, -1, np.int64)
        self._random = np.random.Generator(np.random.PCG64(seed))
        self._records: dict[int, ChunkRecord] = {}
        self._saves = Saves(self.folder / "saves") if self.folder is not None else None
        self._use_chunk_rows(min(chunk_rows, self._row_limit))

    def _use_chunk_rows(self, chunk_rows: int) -> None:
        """Starts an empty chunk store with chunks of the given size."""
        self._chunk_rows = chunk_rows
        self._notes_written = False
        self._files: ChunkFiles | None = None
        if self.folder is not None:
            self._files = ChunkFiles(self.folder, self.fields, self.num_envs, chunk_rows=chunk_rows)
        self._store: ChunkStore
        if self.storage == "disk":
            assert self._files is not None
            self._store = DiskChunks(self._files, self.fields)
        else:
            self._store = MemoryChunks(self.fields, self.num_envs, chunk_rows)

    def __len__(self) -> int:
        """Number of stored env rows (time rows x E), at most the capacity."""
        return (self._end - self._first) * self.num_envs

    @property
    def num_windows(self) -> int:
        """Number of different windows that can be sampled now."""
        return max(0, self._end - self._first - self.length + 1) * self.num_envs

    def add(self, row: Mapping[str, np.ndarray]) -> None:
        """Appends one row for each environment and forgets the oldest one if the replay is full.

        Args:
            row: for each field an array [E, ...]; values are cast to the dtype of the field.

        Raises:
            ValueError: a field is missing, unknown or has another shape; nothing is stored.
            OSError: storage is `disk` and the disk is full or not writable; nothing is stored.
        """
        values = self._checked_row(row)
        chunk, position = divmod(self._end, self._chunk_rows)
        if position == 0:
            self._new_chunk(chunk)
        for array, value in zip(self._store.arrays(chunk), values, strict=True):
            array[position] = value
        self._episode_starts[values[self._position["is_first"]].astype(bool, copy=False)] = self._end
        self._end += 1
        if self._end - self._first > self._row_limit:
            self._evict()

    def sample(self, batch_size: int) -> Batch:
        """Draws windows: first new ones from the online queue, then uniform ones with replacement.

        In the batch, `is_last` is True on every row before an `is_first` row; `is_first` is not forced at row 0.

        Args:
            batch_size: number of windows B.

        Returns:
            Arrays [B, L, ...] and their index.

        Raises:
            ValueError: no window is stored yet.
        """
        if self.num_windows == 0:
            raise ValueError(
                f"The replay holds {self._end - self._first} time rows, too few for a window of {self.length}; "
                "sample when num_windows > 0."
            )
        index = self._draw(batch_size)
        return Batch(self._gather(index), index)

    def update_latents(self, index: np.ndarray, offset: int, latents: Mapping[str, np.ndarray]) -> None:
        """Writes latents back to the rows that a batch came from; rows forgotten meanwhile are skipped.

        Where windows of the batch overlap, the later window wins.

        Args:
            index: `Batch.index`, [B, 2].
            offset: first row of each window that is rewritten.
            latents: for some or all latent fields an array [B, n, ...] for the window rows `offset` to
                `offset + n - 1`, usually with n = L - offset.

        Raises:
            ValueError: a field is unknown or not a latent, or a shape does not fit; nothing is written.
        """
        arrays, steps = self._checked_latents(index, offset, latents)
        for number, (env, start) in enumerate(index.tolist()):
            origin = start + offset
            segments = self._segments(max(origin, self._first), min(origin + steps, self._end))
            for chunk, low, high in segments:
                begin = chunk * self._chunk_rows + low - origin
                stored = self._store.arrays(chunk)
                for position, values in arrays:
                    stored[position][low:high, env] = values[number, begin : begin + high - low]

    def close_episodes(self) -> None:
        """Marks the newest row of each environment as `is_last` (truncated) if it is not.

        For a run that resumes with environments that cannot be restored; the next row must be `is_first`. Files are
        not changed by it: the mark is kept in the manifests and set in the sampled batches.
        """
        if self._end > self._first and not self._newest_is_last().all():
            self._closed_rows.append(self._end - 1)

    def current_episodes(self) -> list[np.ndarray | None]:
        """The actions of the open episode of each environment, to bring a deterministic environment back.

        Returns:
            For each environment the actions [n, A] of the rows from the newest `is_first` row on, the newest row
            included; an empty array [0, A] if no episode is open (nothing stored, or the newest row is `is_last`);
            None if the start of the episode is forgotten or was never stored.

        Raises:
            ConfigError: the replay has no field `action`.
        """
        if "action" not in self._position:
            raise ConfigError("The replay has no field 'action'; current_episodes needs it.")
        field = self.fields[self._position["action"]]
        episodes: list[np.ndarray | None] = []
        finished = self._newest_is_last() if self._end > self._first else np.ones(self.num_envs, bool)
        for env, start in enumerate(self._episode_starts.tolist()):
            if finished[env]:
                episodes.append(np.zeros((0, *field.shape), field.dtype))
            elif start < self._first:
                episodes.append(None)
            else:
                parts = [
                    self._store.arrays(chunk)[self._position["action"]][low:high, env]
                    for chunk, low, high in self._segments(start, self._end)
                ]
                episodes.append(np.concatenate(parts))
        return episodes

    def save(self, name: str) -> dict[str, Any]:
        """Makes everything so far durable.

        Earlier saves stay restorable, also one of the same name, until `forget_snapshots` is called. Store the
        returned manifest with the checkpoint; call `forget_snapshots` only after that.

        Args:
            name: name of the save, for `forget_snapshots`.

        Returns:
            The manifest, plain JSON types.

        Raises:
            ConfigError: the replay has no folder, or the name cannot be part of a folder name.
            OSError: the disk is full or not writable; earlier saves stay restorable and saving may be tried again.
        """
        if self._files is None or self._saves is None:
            raise ConfigError("The replay was made without a folder and cannot be saved; pass folder=...")
        if not SAVE_NAME.fullmatch(name):
            raise ConfigError(f"A save cannot be named {name!r}; use up to 100 letters, digits, '.', '_' and '-'.")
        self._write_notes()
        for index, rows in chunk_rows_between(self._first, self._end, self._chunk_rows):
            record = self._records.get(index, ChunkRecord(index, 0, {}))
            if record.rows < rows:
                arrays = self._store.arrays(index)
                self._records[index] = extend_record(
                    record, rows, self.fields, arrays=arrays, files=self._files, mapped=self.storage == "disk"
                )
        manifest = Manifest(
            name=name,
            serial=self._saves.next_serial(),
            layout=make_layout(self.fields, self.num_envs, self.length, storage=self.storage),
            chunk_rows=self._chunk_rows,
            first_row=self._first,
            end_row=self._end,
            closed_rows=list(self._closed_rows),
            episode_starts=self._episode_starts.tolist(),
            online_cursor=self._online_cursor if self.online else self._end // self.length * self.num_envs,
            random=dict(self._random.bit_generator.state),
            chunks=list(self._records.values()),
            latents_crc32=None,
        )
        return self._saves.write(manifest, self._latent_blocks() if self.storage == "ram" else None).to_json()

    def restore(self, manifest: Mapping[str, Any], *, verify: bool = True) -> None:
        """Brings the replay to the state of a save: contents, random state, online queue.

        The replay must have the fields, environments, storage and folder of the saved one; its chunk size is taken
        over. With a smaller capacity the oldest rows are forgotten at the next `add`; with windows of another length
        the online queue begins with the rows that are added from now on.

        Args:
            manifest: what `save` returned.
            verify: with storage `disk`, whether to read all rows and compare their checksums (about a second for
                each gigabyte); existence, size, shape and dtype of the files are always checked.

        Raises:
            ConfigError: the replay has no folder.
            CheckpointError: the manifest or a file is missing, damaged or of another replay; the replay is unchanged.
        """
        if self._files is None or self._saves is None:
            raise ConfigError("The replay was made without a folder and cannot be restored; pass folder=...")
        saved = Manifest.from_json(manifest, make_layout(self.fields, self.num_envs, self.length, storage=self.storage))
        files = ChunkFiles(self._files.folder, self.fields, self.num_envs, chunk_rows=saved.chunk_rows)
        store: ChunkStore
        if self.storage == "ram":
            store = load_chunks(files, self.fields, saved, snapshot=self._saves.path(saved))
        else:
            check_chunks(files, self.fields, saved, verify=verify)
            store = DiskChunks(files, self.fields)
        self._use_chunk_rows(saved.chunk_rows)
        self._files, self._store = files, store
        self._first, self._end = saved.first_row, saved.end_row
        same_windows = saved.layout["length"] == self.length
        self._online_cursor = saved.online_cursor if same_windows else self._end // self.length * self.num_envs
        self._closed_rows = list(saved.closed_rows)
        self._episode_starts = np.array(saved.episode_starts, np.int64)
        self._random = restore_random(saved.random)
        self._records = {record.index: record for record in saved.chunks}
        self._saves.use(saved)

    def forget_snapshots(self, keep: Sequence[str]) -> None:
        """Deletes the saves that are not kept, and the chunk files that neither a kept save nor the replay needs.

        Args:
            keep: names of the saves to keep. Of several saves of one name, the one that this process saved or
                restored last stays, else the newest.
        """
        if self._files is None or self._saves is None:
            return
        needed = self._saves.forget(keep)
        oldest = self._first // self._chunk_rows
        for index in self._files.indices():
            if index < min(oldest, oldest if needed is None else needed):
                self._files.delete(index)

    def _checked_row(self, row: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The values of a row in the order of the fields, each [E, ...]."""
        if row.keys() != self._position.keys():
            raise ValueError(f"A replay row has the fields {sorted(row)}, expected {sorted(self._position)}.")
        values = []
        for field in self.fields:
            value = np.asarray(row[field.name])
            if value.shape != (self.num_envs, *field.shape):
                raise ValueError(
                    f"Replay field {field.name!r} has shape {value.shape}, expected {(self.num_envs, *field.shape)}."
                )
            values.append(value)
        return values

    def _checked_latents(
        self, index: np.ndarray, offset: int, latents: Mapping[str, np.ndarray]
    ) -> tuple[list[tuple[int, np.ndarray]], int]:
        """Positions of latent fields with their values [B, n, ...] in the stored dtype, and n."""
        arrays = []
        steps = None
        for name, values in latents.items():
            position = self._position.get(name)
            if position is None or not self.fields[position].latent:
                raise ValueError(f"{name!r} is not a latent field of the replay.")
            field = self.fields[position]
            values = np.asarray(values).astype(field.dtype, copy=False)
            steps = values.shape[1] if steps is None and values.ndim > 1 else steps
            if values.shape != (len(index), steps, *field.shape) or not 0 <= offset <= self.length - (steps or 0):
                raise ValueError(
                    f"Latents {name!r} have shape {values.shape}, expected {(len(index), 'n', *field.shape)} with "
                    f"the same n for all and offset + n at most {self.length} (offset {offset})."
                )
            arrays.append((position, values))
        return arrays, steps or 0

    def _segments(self, low: int, high: int) -> Iterator[tuple[int, int, int]]:
        """Splits the absolute rows `low` to `high - 1` by chunks: (chunk, first row in it, end row in it)."""
        while low < high:
            chunk, position = divmod(low, self._chunk_rows)
            stop = min(self._chunk_rows, position + high - low)
            yield chunk, position, stop
            low += stop - position

    def _draw(self, batch_size: int) -> np.ndarray:
        """Index [B, 2] of the next windows; advances the online queue and the random state.

        Window `n` of the online queue is that of environment `n % E` with start `n // E * length`, so the queue is
        one counter; windows whose start is forgotten are dropped by advancing it.
        """
        index = np.empty((batch_size, 2), np.int64)
        served = 0
        if self.online:
            oldest = -(-self._first // self.length) * self.num_envs
            cursor = max(self._online_cursor, oldest)
            served = max(0, min(batch_size, self._end // self.length * self.num_envs - cursor))
            numbers = np.arange(cursor, cursor + served)
            index[:served, 0] = numbers % self.num_envs
            index[:served, 1] = numbers // self.num_envs * self.length
            self._online_cursor = cursor + served
        starts = self.num_windows // self.num_envs
        draws = self._random.integers(0, self.num_windows, size=batch_size - served)
        index[served:, 0] = draws // starts
        index[served:, 1] = draws % starts + self._first
        return index

    def _gather(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Copies windows: for each field an array [B, L, ...]; `is_last` is repaired (see `sample`)."""
        shape = (len(index), self.length)
        outputs = [np.empty((*shape, *field.shape), field.dtype) for field in self.fields]
        for number, (env, start) in enumerate(index.tolist()):
            begin = 0
            for chunk, low, high in self._segments(start, start + self.length):
                for output, array in zip(outputs, self._store.arrays(chunk), strict=True):
                    output[number, begin : begin + high - low] = array[low:high, env]
                begin += high - low
        data = {field.name: output for field, output in zip(self.fields, outputs, strict=True)}
        data["is_last"][:, :-1] |= data["is_first"][:, 1:]
        if self._closed_rows:
            data["is_last"] |= np.isin(index[:, 1:] + np.arange(self.length), self._closed_rows)
        return data

    def _newest_is_last(self) -> np.ndarray:
        """Whether the newest row of each environment ends its episode, bool [E]; needs at least one row."""
        if self._closed_rows and self._closed_rows[-1] == self._end - 1:
            return np.ones(self.num_envs, bool)
        chunk, position = divmod(self._end - 1, self._chunk_rows)
        return self._store.arrays(chunk)[self._position["is_last"]][position]

    def _new_chunk(self, index: int) -> None:
        """Adds an empty chunk to the store."""
        if self.storage == "disk":
            self._write_notes()
        self._store.create(index)

    def _evict(self) -> None:
        """Forgets rows beyond the capacity, and chunks without a remaining row."""
        before = self._first // self._chunk_rows
        self._first = self._end - self._row_limit
        for index in range(before, self._first // self._chunk_rows):
            self._store.drop(index)
            self._records.pop(index, None)
            if self._files is not None and self._saves is not None and not self._saves.needs(index):
                self._files.delete(index)
        if self._closed_rows and self._closed_rows[0] < self._first:
            self._closed_rows = [row for row in self._closed_rows if row >= self._first]

    def _write_notes(self) -> None:
        """Writes the notes for people into the folder, once per process."""
        if self.folder is not None and not self._notes_written:
            write_notes(self.folder, self.fields, self.num_envs, chunk_rows=self._chunk_rows, length=self.length)
            self._notes_written = True

    def _latent_blocks(self) -> Iterator[tuple[Field, tuple[int, ...], Iterator[Array]]]:
        """For each latent field the shape [rows, E, ...] of all its stored rows, and these rows in blocks."""
        for position, field in enumerate(self.fields):
            if field.latent:
                shape = (self._end - self._first, self.num_envs, *field.shape)
                yield field, shape, self._blocks(position)

    def _blocks(self, position: int) -> Iterator[Array]:
        """All stored rows of one field in blocks [rows, E, ...]."""
        for chunk, low, high in self._segments(self._first, self._end):
            yield self._store.arrays(chunk)[position][low:high]


def _check_settings(
    num_envs: int, capacity: int, length: int, seed: int, folder: Path | None, storage: str, chunk_rows: int
) -> None:
    """Raises ConfigError if a setting cannot work."""
    for name, value in (("num_envs", num_envs), ("length", length), ("chunk_rows", chunk_rows)):
        if value < 1:
            raise ConfigError(f"The replay got {name}={value}; it must be at least 1.")
    if seed < 0:
        raise ConfigError(f"The replay got seed={seed}; it must not be negative.")
    if storage not in ("ram", "disk"):
        raise ConfigError(f"The replay got storage={storage!r}; use 'ram' or 'disk'.")
    if storage == "disk" and folder is None:
        raise ConfigError("A replay with storage='disk' needs a folder; pass folder=... or use storage='ram'.")
    if capacity // num_envs < length:
        raise ConfigError(
            f"A replay capacity of {capacity} holds {capacity // num_envs} time rows of {num_envs} environments, but a "
            f"window needs {length}; use a capacity of at least {length * num_envs}."
        )
