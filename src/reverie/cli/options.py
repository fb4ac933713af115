"""Reads the options of a command from a dataclass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import tyro

from reverie.agents.setting_names import name_here
from reverie.errors import ConfigError

T = TypeVar("T")


def with_default_value(words: Sequence[str], option: str, default: str) -> list[str]:
    """Gives an option without a value a default one.

    Args:
        words: of the command line.
        option: e.g. `--video`.
        default: inserted where another option, a folder, or nothing follows.
    """
    result: list[str] = []
    for word, following in zip(words, [*words[1:], None], strict=True):
        result.append(word)
        if word == option and (following is None or following.startswith("-") or Path(following).is_dir()):
            result.append(default)
    return result


def parse(options: type[T], command: str, arguments: Sequence[str]) -> T:
    """Fills a dataclass from command-line words.

    A mistyped option ends the program with code 2 and names the nearest right ones, as does one of another library;
    `--help` prints all of them.

    Args:
        options: dataclass whose docstrings are the help texts.
        command: what comes before the options, e.g. `evaluate`.
        arguments: the words after it.

    Raises:
        ConfigError: an option has another name in other libraries.
    """
    known = _names(options)
    for word in arguments:
        name = word.removeprefix("--").partition("=")[0].replace("-", "_")
        own = name_here(name, known) if word.startswith("--") and name not in known else None
        if own is not None:
            wrong, right = (f"--{words.replace('_', '-')}" for words in (name, own))
            raise ConfigError(
                f"there is no option {wrong}; what is meant is probably {right}, see reverie {command} --help"
            )
    return tyro.cli(options, prog=f"reverie {command}", args=list(arguments), config=(tyro.conf.OmitArgPrefixes,))


def _names(options: type[Any]) -> set[str]:
    """The options that a dataclass gives, with those of the dataclasses in it."""
    names: set[str] = set()
    for field in fields(options):
        names |= _names(field.type) if isinstance(field.type, type) and is_dataclass(field.type) else {field.name}
    return names


def check_output(path: Path | None) -> None:
    """Refuses a name that no file can have.

    Raises:
        ConfigError: the name is empty or that of a folder.
    """
    if path is not None and (not path.name or path.is_dir()):
        raise ConfigError(f"the output must be the name of a file, got {str(path)!r}, which is a folder")
