"""Draws published scores into a panel of learning curves: final scores as horizontal lines, curves as curves."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from reverie.training.published import PublishedScore

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = ("--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 2, 2, 2)))
_BASELINE_COLORS = ("0.25", "0.5", "0.65")
_LABEL_LETTERS = 82
_FARTHEST_VIEW = 2.0


def published_label(score: PublishedScore) -> str:
    """What the legend says: agent, what it sees, source, the last number and its frames."""
    value = _number(score.mean[-1])
    if np.isfinite(score.deviation[-1]):
        value += f" ± {_number(score.deviation[-1])}"
    if np.isfinite(score.frames[-1]):
        value += f" at {_short(score.frames[-1])} frames"
    return textwrap.fill(f"{score.name} ({score.observation}; {score.reference}): {value}", _LABEL_LETTERS)


def view_end(scores: Sequence[PublishedScore], own_end: float) -> float:
    """Where the horizontal axis ends: at the first published point at or after our last frame, unless it is too far.

    Args:
        scores: what the panel shows.
        own_end: last frame of our own runs in the panel.

    Returns:
        The largest such point over all curves that have one within twice `own_end`, and at least `own_end`.
    """
    ends = [own_end]
    for score in scores:
        later = score.frames[score.frames >= own_end]
        if len(score.frames) > 1 and len(later) and later[0] <= _FARTHEST_VIEW * own_end:
            ends.append(float(later[0]))
    return max(ends)


def draw_published(axis: Axes, scores: Sequence[PublishedScore], colors: Mapping[str, str], own_end: float) -> None:
    """Draws the published scores of one task, sets the range of the horizontal axis and moves the legend below it.

    A curve with no point in the range is drawn as a horizontal line at its last value.

    Args:
        axis: the panel, with our own runs already in it.
        scores: what to draw.
        colors: agent of the library -> color; other agents are gray.
        own_end: last frame of our own runs in the panel.
    """
    end = view_end(scores, own_end)
    drawn: dict[str, int] = {}
    for score in scores:
        family = score.agent or "other"
        index = drawn[family] = drawn.get(family, -1) + 1
        color = colors[score.agent] if score.agent else _BASELINE_COLORS[index % len(_BASELINE_COLORS)]
        style: dict[str, Any] = {"color": color, "linestyle": _STYLES[index % len(_STYLES)], "linewidth": 1.1}
        style |= {"label": published_label(score), "zorder": 1.5}
        if len(score.frames) > 1 and score.frames[0] <= end:
            axis.plot(score.frames, score.mean, marker="o", markersize=2.5, **style)
            low, high = score.mean - score.deviation, score.mean + score.deviation
            axis.fill_between(score.frames, low, high, color=color, alpha=0.08, linewidth=0, zorder=1.4)
        else:
            axis.axhline(score.mean[-1], **style)
    if not scores:
        axis.plot([], [], linestyle="none", label="no published scores to draw for this task")
    axis.set_xlim(0.0, max(end, 1.0) * 1.02)
    axis.set_xlabel("frames, as the published scores count them", fontsize=9)
    axis.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(0.0, -0.14), handlelength=3.2)


def _number(value: float) -> str:
    """A score with as many digits as the papers print."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _short(frames: float) -> str:
    """A number of frames such as 500k or 1.98M."""
    return f"{frames / 1e6:.4g}M" if frames >= 1e6 else f"{frames / 1e3:.4g}k"
