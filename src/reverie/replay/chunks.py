"""Chunks: fixed numbers of time rows of all environments, in memory, on disk, or both.

Chunk `k` holds the time rows `k * chunk_rows` to `(k + 1) * chunk_rows - 1`; each field is one array
[chunk_rows, E, ...].
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reverie.replay.fields import Field
from reverie.replay.files import Array, create_array_file, open_array, sync_file, write_rows
from reverie.safe_files import remove_folder, synchronize_folder

_CHUNK_FOLDER = re.compile(r"chunk-(\d{8,})")


class ChunkFiles:
    """The files `chunk-<number>/<field>.npy` of a replay folder.

    Args:
        folder: the replay folder.
        fields: fields of a row.
        num_envs: number of environments E.
        chunk_rows: time rows in a chunk.
    """

    def __init__(self, folder: Path, fields: Sequence[Field], num_envs: int, chunk_rows: int) -> None:
        self.folder = folder
        self._fields = tuple(fields)
        self._num_envs = num_envs
        self._chunk_rows = chunk_rows
        self._names = re.compile("|".join(re.escape(field.file_name) for field in self._fields))

    def chunk_folder(self, index: int) -> Path:
        """Folder of a chunk."""
        return self.folder / f"chunk-{index:08d}"

    def path(self, index: int, field: Field) -> Path:
        """File of one field of a chunk."""
        return self.chunk_folder(index) / field.file_name

    def shape(self, field: Field) -> tuple[int, ...]:
        """Shape [chunk_rows, E, ...] of one field of a chunk."""
        return (self._chunk_rows, self._num_envs, *field.shape)

    def create(self, index: int, latents: bool, reserve: bool) -> None:
        """Makes the files of a chunk, full of zeros; old files of that chunk are replaced.

        Args:
            index: number of the chunk.
            latents: whether latent fields get a file too.
            reserve: see `create_array_file`.

        Raises:
            OSError: the disk is full or not writable; no file of the chunk is left.
        """
        folder = self.chunk_folder(index)
        remove_folder(folder, self._names)
        folder.mkdir(parents=True)
        try:
            for field in self._fields:
                if latents or not field.latent:
                    create_array_file(self.path(index, field), self.shape(field), field.dtype, reserve=reserve)
        except OSError:
            remove_folder(folder, self._names)
            raise
        synchronize_folder(self.folder)

    def append(self, index: int, arrays: Sequence[Array], low: int, high: int) -> None:
        """Writes rows `low` to `high - 1` of the experience fields into existing files and makes them durable.

        Args:
            index: number of the chunk.
            arrays: one array [chunk_rows, E, ...] per field.
            low: first row in the chunk.
            high: end of the rows.

        Raises:
            OSError: the disk is full or not writable.
        """
        for field, array in zip(self._fields, arrays, strict=True):
            if not field.latent:
                write_rows(self.path(index, field), low, array[low:high])
        synchronize_folder(self.chunk_folder(index))

    def sync(self, index: int) -> None:
        """Makes everything written to a chunk durable, also through memory maps."""
        for field in self._fields:
            sync_file(self.path(index, field))
        synchronize_folder(self.chunk_folder(index))

    def open(self, index: int, field: Field, writable: bool = False) -> Array:
        """Maps one field of a chunk as an array [chunk_rows, E, ...]; see `open_array` for the checks and errors."""
        return open_array(self.path(index, field), self.shape(field), field.dtype, writable=writable)

    def delete(self, index: int) -> None:
        """Deletes the files of a chunk, if there are any."""
        remove_folder(self.chunk_folder(index), self._names)

    def indices(self) -> list[int]:
        """Numbers of the chunks that have a folder."""
        if not self.folder.is_dir():
            return []
        matches = (_CHUNK_FOLDER.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)


class ChunkStore(ABC):
    """Where the arrays of the live chunks are."""

    @abstractmethod
    def create(self, index: int) -> None:
        """Adds an empty chunk.

        Raises:
            OSError: the disk is full or not writable; nothing has changed.
        """

    @abstractmethod
    def arrays(self, index: int) -> Sequence[Array]:
        """The arrays [chunk_rows, E, ...] of a chunk in the order of the fields; writing to them changes the chunk."""

    @abstractmethod
    def drop(self, index: int) -> None:
        """Gives the memory of a chunk back; files stay."""


class MemoryChunks(ChunkStore):
    """Chunks in main memory.

    Args:
        fields: fields of a row.
        num_envs: number of environments E.
        chunk_rows: time rows in a chunk.
    """

    def __init__(self, fields: Sequence[Field], num_envs: int, chunk_rows: int) -> None:
        self._layout = [((chunk_rows, num_envs, *field.shape), field.dtype) for field in fields]
        self._chunks: dict[int, list[Array]] = {}

    def create(self, index: int) -> None:
        """Adds an empty chunk."""
        self._chunks[index] = [np.zeros(shape, dtype) for shape, dtype in self._layout]

    def arrays(self, index: int) -> Sequence[Array]:
        """The arrays of a chunk."""
        return self._chunks[index]

    def drop(self, index: int) -> None:
        """Gives the memory of a chunk back."""
        self._chunks.pop(index, None)


class DiskChunks(ChunkStore):
    """Chunks as memory-mapped files: main memory serves only as the system's page cache.

    Each map holds a file descriptor, so only the most recently used chunks stay mapped.

    Args:
        files: the files.
        fields: fields of a row.
        max_open: number of chunks that stay mapped; by default as many as a third of the descriptor limit allows.
    """

    def __init__(self, files: ChunkFiles, fields: Sequence[Field], max_open: int | None = None) -> None:
        self._files = files
        self._fields = tuple(fields)
        self._max_open = max_open or max(2, _descriptor_budget() // len(self._fields))
        self._open: OrderedDict[int, list[Array]] = OrderedDict()

    def create(self, index: int) -> None:
        """Adds an empty chunk and takes its disk space."""
        self._open.pop(index, None)
        self._files.create(index, latents=True, reserve=True)

    def arrays(self, index: int) -> Sequence[Array]:
        """The mapped arrays of a chunk."""
        arrays = self._open.get(index)
        if arrays is not None:
            self._open.move_to_end(index)
            return arrays
        arrays = [self._files.open(index, field, writable=True) for field in self._fields]
        self._open[index] = arrays
        while len(self._open) > self._max_open:
            self._open.popitem(last=False)
        return arrays

    def drop(self, index: int) -> None:
        """Unmaps a chunk; its files stay."""
        self._open.pop(index, None)


def _descriptor_budget() -> int:
    """How many files one replay may keep open."""
    try:
        import resource
    except ImportError:  # Windows
        return 2048
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 16384
    return min(soft // 3, 16384)
