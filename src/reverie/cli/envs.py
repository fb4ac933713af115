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
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    from reverie.envs import list_environments

    table = Table("id", "suite", "needs")
    for entry in list_environments():
        if options.search.lower() in entry["id"].lower():
            needs = "" if entry["installed"] else f'pip install "reverie-rl[{entry["extra"]}]"'
            table.add_row(*(Text(cell) for cell in (entry["id"], entry["suite"], needs)))
    console = Console(highlight=False)
    if not console.is_terminal:  # a file or a pipe has no width; nothing is broken
        console.width = max(console.width, Measurement.get(console, console.options.update(width=10**4), table).maximum)
    console.print(table)
    return 0
