"""What a person sees while a run trains."""

from __future__ import annotations

import collections
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from reverie.training.estimate import duration
from reverie.training.evaluation import Playing

QUIET_SECONDS, NOTEBOOK_SECONDS = 30.0, 10.0
"""Seconds between two lines where no terminal can show a live bar: in a file or a pipe, and in a notebook."""
LOOK_SECONDS = 1.0
"""How often to look whether a line is due."""
SAMPLE_SECONDS, SAMPLES = 5.0, 120
"""The speed that gives the time left is that of the last 120 steps, or of those of the last ten minutes if they are
more: some are of minutes, others of milliseconds."""
SHORTEST_BAR = 10
"""Columns."""


class Display:
    """A live progress bar on a terminal, a line now and then elsewhere, nothing if not wanted.

    Everything is shown as plain text: nothing in a name is taken for markup.

    Args:
        title: what is trained.
        total: steps, or whatever is counted, at the end.
        visible: False for no output at all.
        unit: what `total` counts.
        more: asked for what follows the note whenever that is shown, so that it moves while a long update runs.
        transient: remove the bar at the end.
    """

    def __init__(
        self,
        title: str,
        total: int,
        visible: bool = True,
        unit: str = "steps",
        more: Callable[[], str] = lambda: "",
        transient: bool = False,
    ) -> None:
        self.console = Console(file=sys.stderr, quiet=not visible, highlight=False, force_jupyter=False)
        self.title, self.total, self.visible, self.unit = title, total, visible, unit
        self._more = more
        self._done, self._note = 0, ""
        self._doing, self._since, self._detail = "", 0.0, ""
        self._begun = self._last_line = time.monotonic()
        self._samples: collections.deque[tuple[float, int]] = collections.deque(maxlen=SAMPLES)
        self._live: Live | None = None
        if visible and self.console.is_terminal:
            self._live = Live(get_renderable=lambda: self, console=self.console, transient=transient)
        self._quiet_seconds = NOTEBOOK_SECONDS if Console().is_jupyter else QUIET_SECONDS
        self._ended = threading.Event()
        self._lock = threading.RLock()  # an interrupt says something in the middle of whatever holds it

    def __enter__(self) -> Display:
        self._begun = self._last_line = time.monotonic()
        if self._live:
            self._live.start()
        elif self.visible:
            threading.Thread(target=self._keep_saying, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        if self._live:
            self._live.stop()
        self._more = lambda: ""  # what it belongs to, such as a trainer with its replay, is no longer held

    def update(self, done: int, note: str | None = None) -> None:
        """Shows how far the run is; cheap enough for every step.

        Args:
            done: so many steps.
            note: what else is to be said, separated by " · "; by default what was said before.
        """
        now = time.monotonic()
        if not self._samples or (done != self._done and now - self._samples[-1][0] >= SAMPLE_SECONDS):
            self._samples.append((now, done))
        self._done, self._note = done, self._note if note is None else note
        self._say_if_due()

    def forget_speed(self) -> None:
        """What follows takes another time per step than what was done so far, such as a warm-up without updates."""
        self._samples.clear()

    @contextlib.contextmanager
    def busy(self, doing: str) -> Iterator[None]:
        """Within the block the display says what is being done, and for how long, instead of the note."""
        self._doing, self._since, self._detail = doing, time.monotonic(), ""
        try:
            yield
        finally:
            self._doing = self._detail = ""

    def watch(self, playing: Playing) -> None:
        """Shows how far an evaluation is; for `play`."""
        since = self._since if self._doing else self._begun
        self._detail = _in_words(playing, time.monotonic() - since)
        self._say_if_due()

    def say(self, text: str) -> None:
        """Prints a line above the bar; in a file it is not broken, however long it is."""
        with self._lock:
            self.console.print(Text(text), soft_wrap=not self.console.is_terminal)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The bar: one line, or more where it is too narrow."""
        now, width = time.monotonic(), options.max_width
        counts = f"{self._done:,}/{self.total:,} {self.unit}"
        pieces = self._pieces(now)
        if not self._doing:
            pieces.append(_clock(now - self._begun))
        left = self._seconds_left(now)
        if left is not None:
            pieces.append(f"left {_clock(left)}")
        whole = " · ".join([counts, *pieces])
        if cell_len(f"{self.title}  {whole}") + SHORTEST_BAR <= width:
            yield self._bar(whole, width)
            return
        yield self._bar(counts, width)
        yield from _filled(pieces, width)

    def _bar(self, right: str, width: int) -> Table:
        """Title, bar, and what follows it."""
        title = Text(self.title, style="bold", no_wrap=True)
        title.truncate(max(width - SHORTEST_BAR - 2 - cell_len(right), SHORTEST_BAR), overflow="ellipsis")
        line = Table.grid(Column(no_wrap=True), Column(ratio=1), Column(no_wrap=True), padding=(0, 1), expand=True)
        line.add_row(title, ProgressBar(self.total, self._done), Text(right, no_wrap=True))
        return line

    def _pieces(self, now: float) -> list[str]:
        """What is being done, or the note."""
        if self._doing:
            text = f"{self._doing} {_clock(now - self._since)}"
            return [text, *self._detail.split(" · ")] if self._detail else [text]
        pieces = (self._detail or f"{self._note} · {self._more()}").split(" · ")
        return [piece for piece in pieces if piece] or ["starting"]

    def _seconds_left(self, now: float) -> float | None:
        """How long the rest takes at the recent speed; None while that is unknown, or something else is done."""
        if self._doing or self._detail or self._done >= self.total or not self._samples:
            return None
        begun, first = self._samples[0]
        if self._done <= first or now <= begun:
            return None
        return (now - begun) / (self._done - first) * (self.total - self._done)

    def _say_if_due(self) -> None:
        if self._live or not self.visible:
            return
        with self._lock:
            now = time.monotonic()
            if now - self._last_line <= self._quiet_seconds:
                return
            self._last_line = now
            line = [f"{self.title}: {self._done:,} of {self.total:,} {self.unit}", *self._pieces(now)]
            left = self._seconds_left(now)
            if left is not None:
                line.append(f"about {duration(left)} left")
            self.say(" · ".join(line))

    def _keep_saying(self) -> None:
        """Prints lines while nothing else calls, as in a long update."""
        while not self._ended.wait(LOOK_SECONDS):
            self._say_if_due()


def _in_words(playing: Playing, seconds: float) -> str:
    """How far an evaluation is that began so many seconds ago."""
    text = f"{playing.finished} of {playing.episodes} episodes · {playing.decisions:,} decisions"
    if not 0 < playing.share < 1 or seconds < 1:
        return text
    left = duration(seconds / playing.share * (1 - playing.share))
    return f"{text} · {'about' if playing.finished else 'at most'} {left} left"


def _filled(pieces: list[str], width: int) -> Iterator[Text]:
    """As few lines as hold all pieces; one that is too long for a line of its own is cut."""
    line = ""
    for piece in pieces:
        longer = f"{line} · {piece}" if line else piece
        if line and cell_len(longer) > width:
            yield Text(line, no_wrap=True, overflow="ellipsis")
            longer = piece
        line = longer
    yield Text(line, no_wrap=True, overflow="ellipsis")


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
