"""Tensors on disk: safetensors files that carry a checksum of their content, so that damage is noticed.

The format is 8 bytes with the length of the header, the header as JSON, and then the bytes of all tensors
(https://huggingface.co/docs/safetensors). It is written here, a tensor at a time, so that the file is replaced at once
and needs no second copy of the weights in memory.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from reverie.errors import CheckpointError
from reverie.safe_files import COUNT, TEXT, available_memory, check_shape, one_of, open_regular, parse_json, replacing

CHECKSUM = "sha256"
HEADER_BYTES = 4 * 2**20
"""Longest header that is read; those of the largest agents have a tenth of it."""
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_BYTES = {name: dtype.itemsize for dtype, name in _TYPES.items()}


@dataclass(frozen=True)
class Header:
    """What a file says about its tensors.

    Attributes:
        shapes: of each tensor, by name.
        types: of its numbers, as safetensors calls them.
        metadata: texts by name.
        bytes: of all tensors.
    """

    shapes: dict[str, tuple[int, ...]]
    types: dict[str, str]
    metadata: dict[str, str]
    bytes: int


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file, atomically and durably.

    Args:
        tensors: by name.
        path: the file; its folder must exist.
        metadata: texts to be kept in the header.

    Raises:
        OSError: e.g. no space is left; an older file is untouched then.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    # The order of the library safetensors: wide types first, so that every tensor is aligned.
    names = sorted(plain, key=lambda name: (-plain[name].element_size(), name))
    header: dict[str, object] = {"__metadata__": {CHECKSUM: checksum(plain), **(metadata or {})}}
    end = 0
    for name in names:
        value = plain[name]
        begin, end = end, end + value.nbytes
        header[name] = {"dtype": _TYPES[value.dtype], "shape": list(value.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            file.write(_bytes_of(plain[name]))


def read_header(path: Path) -> Header:
    """Reads names, shapes and metadata, and nothing else.

    Raises:
        CheckpointError: there is no such file, it is not a regular file, or its beginning is not from `save_tensors`.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(size - 8, HEADER_BYTES):
                raise CheckpointError(
                    f"{path} cannot be read as safetensors (a header of {length:,} bytes in a file of {size:,})"
                )
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error})") from error
    header = parse_json(text, f"the header of {path}")
    metadata = header.pop("__metadata__", {}) if isinstance(header, dict) else {}
    entry = {"dtype": one_of(*_TYPES.values()), "shape": [COUNT], "data_offsets": [COUNT]}
    check_shape(header, dict.fromkeys(header, entry), f"the header of {path}")
    check_shape(metadata, dict.fromkeys(metadata, TEXT), f"the header of {path}")
    shapes = {name: tuple(value["shape"]) for name, value in header.items()}
    types = {name: value["dtype"] for name, value in header.items()}
    claimed = sum(math.prod(shape) * _BYTES[types[name]] for name, shape in shapes.items())
    if claimed != size - 8 - length:
        raise CheckpointError(
            f"{path} cannot be read as safetensors (its header claims {claimed:,} bytes of tensors, and it has "
            f"{size - 8 - length:,})"
        )
    if CHECKSUM not in metadata:
        raise CheckpointError(f"{path} carries no checksum, so it is not a file of this library")
    return Header(shapes, types, metadata, bytes=claimed)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads what `save_tensors` wrote.

    Raises:
        CheckpointError: there is no such file, it is truncated, altered, of another program, or larger than the memory
            that is free.
    """
    expected = read_header(path).metadata[CHECKSUM]
    size, free = path.stat().st_size, available_memory()
    if free is not None and size > free:
        raise CheckpointError(
            f"{path} has {size / 1e9:.3g} GB, and {free / 1e9:.3g} GB of memory are free; end other programs or take a "
            f"larger machine"
        )
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (the file is not a dictionary)
    except (OSError, ValueError, SafetensorError, MemoryError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error})") from error
    if expected != checksum(tensors):
        raise CheckpointError(f"{path} is damaged: its content was altered")
    return tensors


def compare_shapes(targets: Mapping[str, Tensor], path: Path) -> None:
    """Checks, before any tensor is read, that a file has the tensors of `targets` and no others.

    Args:
        targets: may be on the `meta` device, where they take no memory.
        path: the file.

    Raises:
        CheckpointError: the file is damaged, or a name, a shape or a type differs.
    """
    header = read_header(path)
    advice = "use the configuration that it was saved with"
    different = sorted(targets.keys() ^ header.shapes.keys())
    if different:
        raise CheckpointError(
            f"{path} belongs to another configuration: {different[0]!r} is in only one of file and agent; {advice}"
        )
    for name, target in targets.items():
        there, here = (header.shapes[name], header.types[name]), (tuple(target.shape), _TYPES[target.dtype])
        if there != here:
            shown = [list(shape) if there[1] == here[1] else f"{kind} {list(shape)}" for shape, kind in (there, here)]
            raise CheckpointError(
                f"{path} belongs to another configuration: {name} is {shown[0]} in the file and {shown[1]} in the "
                f"agent; {advice}"
            )


def load_tensors(targets: Mapping[str, Tensor], path: Path) -> None:
    """Copies the tensors of a file into `targets`, which must have the same names, shapes and types.

    Raises:
        CheckpointError: the file is damaged, or a name, a shape or a type differs, or a number is not finite; nothing
            was copied then.
    """
    compare_shapes(targets, path)
    tensors = read_tensors(path)
    bad = sorted(name for name, value in tensors.items() if not torch.isfinite(value).all())
    if bad:
        raise CheckpointError(f"{path} holds no agent that can act: {bad[0]} is not finite; restore it from a copy")
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(tensors[name])


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(_bytes_of(value))
    return digest.hexdigest()


def _bytes_of(value: Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU, not copied."""
    return value.reshape(-1).view(torch.uint8).numpy().data
