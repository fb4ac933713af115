"""Checks of the types and ranges of what a user says about an environment."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from reverie.envs.images import MAXIMUM_IMAGE_SIDE, MINIMUM_IMAGE_SIDE
from reverie.errors import ConfigError


def checked_flag(name: str, value: Any) -> bool:
    """True or False.

    Raises:
        ConfigError: it is something else.
    """
    if not isinstance(value, bool | np.bool_):
        raise ConfigError(f"{name} is {value!r}, but it must be True or False")
    return bool(value)


def checked_count(name: str, value: Any) -> int:
    """A whole number of 1 or more.

    Raises:
        ConfigError: it is something else.
    """
    if not _is_whole(value):
        raise ConfigError(f"{name} is {value!r}, but it must be a whole number of at least 1")
    if value < 1:
        raise ConfigError(f"{name} is {value}, but it must be at least 1")
    return operator.index(value)


def checked_image_size(size: Any) -> tuple[int, int] | None:
    """Height and width, both within what agents can see, from both, from one side, or from None.

    Raises:
        ConfigError: it is something else.
    """
    if size is None:
        return None
    pair = (size, size) if _is_whole(size) else size
    fits = isinstance(pair, tuple | list) and len(pair) == 2 and all(_is_whole(side) for side in pair)
    if not fits or not all(MINIMUM_IMAGE_SIDE <= side <= MAXIMUM_IMAGE_SIDE for side in pair):
        raise ConfigError(
            f"image_size is {size!r}, but it must be one side, or height and width, of {MINIMUM_IMAGE_SIDE} to "
            f"{MAXIMUM_IMAGE_SIDE} pixels"
        )
    return operator.index(pair[0]), operator.index(pair[1])


def checked_mapping(name: str, value: Any) -> dict[str, Any]:
    """A dictionary with text as keys.

    Raises:
        ConfigError: it is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{name} is {value!r}, but it must be a dictionary whose keys are text")
    return dict(value)


def checked_names(name: str, value: Any) -> tuple[str, ...]:
    """Several names, or one.

    Raises:
        ConfigError: it is something else.
    """
    names = (value,) if isinstance(value, str) else () if value is None else value
    if not isinstance(names, Collection) or not all(isinstance(each, str) for each in names):
        raise ConfigError(f"{name} is {value!r}, but it must be a list of names")
    return tuple(names)


def _is_whole(value: Any) -> bool:
    """Whether it is a whole number, in Python or numpy; True and False are not."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
