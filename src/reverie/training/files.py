"""Small file helpers: atomic writes, strict JSON, checksums.

A file written by `write_atomic` holds either its old or its new content after a kill, a full disk or a power cut,
never a mixture. Errors of the operating system (disk full, no permission) pass through as `OSError`.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np

from reverie.errors import ReverieError


def write_atomic(path: Path, data: bytes | str) -> None:
    """Replaces the content of a file in one step that survives a crash.

    The data go to a temporary file in the same folder, reach the disk (fsync), and take the name of the target. The
    folder is synchronised too, so that the new name survives a power cut.

    Args:
        path: the file to write; its folder must exist.
        data: the whole new content; text is stored as UTF-8.

    Raises:
        OSError: the disk is full or the folder cannot be written. The old file is then still whole, and the temporary
            file is removed.
    """
    content = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    synchronise_folder(path.parent)


def synchronise_folder(folder: Path) -> None:
    """Makes the names inside a folder durable (fsync of the folder); does nothing where the system has no such call."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
        text = json.dumps(value, indent=2, allow_nan=False, default=_plain_type)
    except (TypeError, ValueError) as error:
        raise ReverieError(
            f"Cannot write {path}: JSON holds finite numbers, text, lists and dictionaries only ({error}); "
            "convert the value first."
        ) from error
    write_atomic(path, text + "\n")


def _plain_type(value: Any) -> Any:
    """The JSON counterpart of a numpy value or a path; TypeError for anything else."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a value of type {type(value).__name__}")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Args:
        path: the file to read.

    Returns:
        The value that the file holds.

    Raises:
        ReverieError: there is no such file, or it does not hold JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise ReverieError(f"There is no file {path}; check the path.") from error
    except ValueError as error:
        raise ReverieError(
            f"{path} does not hold valid JSON ({error}); restore it from a copy or delete it."
        ) from error


def sha256(path: Path) -> str:
    """Returns the SHA-256 checksum of a file as 64 hexadecimal digits; raises OSError if it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
