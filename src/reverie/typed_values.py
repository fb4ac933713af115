"""Checks of the types of what a user says, by the annotations of a dataclass or a function.

Whole numbers and numbers may come from numpy; True and False are not numbers. Annotations that are neither numbers,
text, paths, flags nor choices are not checked.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from reverie.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])

WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    type(None): "None",
}


def check_types(kinds: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Refuses the first value that is not of its kind.

    Args:
        kinds: name -> annotation.
        values: name -> value, of some or all of them.

    Raises:
        ConfigError: names it, and says what was expected.
    """
    for name, value in values.items():
        choices = _choices(kinds.get(name, Any))
        if choices and not any(_fits(value, choice) for choice in choices):
            expected = " or ".join(dict.fromkeys(_words(choice) for choice in choices))
            raise ConfigError(f"{name} must be {expected}, got {value!r}")


def field_names(settings: type[Any]) -> set[str]:
    """Names of the fields of a dataclass."""
    return {field.name for field in fields(settings)}


def plain(value: Any) -> Any:
    """A number of numpy as Python's own, which JSON holds; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def check_fields(settings: Any) -> None:
    """Checks the fields of a frozen dataclass, and makes numbers of numpy plain ones; see `check_types`."""
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    check_types(get_type_hints(type(settings)), values)
    for name, value in values.items():
        object.__setattr__(settings, name, plain(value))


def checked_arguments(function: F) -> F:
    """A function that refuses arguments of another type than its annotations say; see `check_types`."""
    signature = inspect.signature(function)

    @functools.cache
    def kinds() -> dict[str, Any]:
        return get_type_hints(function)

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        check_types(kinds(), {name: value for name, value in given.items() if name not in ("self", "settings")})
        return function(*args, **kwargs)

    return checked  # type: ignore[return-value]


def _choices(kind: Any) -> tuple[Any, ...]:
    """The alternatives of an annotation; empty where one of them is not checked."""
    alternatives = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    known = all(each in WORDS or get_origin(each) is Literal for each in alternatives)
    return alternatives if known else ()


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if kind is bool:
        return isinstance(value, bool | np.bool_)
    if isinstance(value, bool | np.bool_):
        return False
    if kind is int:
        return isinstance(value, int | np.integer)
    if kind is float:
        return isinstance(value, int | float | np.integer | np.floating)
    return isinstance(value, str | Path) if kind is Path else isinstance(value, kind)


def _words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    return WORDS[kind]
