"""What a person sees while a run trains."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

QUIET_SECONDS = 30.0
"""Seconds between two lines where no terminal can show a live bar."""
SPEED_SECONDS = 3600.0
"""Seconds over which the speed is measured that tells the time left; steps of a minute must fit in several times."""


class Display:
    """A live progress bar on a terminal, a line now and then elsewhere, nothing if not wanted.

    Args:
        title: what is trained.
        total: steps, or whatever is counted, at the end.
        visible: False for no output at all.
        unit: what `total` counts.
    """

    def __init__(self, title: str, total: int, visible: bool = True, unit: str = "steps") -> None:
        self.console = Console(file=sys.stderr, quiet=not visible, highlight=False)
        self.title, self.total, self.visible, self.unit = title, total, visible, unit
        self._live = visible and self.console.is_terminal
        self._last_line = time.monotonic()
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn(unit + " · {task.fields[note]} ·"),
            TimeElapsedColumn(),
            TextColumn("· left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self._live,
            speed_estimate_period=SPEED_SECONDS,
        )
        self._begun: tuple[float, int] | None = None
        self._task = self._progress.add_task(title, total=total, note="starting")

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._progress.stop()

    def update(self, done: int, note: str) -> None:
        """Shows how far the run is."""
        self._progress.update(self._task, completed=done, note=note)
        now = time.monotonic()
        self._begun = self._begun or (now, done)
        if self.visible and not self._live and now - self._last_line > QUIET_SECONDS:
            self._last_line = now
            self.say(f"{self.title}: {done:,} of {self.total:,} {self.unit} · {note}{self._time_left(now, done)}")

    def _time_left(self, now: float, done: int) -> str:
        """How long the rest takes at the speed so far, for a line of text."""
        assert self._begun is not None
        begun, first = self._begun
        if done <= first or done >= self.total:
            return ""
        minutes = (now - begun) / (done - first) * (self.total - done) / 60
        return f" · about {minutes:,.0f} min left" if minutes >= 1 else " · less than a minute left"

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self.console.print(text)
