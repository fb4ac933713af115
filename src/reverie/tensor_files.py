"""Tensors on disk: safetensors files that carry a checksum of their content, so that damage is noticed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from reverie.errors import CheckpointError

CHECKSUM = "sha256"


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes a safetensors file and synchronises it to disk.

    Raises:
        OSError: e.g. no space is left.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    try:
        save_file(plain, path, {CHECKSUM: _checksum(plain)})
    except SafetensorError as error:
        raise OSError(f"{path.name}: {error}") from error
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads what `save_tensors` wrote.

    Raises:
        CheckpointError: there is no such file, it is truncated, altered, or of another program.
    """
    try:
        with safe_open(path, "pt") as file:
            expected = (file.metadata() or {}).get(CHECKSUM)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (the file is no dictionary)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error})") from error
    if expected is None:
        raise CheckpointError(f"{path} carries no checksum, so it is not a file of this library")
    if expected != _checksum(tensors):
        raise CheckpointError(f"{path} is damaged: its content was altered")
    return tensors


def load_tensors(targets: Mapping[str, Tensor], path: Path) -> None:
    """Copies the tensors of a file into `targets`, which must have the same names and shapes.

    Raises:
        CheckpointError: the file is damaged, or a name or shape differs; nothing was copied then.
    """
    tensors = read_tensors(path)
    different = sorted(targets.keys() ^ tensors.keys())
    if different:
        raise CheckpointError(
            f"{path} belongs to another configuration: {different[0]!r} is in only one of file and agent; "
            f"use the configuration that it was saved with"
        )
    for name, target in targets.items():
        if target.shape != tensors[name].shape:
            raise CheckpointError(
                f"{path} belongs to another configuration: {name} is {list(tensors[name].shape)} in the file and "
                f"{list(target.shape)} in the agent; use the configuration that it was saved with"
            )
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(tensors[name])


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
