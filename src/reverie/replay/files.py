"""Durable files: array files that are readable with `np.load`, JSON files, checksums. Nothing here uses pickle."""

from __future__ import annotations

import json
import os
import tokenize
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from reverie.errors import CheckpointError
from reverie.safe_files import check_regular, open_regular, replacing

Array = NDArray[Any]

# What numpy raises on a damaged .npy header, besides OSError.
_HEADER_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    SyntaxError,
    MemoryError,
    OverflowError,
    tokenize.TokenError,
)


def checksum(array: Array, previous: int = 0) -> int:
    """CRC-32 of the bytes of a C-contiguous array, continued from `previous`, so that appended rows extend it."""
    return zlib.crc32(array.data.cast("B"), previous)


def sync_file(path: Path) -> None:
    """Makes the contents of a file durable, including what was written through a memory map of it."""
    descriptor = open_regular(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Writes a text file so that at any instant the path holds the old contents or the new ones.

    Raises:
        OSError: the file cannot be written; the old contents are still there.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        write_bytes(file, text.encode())


def write_json(path: Path, data: Any) -> None:
    """`write_text` of the data as JSON."""
    write_text(path, json.dumps(data, indent=1) + "\n")


def write_bytes(file: BinaryIO, data: bytes | memoryview) -> None:
    """Writes all of `data`. Every byte that the replay writes to disk, other than through maps, passes here."""
    file.write(data)


def create_array_file(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], reserve: bool) -> None:
    """Makes an .npy file of zeros.

    Args:
        path: the file; an old one is replaced.
        shape: shape of the array.
        dtype: dtype of the array.
        reserve: take the disk space at once. Without it the file is sparse. A file that is written through a memory
            map needs it: a full disk would otherwise kill the process with SIGBUS instead of raising OSError.

    Raises:
        OSError: the disk is full or the file cannot be written.
    """
    with open(path, "wb") as file:
        size = _write_header(file, shape, dtype) + int(np.prod(shape)) * dtype.itemsize
        file.flush()
        if reserve and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)


def write_array_file(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], blocks: Iterable[Array]) -> int:
    """Writes an .npy file from blocks of rows and makes it durable.

    Args:
        path: the file; an old one is replaced.
        shape: shape of the whole array.
        dtype: dtype of the array.
        blocks: C-contiguous arrays that, joined along the first axis, give the whole array.

    Returns:
        `checksum` of the whole array.

    Raises:
        OSError: the disk is full or the file cannot be written.
    """
    value = 0
    with open(path, "wb") as file:
        _write_header(file, shape, dtype)
        for block in blocks:
            value = checksum(block, value)
            write_bytes(file, block.data.cast("B"))
        file.flush()
        os.fsync(file.fileno())
    return value


def write_rows(path: Path, first_row: int, rows: Array) -> None:
    """Overwrites rows of an existing .npy file, starting at `first_row`, and makes them durable.

    Raises:
        OSError: the disk is full or the file cannot be written.
    """
    with os.fdopen(open_regular(path, os.O_RDWR), "r+b") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        file.seek(file.tell() + first_row * rows[0].nbytes)
        write_bytes(file, rows.data.cast("B"))
        file.flush()
        os.fsync(file.fileno())


def open_array(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], writable: bool = False) -> Array:
    """`map_array` as a plain ndarray, since indexing `np.memmap` is several times slower."""
    return np.asarray(map_array(path, shape, dtype, writable=writable))


def map_array(
    path: Path, shape: tuple[int | None, ...], dtype: np.dtype[Any], writable: bool = False
) -> np.memmap[Any, Any]:
    """Maps an .npy file into memory after checking that it is whole.

    Args:
        path: the file.
        shape: expected shape; None for a side of any length.
        dtype: expected dtype.
        writable: whether writes go to the file; otherwise the array is read-only.

    Raises:
        CheckpointError: the file is missing, unreadable, not a regular file, or has another shape, dtype or size.
    """
    try:
        size = check_regular(path)
        mapped = np.lib.format.open_memmap(path, mode="r+" if writable else "r")
    except FileNotFoundError as error:
        raise CheckpointError(f"The file {path} is missing; restore an older checkpoint or start over.") from error
    except OSError as error:
        raise CheckpointError(f"The file {path} cannot be read ({error}).") from error
    except _HEADER_ERRORS as error:
        raise damaged(path, str(error)) from error
    fits = len(mapped.shape) == len(shape) and all(
        wanted in (None, side) for side, wanted in zip(mapped.shape, shape, strict=True)
    )
    if not fits or mapped.dtype != dtype or not mapped.flags.c_contiguous:
        sides = ", ".join("any" if side is None else str(side) for side in shape)
        raise damaged(path, f"it holds {mapped.dtype} {mapped.shape}, expected {dtype} ({sides})")
    if size != mapped.offset + mapped.nbytes:
        raise damaged(path, f"it has {size} bytes, expected {mapped.offset + mapped.nbytes}")
    return mapped


def damaged(path: Path, reason: str) -> CheckpointError:
    """The error for a file whose contents are not what was saved."""
    return CheckpointError(f"The file {path} is damaged: {reason}; restore an older checkpoint or start over.")


def _write_header(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Writes the .npy header at the start of a file and returns its length."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()
