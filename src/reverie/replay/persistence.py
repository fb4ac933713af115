"""Makes chunks durable and reads them back, with checksums that grow with the rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reverie.errors import CheckpointError
from reverie.replay.chunks import ChunkFiles, MemoryChunks
from reverie.replay.fields import Field
from reverie.replay.files import Array, checksum, damaged, open_array
from reverie.replay.manifest import ChunkRecord, Manifest
from reverie.safe_files import available_memory


def extend_record(
    record: ChunkRecord, rows: int, fields: Sequence[Field], arrays: Sequence[Array], files: ChunkFiles, mapped: bool
) -> ChunkRecord:
    """Makes the rows of a chunk since its last record durable.

    Args:
        record: what is durable already; 0 rows for a new chunk.
        rows: number of rows that the chunk has now.
        fields: fields of a row.
        arrays: one array [chunk_rows, E, ...] per field.
        files: the files of the replay folder.
        mapped: whether the arrays are maps of the files; otherwise the new experience rows are written to them.

    Returns:
        The record of all `rows` rows.

    Raises:
        OSError: the disk is full or not writable; the rows of the old record are untouched.
    """
    if mapped:
        files.sync(record.index)
    else:
        if record.rows == 0:
            files.create(record.index, latents=False, reserve=False)
        files.append(record.index, arrays, low=record.rows, high=rows)
    crc32 = {
        field.name: checksum(array[record.rows : rows], record.crc32.get(field.name, 0))
        for field, array in zip(fields, arrays, strict=True)
        if not field.latent
    }
    return ChunkRecord(record.index, rows, crc32)


def load_chunks(files: ChunkFiles, fields: Sequence[Field], saved: Manifest, snapshot: Path) -> MemoryChunks:
    """Reads the rows and latents of a save into memory.

    Args:
        files: the files of the replay folder.
        fields: fields of a row.
        saved: the manifest of the save.
        snapshot: folder with the latents of the save.

    Raises:
        CheckpointError: a file is missing or damaged, or there is no memory for all of it.
    """
    row = sum(field.bytes for field in fields) * saved.layout["num_envs"]
    size, free = len(saved.chunks) * saved.chunk_rows * row, available_memory()
    if free is not None and size > free:
        raise CheckpointError(
            f"The replay of the checkpoint takes {size / 1e9:.3g} GB, and {free / 1e9:.3g} GB of memory are free; end "
            f"other programs or take a larger machine."
        )
    store = MemoryChunks(fields, saved.layout["num_envs"], saved.chunk_rows)
    for record in saved.chunks:
        mapped = [None if field.latent else files.open(record.index, field) for field in fields]
        store.create(record.index)
        for field, source, array in zip(fields, mapped, store.arrays(record.index), strict=True):
            if source is not None:
                array[: record.rows] = source[: record.rows]
                _compare(files.path(record.index, field), array[: record.rows], record.crc32[field.name])
    for position, field in enumerate(fields):
        if field.latent and saved.chunks:
            _load_latents(store, position, field, saved=saved, path=snapshot / field.file_name)
    return store


def check_chunks(files: ChunkFiles, fields: Sequence[Field], saved: Manifest, verify: bool) -> None:
    """Checks the files of a save that stay where they are.

    Args:
        files: the files of the replay folder.
        fields: fields of a row.
        saved: the manifest of the save.
        verify: whether to read the rows and compare their checksums.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    for record in saved.chunks:
        for field in fields:
            array = files.open(record.index, field)
            if verify and not field.latent:
                _compare(files.path(record.index, field), array[: record.rows], record.crc32[field.name])


def _load_latents(store: MemoryChunks, position: int, field: Field, saved: Manifest, path: Path) -> None:
    """Copies the snapshot of one latent field into the chunks."""
    shape = (saved.end_row - saved.first_row, saved.layout["num_envs"], *field.shape)
    rows = open_array(path, shape, field.dtype)
    _compare(path, rows, (saved.latents_crc32 or {})[field.name])
    for record in saved.chunks:
        origin = record.index * saved.chunk_rows - saved.first_row  # snapshot row of the first row of the chunk
        low = max(-origin, 0)
        store.arrays(record.index)[position][low : record.rows] = rows[origin + low : origin + record.rows]


def _compare(path: Path, rows: Array, expected: int) -> None:
    """Raises CheckpointError if the rows of a file are not the saved ones."""
    if checksum(rows) != expected:
        raise damaged(path, "its rows are not those that were saved (checksum)")
