"""Reads the options of a command from a dataclass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import tyro

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

    A mistyped option ends the program with code 2 and names the nearest right ones; `--help` prints all of them.

    Args:
        options: dataclass whose docstrings are the help texts.
        command: what comes before the options, e.g. `evaluate`.
        arguments: the words after it.
    """
    return tyro.cli(options, prog=f"reverie {command}", args=list(arguments), config=(tyro.conf.OmitArgPrefixes,))


def check_output(path: Path | None) -> None:
    """Refuses a name that no file can have.

    Raises:
        ConfigError: the name is empty or that of a folder.
    """
    if path is not None and (not path.name or path.is_dir()):
        raise ConfigError(f"the output must be the name of a file, got {str(path)!r}, which is a folder")
