"""Learning curves of many runs in one picture."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from reverie.errors import ReverieError, RunFolderError
from reverie.safe_files import damage_of
from reverie.training.files import write_atomic
from reverie.training.metrics import COUNTERS, METRICS_FILE, SCORES_FILE, read_metrics, read_scores
from reverie.training.published import (
    Choice,
    PublishedScore,
    choose_scores,
    frames_in_a_step,
    refuse_without_scores,
)
from reverie.training.published_lines import draw_published, published_label
from reverie.training.run_groups import (
    RunGroup,
    RunIdentity,
    group_runs,
    read_identity,
    with_defaults,
    without_copies,
)
from reverie.training.statistics import interquartile_mean, stratified_bootstrap, student_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["RunCurve", "interquartile_mean", "plot_learning_curves", "stratified_bootstrap"]

AxisName = Literal["env_steps", "frames", "updates", "generation"]
_AXIS_LABELS = {
    "env_steps": "environment steps (agent decisions)",
    "frames": "frames (environment steps × action repeat)",
    "updates": "updates (gradient steps)",
    "generation": "generations of the evolution",
}
RETURN_METRIC = "episode/return"
_GRID_POINTS = 200
_PANEL_COLUMNS = 3
_CAPTION_LETTERS_PER_INCH = 15
_LEGEND_LINE_INCHES = 0.16
_LEGEND_LETTERS = 62
_BAND_ROOM = 0.25
"""How far bands may widen the range of the vertical axis, each way, as a share of what the curves need."""
_MAX_BYTES = 300_000


@dataclass(frozen=True)
class RunCurve(RunIdentity):
    """What one run folder contributes to a figure, besides which run it is.

    Attributes:
        x: counter values of the metric, increasing, float [P].
        y: metric values, float [P].
        score_x: counter values of the evaluations, float [Q].
        score_y: mean evaluation returns, float [Q].
    """

    x: np.ndarray
    y: np.ndarray
    score_x: np.ndarray
    score_y: np.ndarray

    @property
    def end(self) -> float:
        """The last counter value of curve and evaluations."""
        return float(max(np.concatenate([self.x, self.score_x])))


@dataclass(frozen=True)
class _Band:
    """The interval of the mean over `runs` runs, from `low` to `high` at the counter values `x`, float [P] each."""

    x: np.ndarray
    low: np.ndarray
    high: np.ndarray
    color: str
    runs: int


def plot_learning_curves(
    runs: Sequence[Path],
    output: Path,
    x: AxisName = "env_steps",
    metric: str = RETURN_METRIC,
    smoothing: float = 0.05,
    published: Choice = "none",
    labels: Sequence[str] = (),
    group_by: Sequence[str] | None = None,
) -> list[Path]:
    """Draws the learning curves of runs: one panel per task, one color per group of runs, the mean over its seeds.

    A group holds the runs of one agent on one task whose settings in `config.json` are the same but for the seed and
    what does not change learning (`reverie.training.settings.SAME_LEARNING`). The legend names what differs between
    groups. Of runs with the same settings and the same seed, the longest is drawn, and a warning names the others.

    Single runs are thin lines. With two seeds or more the thick line is their mean over the range that all of them
    have reached, and the band the 95% Student t interval of that mean (`statistics.student_interval`), cut where it
    would press the curves flat. Diamonds are evaluations from `scores.json`, shown with the episode return only. Task,
    agent and seed come from `config.json`, else from the folder names `task/agent/seed`.

    Published scores of a task are drawn with it: final scores as horizontal lines, curves over the same frames. Frames
    then count as in the papers, so that one step of an Atari environment that skips frames itself is several frames.

    Args:
        runs: run folders, or folders that hold run folders at any depth.
        output: PNG file to write; its folder is made if missing.
        x: counter on the horizontal axis; `generation` is known for runs that evolve a controller.
        metric: name of the metric in `metrics.jsonl`.
        smoothing: width of the centered moving average as a share of a run's length; 0 shows the values as they are.
        published: which published scores to draw: `none`, those of the `same` agents, those of all `agents` of the
            library, or `all`, with baselines and variants. They need `x="frames"` and the episode return.
        labels: one name for each entry of `runs`, for the legend; runs with different labels are never one group.
        group_by: names of settings. Runs that differ in none of them are one group, whatever else differs; the caption
            names what does. `agent` stands for no setting at all.

    Returns:
        The run folders left out because they hold neither the metric nor evaluations yet.

    Raises:
        RunFolderError: a folder does not exist.
        ReverieError: no run holds the metric or evaluations, an argument is out of range, or there are no published
            scores for any of the tasks.
        OSError: the picture cannot be written.
    """
    _check_arguments(x, metric, smoothing, published=published)
    if labels and len(labels) != len(runs):
        raise ReverieError(
            f"Expected one label for each of the {len(runs)} given folders, got {len(labels)}; a folder that holds "
            f"several runs takes one label for all of them."
        )
    curves, empty, names = [], [], set()
    for folder, label in _find_labeled_runs(runs, labels).items():
        curve, found = _read_run(folder, x, metric, label=label)
        names |= found
        if len(curve.x) or len(curve.score_x):
            curves.append(curve)
        else:
            empty.append(folder)
    if not curves:
        known = f"they hold {sorted(names)}" if names else "they have not written metrics yet"
        raise ReverieError(
            f"None of the {len(runs)} runs has the metric {metric!r} or evaluations over {x!r}: {known}."
        )
    if published != "none":
        refuse_without_scores([curve.task for curve in curves], published, {curve.agent for curve in curves})
        curves = [_in_published_frames(curve) for curve in curves]
    curves, copies = without_copies(sorted(with_defaults(curves), key=lambda curve: -curve.end), group_by)
    if copies:
        pairs = ", ".join(f"{copy.folder} (as {kept.folder})" for copy, kept in copies)
        warnings.warn(f"not drawn, since settings and seed are those of another run: {pairs}", stacklevel=2)
    figure = _draw(group_runs(curves, group_by), x, metric, smoothing=smoothing, published=published)
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png")
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, _shrunk(encoded.getvalue()))
    return empty


def _check_arguments(x: str, metric: str, smoothing: float, published: Choice) -> None:
    """Refuses what cannot be drawn."""
    if x not in _AXIS_LABELS or not 0 <= smoothing < 1:
        raise ReverieError(
            f"Expected x to be one of {list(_AXIS_LABELS)} and smoothing from 0 to below 1, got {x!r} and {smoothing}."
        )
    if published != "none" and (x, metric) != ("frames", RETURN_METRIC):
        raise ReverieError(
            f"Published scores are episode returns over frames, so they need x 'frames' and the metric "
            f"{RETURN_METRIC!r}, got {x!r} and {metric!r}."
        )


def _in_published_frames(curve: RunCurve) -> RunCurve:
    """The same run, with frames counted as the papers count them."""
    keywords = {name: value for (section, name), value in curve.settings.items() if section == "kwargs"}
    factor = frames_in_a_step(curve.task, keywords)
    return replace(curve, x=curve.x * factor, score_x=curve.score_x * factor)


def _find_labeled_runs(given: Sequence[Path], labels: Sequence[str]) -> dict[Path, str | None]:
    """Run folders and their labels; a folder that was given twice has the label of the first time."""
    found: dict[Path, tuple[Path, str | None]] = {}
    for place, folder in enumerate(given):
        for run in _find_runs(Path(folder)):
            found.setdefault(run.resolve(), (run, labels[place] if labels else None))
    return dict(found.values())


def _find_runs(folder: Path) -> list[Path]:
    """The folder itself if there is a run in it or nowhere below it, otherwise the run folders inside it."""
    files = (METRICS_FILE, SCORES_FILE)  # a run in stages may have scores alone
    if any((folder / name).exists() for name in files):
        return [folder]
    return sorted({file.parent for name in files for file in folder.rglob(name)}) or [folder]


def _read_run(folder: Path, x: str, metric: str, label: str | None = None) -> tuple[RunCurve, set[str]]:
    """Reads one run folder; also returns the names of all its metrics."""
    if not folder.is_dir():
        raise RunFolderError(f"There is no run folder {folder}; check the path.")
    records = read_metrics(folder) if (folder / METRICS_FILE).exists() else []
    points = [(record[x], record[metric]) for record in records if x in record and metric in record]
    evaluations = read_scores(folder) if metric == RETURN_METRIC else []  # other metrics have another unit
    scores = [(entry[x], entry["mean"]) for entry in evaluations if x in entry and "mean" in entry]
    curve_x, curve_y = _columns(points)
    score_x, score_y = _columns(scores)
    names = {name for record in records for name in record} - {*COUNTERS, "seconds"}
    with damage_of(folder / "config.json"):
        identity = vars(read_identity(folder, label))
    return RunCurve(**identity, x=curve_x, y=curve_y, score_x=score_x, score_y=score_y), names


def _columns(points: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Splits pairs into two float arrays, sorted by the first entry and without non-finite values."""
    array = np.array(points, dtype=np.float64).reshape(-1, 2)
    array = array[np.isfinite(array).all(axis=1)]
    array = array[np.argsort(array[:, 0], kind="stable")]
    return array[:, 0], array[:, 1]


# ---------------------------------------------------------------- drawing


def _draw(
    groups: Mapping[str, Sequence[RunGroup[RunCurve]]], x: str, metric: str, smoothing: float, published: Choice
) -> Figure:
    """Draws all panels: task -> groups of runs."""
    from matplotlib.figure import Figure

    curves = [curve for several in groups.values() for group in several for curve in group.runs]
    scores = {task: choose_scores(task, published, {curve.agent for curve in curves}) for task in groups}
    colors, agent_colors = _colors(groups, scores)
    columns = min(len(groups), _PANEL_COLUMNS)
    rows = math.ceil(len(groups) / columns)
    width, height = (4.6, 3.3) if published == "none" else (5.6, 3.6)
    height += _LEGEND_LINE_INCHES * max(_legend_lines(several, scores[task]) for task, several in groups.items())
    figure = Figure(figsize=(max(width * columns, 6.0), height * rows + 0.4), dpi=120, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[len(groups) :]:
        axis.set_axis_off()
    bands, cut = [], False
    for axis, (task, several) in zip(axes, groups.items(), strict=False):
        drawn = [_draw_group(axis, group, colors[group.color_key], smoothing=smoothing) for group in several]
        found = [band for band in drawn if band is not None]
        _label_panel(axis, task, x, metric=metric)
        if published != "none":
            own_end = max(curve.end for group in several for curve in group.runs)
            draw_published(axis, scores[task], agent_colors, own_end=own_end)
        cut |= _draw_bands(axis, found)
        bands += found
    caption = _caption([group for several in groups.values() for group in several], bands, cut, smoothing=smoothing)
    caption += "" if published == "none" else "; dashed and dotted: published scores"
    caption = textwrap.fill(caption, int(figure.get_figwidth() * _CAPTION_LETTERS_PER_INCH))
    figure.supxlabel(caption, fontsize=8, color="0.4")
    return figure


def _colors(
    groups: Mapping[str, Sequence[RunGroup[RunCurve]]], scores: Mapping[str, Sequence[PublishedScore]]
) -> tuple[dict[object, str], dict[str, str]]:
    """Colors of groups, and of agents in published scores: that of their runs if they all have one."""
    colors: dict[object, str] = {}
    keys: dict[str, set[object]] = {}
    for group in sorted((g for several in groups.values() for g in several), key=lambda g: g.runs[0].head):
        colors.setdefault(group.color_key, f"C{len(colors) % 10}")
        keys.setdefault(group.runs[0].agent, set()).add(group.color_key)
    agent_colors = {agent: colors[next(iter(own))] for agent, own in sorted(keys.items()) if len(own) == 1}
    for agent in sorted({score.agent for found in scores.values() for score in found if score.agent}):
        if agent not in agent_colors:
            agent_colors[agent] = colors.setdefault(("published", agent), f"C{len(colors) % 10}")
    return colors, agent_colors


def _legend_lines(groups: Sequence[RunGroup[RunCurve]], scores: Sequence[PublishedScore]) -> int:
    """Lines of text in the legend below a panel."""
    labels = [_group_label(group) for group in groups] + [published_label(score) for score in scores]
    return sum(label.count("\n") + 1 for label in labels)


def _group_label(group: RunGroup[RunCurve]) -> str:
    """What the legend says of a group: its name and how many runs it has."""
    count = group.count.replace(" ", "\xa0")  # stays on one line
    return textwrap.fill(f"{group.name} ({count})", _LEGEND_LETTERS, subsequent_indent="  ").replace("\xa0", " ")


def _label_panel(axis: Axes, task: str, x: str, metric: str) -> None:
    """Titles, axes and legend of one panel."""
    from matplotlib.ticker import EngFormatter

    axis.set_title(task, fontsize=11)
    axis.set_xlabel(_AXIS_LABELS[x], fontsize=9)
    axis.set_ylabel({RETURN_METRIC: "episode return (sum of rewards)"}.get(metric, metric), fontsize=9)
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    axis.margins(x=0.02)
    axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(0.0, -0.16))


def _draw_group(axis: Axes, group: RunGroup[RunCurve], color: str, smoothing: float) -> _Band | None:
    """Draws the runs of one group, their mean and the evaluations; returns the band of the mean, if there is one."""
    lines = [(run.x, _moving_average(run.x, run.y, smoothing)) for run in group.runs if len(run.x)]
    label: str | None = _group_label(group)
    band = None
    if len(lines) == 1:
        axis.plot(*lines[0], color=color, linewidth=1.8, label=label)
        label = None
    elif lines:
        for line_x, line_y in lines:
            axis.plot(line_x, line_y, color=color, linewidth=0.6, alpha=0.35)
        start, stop = max(line_x[0] for line_x, _ in lines), min(line_x[-1] for line_x, _ in lines)
        if start < stop:
            grid = np.linspace(start, stop, _GRID_POINTS)
            values = np.stack([np.interp(grid, line_x, line_y) for line_x, line_y in lines])  # [runs, grid points]
            band = _Band(grid, *student_interval(values), color=color, runs=len(lines))
            axis.plot(grid, values.mean(axis=0), color=color, linewidth=1.8, label=label)
            label = None
    score_x, score_y = (np.concatenate([getattr(run, name) for run in group.runs]) for name in ("score_x", "score_y"))
    style = {"linestyle": "none", "marker": "D", "markersize": 4.5, "markeredgecolor": "white", "markeredgewidth": 0.6}
    axis.plot(score_x, score_y, color=color, label=label, **style)  # type: ignore[arg-type]
    return band


def _draw_bands(axis: Axes, bands: Sequence[_Band]) -> bool:
    """Draws intervals behind the curves, which decide the range of the axis; returns whether one was cut off."""
    if not bands:
        return False
    bottom, top = axis.get_ylim()
    lowest, highest = min(band.low.min() for band in bands), max(band.high.max() for band in bands)
    floor, ceiling = bottom - _BAND_ROOM * (top - bottom), top + _BAND_ROOM * (top - bottom)
    for band in bands:
        axis.fill_between(band.x, band.low, band.high, color=band.color, alpha=0.2, linewidth=0)
    axis.set_ylim(max(floor, min(lowest, bottom)), min(ceiling, max(highest, top)))
    return bool(lowest < floor or highest > ceiling)


def _moving_average(x: np.ndarray, y: np.ndarray, smoothing: float) -> np.ndarray:
    """Centered moving average of y [P] over a window of `smoothing` times the range of x [P], one-sided at the ends."""
    if smoothing == 0 or len(x) < 3:
        return y
    half = smoothing * (x[-1] - x[0]) / 2
    sums = np.concatenate([[0.0], np.cumsum(y)])
    first, last = np.searchsorted(x, x - half, side="left"), np.searchsorted(x, x + half, side="right")
    return (sums[last] - sums[first]) / (last - first)


def _caption(groups: Sequence[RunGroup[RunCurve]], bands: Sequence[_Band], cut: bool, smoothing: float) -> str:
    """One line that says what the lines, the band and the markers are, and what was pooled."""
    parts = [f"moving average over {smoothing:.0%} of each run" if smoothing else "not smoothed"]
    if bands:
        counts = sorted({band.runs for band in bands})
        over = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        kind = "seeds" if all(group.count.endswith(("seed", "seeds")) for group in groups) else "runs"
        band = f"band: 95% Student t interval of the mean over {over} {kind}"
        parts += [f"thick line: mean over {kind}", band + (", cut off at the edge of the panel" if cut else "")]
        parts.append(f"thin: single {kind}")
    curves = [curve for group in groups for curve in group.runs]
    if any(len(curve.score_x) for curve in curves):
        modes = {curve.settings.get(("settings", "deterministic_evaluation")) for curve in curves}
        mixed = ", of some runs with most likely actions" if {True, False} <= modes else ""
        parts.append(f"diamonds: evaluations{mixed}")
    pooled = sorted({name for group in groups for name in group.pooled})
    if pooled:
        parts.append(f"pooled runs differ in {', '.join(pooled)}")
    return "; ".join(parts)


def _shrunk(png: bytes) -> bytes:
    """The same PNG with a palette of 256 colors if it is larger than the limit."""
    if len(png) <= _MAX_BYTES:
        return png
    from PIL import Image

    encoded = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256).save(encoded, format="PNG", optimize=True)
    return encoded.getvalue()
