"""Where to compute, and in which precision."""

from __future__ import annotations

import torch

from reverie.errors import ConfigError


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` takes a CUDA device where there is one.

    Raises:
        ConfigError: the name is unknown, or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ConfigError(
                f"device {name!r} was asked for, but PyTorch {torch.__version__} sees {count} CUDA devices here; "
                f"use --device cpu, or install a CUDA build of PyTorch on a machine with a GPU"
            )
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Compute dtype: `auto` means bfloat16 on CUDA and float32 on a CPU, where it is the faster of the two.

    Raises:
        ConfigError: the name is unknown.
    """
    choices = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in choices:
        raise ConfigError(f"precision must be auto, float32 or bfloat16, got {name!r}")
    return choices[name]
