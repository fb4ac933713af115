"""How the process asks the system for memory."""

from __future__ import annotations

import ctypes
import platform

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
