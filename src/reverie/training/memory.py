"""Memory: how the process asks the system for it, and whether a replay fits."""

from __future__ import annotations

import ctypes
import platform
import shutil
import warnings
from pathlib import Path
from typing import Literal

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Tells glibc to reuse freed memory instead of giving it back to the system; does nothing elsewhere.

    An update allocates and frees the same tensors of several megabytes again and again. By default each of them is a
    fresh mapping, whose pages the kernel must clear one by one: 5 % of an update on vectors and a sixth of one on
    images (`reverie bench`, one thread). The price is that the process keeps its largest size.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL("libc.so.6")
    library.mallopt(_M_MMAP_MAX, 0)
    library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    library.mallopt(_M_TOP_PAD, 64 * 2**20)


def warn_if_large(size: int, rows: int, storage: Literal["ram", "disk"], folder: Path) -> None:
    """Warns if a replay will outgrow the memory or the disk that is free now.

    Args:
        size: bytes of the replay when full.
        rows: its steps.
        storage: where it is kept; one in memory is saved to the disk as well.
        folder: on the disk in question.
    """
    places = {"disk": shutil.disk_usage(folder).free}
    memory = _available_memory()
    if storage == "ram" and memory is not None:
        places = {"memory": memory} | places
    for place, free in places.items():
        if size > free:
            more = ", or keep it on disk with --replay-storage disk" if place == "memory" else ""
            warnings.warn(
                f"the replay of {rows:,} steps will take {size / 1e9:.3g} GB, and {free / 1e9:.3g} GB of {place} are "
                f"free: keep fewer steps with --replay-capacity{more}",
                stacklevel=2,
            )


def _available_memory() -> int | None:
    """Bytes that can be had without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in lines)
    return int(values["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in values else None


def peak_memory() -> int | None:
    """Bytes of memory that this process has had at its largest; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024
