"""Curves over time as arrays: truth and model, dimension by dimension, as a picture and as a video.

A board of cells is drawn twice, without the curves and with them; every frame of the video shows the curves up to
its step. The curves are computed for all pixel columns at once, and no plotting library is needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reverie.dream.canvas import BACKGROUND, GRAY, IMAGINED_COLOR, OBSERVED_COLOR, TITLE_HEIGHT, text

MARGIN = 204
"""Width of the names and the numbers to the left of the cells, in pixels."""
_CELL_HEIGHT, _CELL_WIDTH, _GAP = 46, 196, 8
_NAME_WIDTH, _TICK_LENGTH, _LINE = 128, 4, 13
_TRUTH_COLOR, _MODEL_COLOR = (30, 30, 30), (31, 119, 180)
_LINE_WIDTH = 1.7
_DASH, _DASH_ON = 10, 7
_SAMPLES = 4  # of a curve within one pixel column


@dataclass(frozen=True)
class Row:
    """One row of cells.

    Attributes:
        name: shown to the left; a unit in brackets gets its own line.
        truth: [B, T], or None where there is none.
        model: [B, T], drawn dashed, or None.
        held: a value holds for its whole step, as an action does; otherwise lines join the values.
        choices: names of the values 0, 1, ...
    """

    name: str
    truth: np.ndarray | None
    model: np.ndarray | None = None
    held: bool = False
    choices: tuple[str, ...] = ()

    def curves(self) -> list[tuple[np.ndarray, tuple[int, int, int], bool]]:
        """Values, color, and whether the line is dashed."""
        pairs = ((self.truth, _TRUTH_COLOR, False), (self.model, _MODEL_COLOR, self.truth is not None))
        return [
            (np.nan_to_num(np.asarray(values, np.float64)), color, dashed)
            for values, color, dashed in pairs
            if values is not None
        ]


class Board:
    """Rows of curves, one column for each sequence.

    Args:
        rows: all of the same B and T; B columns are drawn.
        context: number of steps that the model observed; the others are shaded.
        title: first line; left out if empty.
        headings: of the columns; none if empty.
        note: small text at the bottom.
        cell_width: of a cell in pixels.
        gap: between columns, in pixels.
        legend: tell above the cells which line is which.

    Attributes:
        picture: the whole board, uint8 [H, W, 3] with even sides.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        context: int,
        title: str = "",
        headings: Sequence[str] = (),
        note: str = "",
        cell_width: int = _CELL_WIDTH,
        gap: int = 12,
        legend: bool = True,
    ) -> None:
        first = rows[0].curves()[0][0]
        columns, self.steps = first.shape
        self._context, self._width = context, cell_width
        self._lefts = [MARGIN + column * (cell_width + gap) for column in range(columns)]
        self._top = TITLE_HEIGHT * bool(title) + 20 * legend + 18 * bool(headings) + 4
        self._bottom = self._top + len(rows) * (_CELL_HEIGHT + _GAP) - _GAP
        height = self._bottom + 34 + 14 * bool(note)
        width = max(self._lefts[-1] + cell_width + 12, 460)
        self._empty = np.full((height + height % 2, width + width % 2, 3), BACKGROUND, np.uint8)
        if title:
            self._put(text(title, width, TITLE_HEIGHT), 0, 0)
        if legend:
            self._draw_legend(TITLE_HEIGHT * bool(title))
        for left, heading in zip(self._lefts, headings, strict=False):
            self._put(text(heading, cell_width, 18, size=12, align="center"), self._top - 20, left)
        self._draw_steps()
        if note:
            self._put(text(note, width, 14, size=11, ink=GRAY), height - 15, 0)
        limits = [self._draw_cells(row, self._row_top(number)) for number, row in enumerate(rows)]
        self.picture = self._empty.copy()
        for number, (row, (low, high)) in enumerate(zip(rows, limits, strict=True)):
            for values, color, dashed in row.curves():
                self._draw_curves(
                    self._row_top(number), (high - values) / (high - low), row.held, color=color, dashed=dashed
                )

    def frames(self, max_frames: int = 100) -> np.ndarray:
        """A cursor moves through time and the lines appear behind it.

        Args:
            max_frames: longer sequences are shown at this many evenly spaced steps.

        Returns:
            uint8 [min(T, max_frames), H, W, 3].
        """
        shown = shown_steps(self.steps, max_frames)
        frames = np.repeat(self._empty[None], len(shown), axis=0)
        rows = slice(self._top, self._bottom)
        for frame, step in zip(frames, shown, strict=True):
            cursor = round(self._position(step))
            for left in self._lefts:
                frame[rows, left : left + cursor] = self.picture[rows, left : left + cursor]
                color = OBSERVED_COLOR if step < self._context else IMAGINED_COLOR
                frame[rows, left + max(cursor - 1, 0) : left + min(cursor + 1, self._width)] = color
        return frames

    def _row_top(self, number: int) -> int:
        return self._top + number * (_CELL_HEIGHT + _GAP)

    def _position(self, step: float) -> float:
        """Where the middle of a step is, in pixels from the left of a cell."""
        return (step + 0.5) / self.steps * self._width

    def _put(self, picture: np.ndarray, top: int, left: int) -> None:
        """Places a picture on the empty board; what does not fit is cut off."""
        place = self._empty[top : top + picture.shape[0], left : left + picture.shape[1]]
        place[:] = picture[: place.shape[0], : place.shape[1]]

    def _draw_legend(self, top: int) -> None:
        entries = (("truth", _TRUTH_COLOR), ("model", _MODEL_COLOR), ("imagined", None))
        for number, (name, color) in enumerate(entries):
            left = MARGIN + number * 92
            swatch = self._empty[top + 5 : top + 15, left : left + 22]
            if color is None:
                swatch[:] = _shade(swatch)
            else:
                swatch[4:6] = color
            if color == _MODEL_COLOR:
                swatch[4:6, _DASH_ON::_DASH] = BACKGROUND
                swatch[4:6, _DASH_ON + 1 :: _DASH] = BACKGROUND
            self._put(text(name, 66, 20, size=12), top, left + 22)

    def _draw_steps(self) -> None:
        """Numbers of steps under the lowest cells."""
        ticks = [tick for tick in _ticks(0, self.steps - 1, most=6) if tick == int(tick)]
        for left in self._lefts:
            for tick in ticks:
                middle = left + round(self._position(tick))
                self._empty[self._bottom : self._bottom + _TICK_LENGTH, middle] = GRAY
                self._put(text(f"{tick:.0f}", 36, _LINE, size=11, align="center"), self._bottom + 5, middle - 18)
            self._put(text("step", self._width, 14, size=11, ink=GRAY, align="center"), self._bottom + 18, left)

    def _draw_cells(self, row: Row, top: int) -> tuple[float, float]:
        """Background, frame, grid, name and numbers of a row; returns the values at its lower and upper edge."""
        values = np.concatenate([curve[0].reshape(-1) for curve in row.curves()])
        if row.choices:
            low, high = -0.25, len(row.choices) - 0.75
            labels = {float(value): name for value, name in enumerate(row.choices)}
        else:
            low, high = _limits(float(values.min()), float(values.max()))
            labels = {tick: f"{tick:.10g}" for tick in _ticks(low, high, most=3)}
        shaded = round(self._position(self._context - 0.5))
        for left in self._lefts:
            cell = self._empty[top : top + _CELL_HEIGHT, left : left + self._width]
            cell[:, shaded:] = _shade(cell[:, shaded:])
            for tick in labels:
                cell[_pixel(tick, low, high)] = 225
            cell[[0, -1]], cell[:, [0, -1]] = 190, 190
        self._draw_name(row.name, top)
        for tick, label in labels.items():
            middle = top + _pixel(tick, low, high)
            self._empty[middle, MARGIN - _TICK_LENGTH : MARGIN] = GRAY
            picture = text(label, MARGIN - _NAME_WIDTH - 6, 11, size=10, align="right")
            self._put(picture, middle - 5, _NAME_WIDTH)
        return low, high

    def _draw_name(self, name: str, top: int) -> None:
        """The name of a row, in lines that fit."""
        lines = [""]
        for word in name.split(" "):
            if lines[-1] and len(lines[-1]) + len(word) > 19:
                lines.append("")
            lines[-1] = f"{lines[-1]} {word}".strip()
        start = top + (_CELL_HEIGHT - _LINE * len(lines)) // 2
        for number, line in enumerate(lines[:3]):
            self._put(text(line, _NAME_WIDTH, _LINE, size=12), start + number * _LINE, 0)

    def _draw_curves(
        self, top: int, heights: np.ndarray, held: bool, color: tuple[int, int, int], dashed: bool
    ) -> None:
        """One curve in every cell of a row, smooth at its edges; heights [B, T] are 0 at the top and 1 below."""
        steps = np.linspace(-0.5, self.steps - 0.5, self._width * _SAMPLES + 1)
        known = np.arange(self.steps)
        if held:
            curve = heights[:, np.floor(steps + 0.5).astype(int).clip(0, self.steps - 1)]
        else:
            curve = np.stack([np.interp(steps, known, line) for line in heights])
        curve = curve.clip(-0.5, 1.5) * _CELL_HEIGHT
        within = np.arange(self._width)[:, None] * _SAMPLES + np.arange(_SAMPLES + 1)
        highest, lowest = curve[:, within].min(-1), curve[:, within].max(-1)  # [B, W]
        rows = np.arange(_CELL_HEIGHT)[:, None]
        half = _LINE_WIDTH / 2
        ink = np.minimum(lowest[:, None] + half, rows + 1) - np.maximum(highest[:, None] - half, rows)
        ink = ink.clip(0, 1)  # [B, H, W]
        if dashed:
            lengths = np.cumsum(np.hypot(1, np.gradient(curve[:, _SAMPLES // 2 :: _SAMPLES], axis=1)), axis=1)
            ink *= (lengths % _DASH < _DASH_ON)[:, None]
        for left, cover in zip(self._lefts, ink[..., None], strict=True):
            cell = self.picture[top : top + _CELL_HEIGHT, left : left + self._width]
            cell[:] = (cell * (1 - cover) + np.array(color) * cover).round()


def shown_steps(steps: int, most: int) -> np.ndarray:
    """All steps, or as many evenly spaced ones as may be shown, int [min(steps, most)]."""
    return np.linspace(0, steps - 1, min(steps, most)).round().astype(int)


def _shade(cell: np.ndarray) -> np.ndarray:
    """The background of what is imagined: a little of its color."""
    return (cell * 0.92 + np.array(IMAGINED_COLOR) * 0.08).astype(np.uint8)


def _pixel(value: float, low: float, high: float) -> int:
    """The pixel row of a value within a cell."""
    return min(int((high - value) / (high - low) * _CELL_HEIGHT), _CELL_HEIGHT - 1)


def _limits(low: float, high: float) -> tuple[float, float]:
    """The edges of a row: some space around its values, and never so narrow that rounding errors fill it."""
    middle, size = (low + high) / 2, max(abs(low), abs(high))
    half = max((high - low) / 2 * 1.15, 0.05 * size, 1e-6)
    return middle - half, middle + half


def _ticks(low: float, high: float, most: int) -> list[float]:
    """At most so many round numbers from `low` to `high`."""
    if high <= low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (power, 2 * power, 5 * power, 10 * power, 20 * power):
        numbers = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
        if len(numbers) <= most:
            break
    return [number * step for number in numbers]
