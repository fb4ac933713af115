"""Small file helpers: atomic writes, strict JSON, checksums.

A file written by `write_atomic` holds either its old or its new content after a kill, a full disk or a power cut,
never a mixture. Errors of the operating system (disk full, no permission) pass through as `OSError`.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from reverie.errors import ReverieError
from reverie.safe_files import Shape, check_shape, open_regular, parse_json, read_bytes, replacing, synchronize_folder

__all__ = ["as_json", "read_json", "sha256", "synchronize_folder", "write_atomic", "write_json"]


def write_atomic(path: Path, data: bytes | str) -> None:
    """Replaces the content of a file in one step that survives a crash.

    The data go to a temporary file in the same folder, reach the disk (fsync), and take the name of the target. The
    folder is synchronized too, so that the new name survives a power cut.

    Args:
        path: the file to write; its folder must exist.
        data: the whole new content; text is stored as UTF-8.

    Raises:
        OSError: the disk is full or the folder cannot be written. The old file is then still whole, and the temporary
            file is removed.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON, atomically.

    Numpy scalars and arrays become numbers and lists, paths become text, tuples become lists.

    Args:
        path: the file to write; its folder must exist.
        value: what to store.

    Raises:
        ReverieError: the value holds NaN, infinity or a type that JSON lacks.
        OSError: as for `write_atomic`.
    """
    try:
        text = as_json(value, indent=2)
    except (TypeError, ValueError) as error:
        raise ReverieError(
            f"Cannot write {path}: JSON holds finite numbers, text, lists and dictionaries only ({error}); "
            "convert the value first."
        ) from error
    write_atomic(path, text + "\n")


def as_json(value: Any, indent: int | None = None) -> str:
    """A value as JSON text; see `write_json`.

    Raises:
        TypeError, ValueError: the value holds NaN, infinity or a type that JSON lacks.
    """
    return json.dumps(value, indent=indent, allow_nan=False, default=_plain_type)


def _plain_type(value: Any) -> Any:
    """The JSON counterpart of a numpy value or a path; TypeError for anything else."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a value of type {type(value).__name__}")


def read_json(path: Path, shape: Shape | None = None) -> Any:
    """Reads a JSON file.

    Args:
        path: the file to read.
        shape: what it must hold, see `check_shape`.

    Returns:
        The value that the file holds.

    Raises:
        ReverieError: there is no such file, it is not a regular file, or it does not hold JSON of this shape.
    """
    try:
        data = read_bytes(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ReverieError(f"There is no file {path}; check the path.") from error
    value = parse_json(data, str(path))
    if shape is not None:
        check_shape(value, shape, str(path))
    return value


def sha256(path: Path) -> str:
    """Returns the SHA-256 checksum of a file as 64 hexadecimal digits; raises OSError if it cannot be read."""
    with os.fdopen(open_regular(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
