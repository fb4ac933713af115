"""The rules by which files are read, written and deleted that somebody else may have made.

* Only regular files are opened: a link, a pipe, a device or a folder in place of one is refused, and never waited for.
* Nothing inside the folder of a run or of a saved agent may lead out of it; the folder itself may be a link.
* Lengths and depths are checked before memory is taken, and values before they are used.
* A file is replaced as a whole or not at all, with the permissions that any new file has.
* Only names that the library itself makes are deleted.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reverie.errors import CheckpointError, ReverieError, RunFolderError

JSON_BYTES, JSON_DEPTH = 32 * 2**20, 64
"""Largest JSON file, and deepest nesting, that is read. The library's own have a few megabytes and five levels."""
LEFTOVER = re.compile(r"\.(?P<target>.+)\.\d+\.[0-9a-f]{8}\.tmp")
"""Name of what a kill in the middle of `replacing` leaves."""

_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"')
_BRACKET = re.compile(r"[\[{\]}]")
_DAMAGE = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError, EOFError)
"""What Python, numpy and PyTorch raise on content that nobody expected."""


# ---------------------------------------------------------------- reading


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """Opens a regular file and returns its descriptor.

    Args:
        path: the file; only its folders may be links.
        flags: of `os.open`; with `O_CREAT` a new file gets the usual permissions.

    Raises:
        CheckpointError: it is a link, a pipe, a device or a folder.
        OSError: it is not there or cannot be opened.
    """
    safe = flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, safe, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV):
            raise _not_regular(path, path.lstat().st_mode) from error
        raise
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise _not_regular(path, mode)
    return descriptor


def check_regular(path: Path) -> int:
    """The size in bytes of a regular file, for readers that take a path; errors as for `open_regular`."""
    descriptor = open_regular(path)
    try:
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def refuse_links(folder: Path) -> None:
    """Refuses a folder with a link, a pipe, a device or a socket anywhere in it.

    Args:
        folder: may be a link itself, and need not be there.

    Raises:
        RunFolderError: names the first one.
    """
    pending = [str(folder)] if folder.is_dir() else []
    while pending:
        # A run that another process trains loses old checkpoints while its folder is looked through.
        with contextlib.suppress(FileNotFoundError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif not entry.is_file(follow_symlinks=False):
                    what = _name_of(entry.stat(follow_symlinks=False).st_mode)
                    raise RunFolderError(
                        f"{entry.path} is {what}, and nothing inside the folder of a run or a saved agent is read or "
                        f"written through one; remove it, or put a copy of what it stands for in its place"
                    )


def _not_regular(path: Path, mode: int) -> CheckpointError:
    return CheckpointError(
        f"{path} is {_name_of(mode)}, expected a regular file; remove it, or put a copy of what it stands for in its "
        f"place"
    )


def _name_of(mode: int) -> str:
    names = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket"}
    return names.get(stat.S_IFMT(mode), "a device")


def read_bytes(path: Path, limit: int = JSON_BYTES) -> bytes:
    """The content of a regular file.

    Raises:
        CheckpointError: it is not a regular file, or has more bytes than `limit`.
        OSError: it is not there or cannot be read.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise CheckpointError(
            f"{path} has more than {limit:,} bytes, expected fewer; it was not written by this library: delete it or "
            f"restore it from a copy"
        )
    return data


def parse_json(data: bytes, name: str) -> Any:
    """The value that UTF-8 JSON text stands for.

    Args:
        data: the text.
        name: what it is, for errors, such as the path of its file.

    Raises:
        CheckpointError: the text is not JSON, is nested too deeply, or holds NaN or infinity.
    """
    try:
        text = data.decode()
        if _depth(text) > JSON_DEPTH:
            raise ValueError(f"nested more than {JSON_DEPTH} levels deep")
        return json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise CheckpointError(f"{name} does not hold valid JSON ({error}); restore it from a copy or delete it") from (
            error
        )


def _depth(text: str) -> int:
    """How deeply brackets are nested, outside of strings."""
    depth = deepest = 0
    for bracket in _BRACKET.finditer(_STRING.sub("", text)):
        depth += 1 if bracket[0] in "[{" else -1
        deepest = max(deepest, depth)
        if deepest > JSON_DEPTH:
            break
    return deepest


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


@contextlib.contextmanager
def damage_of(what: Path | str) -> Iterator[None]:
    """Within the block, what unexpected content makes Python, numpy or PyTorch raise becomes one sentence.

    Args:
        what: the file or folder that is being read.

    Raises:
        CheckpointError: something was raised that is not an error of the library or of the operating system.
    """
    try:
        yield
    except ReverieError:
        raise
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{what} is damaged or not of this version ({type(error).__name__}: {reason}); restore it from a copy"
        ) from error


# ---------------------------------------------------------------- values


@dataclass(frozen=True)
class Kind:
    """What a value in a JSON file must be.

    Attributes:
        words: completes "expected ...".
        accepts: whether a value is one.
    """

    words: str
    accepts: Callable[[Any], bool]


def _is_whole(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**62


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (type(value) is float and math.isfinite(value))


COUNT = Kind("a whole number from 0 on", lambda value: _is_whole(value) and value >= 0)
POSITIVE = Kind("a whole number from 1 on", lambda value: _is_whole(value) and value >= 1)
WHOLE = Kind("a whole number", _is_whole)
NUMBER = Kind("a finite number", _is_number)
TEXT = Kind("a text", lambda value: type(value) is str)
FLAG = Kind("true or false", lambda value: type(value) is bool)
RECORD = Kind("a dictionary", lambda value: type(value) is dict)

Shape = Any
"""A `Kind`; `[shape]`, a list of any length; or `{key: shape}`, a dictionary with at least these keys, of which those
that end in `?` may be missing."""


def optional(kind: Kind) -> Kind:
    """The kind, or null."""
    return Kind(f"{kind.words} or null", lambda value: value is None or kind.accepts(value))


def one_of(*values: str) -> Kind:
    """One of these texts."""
    return Kind(f"one of {', '.join(values)}", lambda value: type(value) is str and value in values)


def check_shape(value: Any, shape: Shape, name: str, key: str = "") -> None:
    """Refuses a JSON value that is not what is expected.

    Args:
        value: from `parse_json`.
        shape: what is expected.
        name: of the file.
        key: where in the file the value stands.

    Raises:
        CheckpointError: names file and key, what is there and what was expected.
    """
    wanted = Kind("a list", lambda v: type(v) is list) if isinstance(shape, list) else shape
    wanted = RECORD if isinstance(shape, dict) else wanted
    if not wanted.accepts(value):
        where = f"its {key!r}" if key else "its content"
        shown = repr(value) if not isinstance(value, dict | list) else f"a {type(value).__name__}"
        raise CheckpointError(
            f"{name} is damaged: {where} is {shown[:60]}, expected {wanted.words}; restore it from a copy"
        )
    if isinstance(shape, list):
        for number, entry in enumerate(value):
            check_shape(entry, shape[0], name, key=f"{key}[{number}]")
    elif isinstance(shape, dict):
        for entry, inner in shape.items():
            inside = entry.removesuffix("?")
            where = f"{key}.{inside}" if key else inside
            if inside in value:
                check_shape(value[inside], inner, name, key=where)
            elif inside == entry:
                raise CheckpointError(f"{name} is damaged: it lacks {where!r}; restore it from a copy")


# ---------------------------------------------------------------- writing and deleting


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives an empty new file that takes the name `path`, durably, when the block has ended without an error.

    Until then, and after a kill at any moment, `path` is what it was. What earlier kills have left beside it is removed
    first. A link at `path` is replaced and not followed.

    Args:
        path: its folder must exist.

    Raises:
        OSError: the disk is full or the folder cannot be written; the new file is removed.
    """
    sweep(path.parent, re.compile(re.escape(path.name)))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        _try_lock(descriptor)  # tells others that this process still writes
        yield temporary
        os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    synchronize_folder(path.parent)


def sweep(folder: Path, targets: re.Pattern[str]) -> None:
    """Removes what kills in the middle of `replacing` have left, unless a process still writes it.

    Args:
        folder: where.
        targets: matches the names of the files that were to be replaced.
    """
    for entry in list(os.scandir(folder)) if folder.is_dir() else ():
        match = LEFTOVER.fullmatch(entry.name)
        if match and targets.fullmatch(match["target"]) and entry.is_file(follow_symlinks=False):
            with contextlib.suppress(FileNotFoundError):
                descriptor = open_regular(Path(entry.path), os.O_RDWR)
                try:
                    if _try_lock(descriptor):
                        os.unlink(entry.path)
                finally:
                    os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Takes a lock that ends with the process; False if another has it. Always taken where there are no such locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def remove_folder(folder: Path, names: re.Pattern[str]) -> None:
    """Deletes the regular files of a folder that have these names, and then the folder, if nothing else is in it.

    Args:
        folder: need not be there; a link is left alone, and so is whatever has another name.
        names: of the files that the library makes there.
    """
    if folder.is_symlink() or not folder.is_dir():
        return
    for entry in list(os.scandir(folder)):
        leftover = LEFTOVER.fullmatch(entry.name)
        name = leftover["target"] if leftover else entry.name
        if names.fullmatch(name) and entry.is_file(follow_symlinks=False):
            os.unlink(entry.path)
    with contextlib.suppress(OSError):
        folder.rmdir()


def synchronize_folder(folder: Path) -> None:
    """Makes the names inside a folder durable (fsync of the folder); does nothing where the system has no such call."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def available_memory() -> int | None:
    """Bytes that can be had without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in lines)
    return int(values["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in values else None
