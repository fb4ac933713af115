"""reverie envs: lists environments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from reverie.cli.options import parse


@dataclass(frozen=True)
class EnvsOptions:
    """List the environments that Gymnasium knows here, and the extra that each needs."""

    search: Annotated[str, tyro.conf.Positional] = ""
    """Show only ids that contain this text."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parse(EnvsOptions, "envs", arguments)
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from reverie.envs import list_environments

    table = Table("id", "suite", "needs")
    for entry in list_environments():
        if options.search.lower() in entry["id"].lower():
            needs = "" if entry["installed"] else f'pip install "reverie-rl[{entry["extra"]}]"'
            table.add_row(escape(entry["id"]), entry["suite"], escape(needs))
    Console().print(table)
    return 0
