"""What one replay row consists of: named fields of fixed shape and dtype."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np

from reverie.errors import ConfigError


@dataclass(frozen=True)
class Field:
    """One named array of a replay row.

    Attributes:
        name: key in rows and batches; `/` is allowed.
        shape: shape of one entry, without environment and time axes; `()` for a scalar.
        dtype: numpy dtype of the stored entries; values are cast to it.
        latent: True for the agent's recurrent state, which is rewritten during training; every other field is
            experience and never changes once it is stored.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    latent: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        object.__setattr__(self, "dtype", np.dtype(self.dtype))

    @property
    def bytes(self) -> int:
        """Size of one entry."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def file_name(self) -> str:
        """Name of the file that holds the field: `/` becomes `__`, other special characters are percent-encoded."""
        return quote(self.name.replace("/", "__"), safe="") + ".npy"

    def to_json(self) -> dict[str, Any]:
        """The field as plain JSON types."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": self.dtype.str,
            "latent": self.latent,
            "file": self.file_name,
        }


def check_fields(fields: Sequence[Field]) -> None:
    """Checks that the fields can be stored together.

    Raises:
        ConfigError: a name or file name occurs twice, a field has no entries or cannot be stored without pickle, or
            the scalar bool experience fields `is_first` and `is_last` are missing.
    """
    by_file: dict[str, str] = {}
    for field in fields:
        key = field.file_name.casefold()
        if key in by_file:
            raise ConfigError(
                f"Replay fields {by_file[key]!r} and {field.name!r} would share the file {field.file_name}; "
                "rename one of them."
            )
        by_file[key] = field.name
        if field.dtype.hasobject or field.dtype.names is not None or field.dtype.itemsize == 0:
            raise ConfigError(
                f"Replay field {field.name!r} has dtype {field.dtype}; use a plain numeric or bool dtype."
            )
        if any(size < 1 for size in field.shape):
            raise ConfigError(f"Replay field {field.name!r} has shape {field.shape}; every size must be at least 1.")
    known = {field.name: field for field in fields}
    for name in ("is_first", "is_last"):
        flag = known.get(name)
        if flag is None or flag.shape != () or flag.dtype != np.bool_ or flag.latent:
            raise ConfigError(
                f"The replay needs a field {name!r} of shape (), dtype bool and latent=False, got {flag}."
            )
