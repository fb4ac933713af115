"""Memory: how the process asks the system for it, and whether a replay fits."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from torch.nn.modules.module import register_module_parameter_registration_hook

from reverie.errors import ConfigError
from reverie.safe_files import available_memory

SAVES = 2
"""Copies of the latents on disk besides those that the replay is counted with: two saves are kept, a third is written.
"""
BATCH_COPIES = 4
"""Float32 copies that an update makes of what a batch observes: its input, its prediction, and a gradient of each."""
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


def warn_if_large(
    size: int, rows: int, storage: Literal["ram", "disk"], folder: Path, latents: int = 0, batch: int = 0
) -> None:
    """Warns if a replay and the batches from it will outgrow the memory or the disk that is free now.

    Args:
        size: bytes of the replay when full.
        rows: its steps.
        storage: where it is kept; one in memory is saved to the disk as well.
        folder: on the disk in question.
        latents: bytes of the latents in it, which every save of a replay in memory has a copy of.
        batch: bytes of a batch and what is computed from it.

    Raises:
        ConfigError: a single batch is larger than the free memory.
    """
    needs = {"disk": size + (SAVES * latents if storage == "ram" else 0)}
    frees = {"disk": shutil.disk_usage(folder).free}
    memory = available_memory()
    if memory is not None:
        needs, frees = {"memory": batch + (size if storage == "ram" else 0)} | needs, {"memory": memory} | frees
        if batch > memory:
            raise ConfigError(
                f"one batch takes about {batch / 1e9:.3g} GB, and {memory / 1e9:.3g} GB of memory are free: lower "
                f"--batch-size or --batch-length"
            )
    for place, free in frees.items():
        if needs[place] > free:
            more = ", or keep it on disk with --replay-storage disk" if (place, storage) == ("memory", "ram") else ""
            what = "and the batches from it " if place == "memory" and batch else ""
            warnings.warn(
                f"the replay of {rows:,} steps {what}will take {needs[place] / 1e9:.3g} GB, and {free / 1e9:.3g} GB of "
                f"{place} are free: keep fewer steps with --replay-capacity{more}",
                stacklevel=2,
            )


TRAINED_COPIES = 4
"""What learning keeps of each weight: itself, its gradient, and two moments."""
MOST_PARAMETERS = 100_000
"""Tensors of weights that no agent has."""


@contextlib.contextmanager
def limited_parameters(most_bytes: int, most: int, error: Exception) -> Iterator[None]:
    """Within the block, modules are built only as long as their parameters stay within a limit.

    Building is given up at the first parameter beyond it, before its values are set, and so before it takes memory.

    Args:
        most_bytes: of all parameters together.
        most: how many there may be.
        error: what to raise beyond that.
    """
    count, size = 0, 0

    def look(module: Any, name: str, parameter: Any) -> None:
        nonlocal count, size
        if parameter is not None:
            count, size = count + 1, size + parameter.nbytes
            if count > most or size > most_bytes:
                raise error

    handle = register_module_parameter_registration_hook(look)
    try:
        yield
    except (MemoryError, RuntimeError) as failure:
        if isinstance(failure, MemoryError) or "allocate memory" in str(failure):
            raise error from failure  # a single parameter was too large to be asked for
        raise
    finally:
        handle.remove()


def affordable_training(config_name: str) -> contextlib.AbstractContextManager[None]:
    """Within the block, an agent is built only if there is memory to train it; see `limited_parameters`.

    Args:
        config_name: of the agent, for the error.
    """
    free = available_memory()
    if free is None:
        return contextlib.nullcontext()
    most = free // TRAINED_COPIES
    error = ConfigError(
        f"this {config_name} has more than {most / 4e6:,.0f} million weights, and training them takes more than the "
        f"{free / 1e9:.3g} GB of memory that are free: choose smaller networks (--size, or the widths of its layers)"
    )
    return limited_parameters(most, MOST_PARAMETERS, error)


def peak_memory() -> int | None:
    """Bytes of memory that this process has had at its largest; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024
