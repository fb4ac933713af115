"""Learning curves of many runs in one picture, and the statistics that compare agents over tasks."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from reverie.errors import ReverieError, RunFolderError
from reverie.training.files import read_json, write_atomic
from reverie.training.metrics import COUNTERS, METRICS_FILE, SCORES_FILE, read_metrics, read_scores
from reverie.training.published import (
    Choice,
    PublishedScore,
    choose_scores,
    frames_in_a_step,
    refuse_without_scores,
)
from reverie.training.published_lines import draw_published, published_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
_LEGEND_LINE_INCHES = 0.14
_MAX_BYTES = 300_000


@dataclass(frozen=True)
class RunCurve:
    """What one run folder contributes to a figure.

    Attributes:
        task: environment id.
        agent: name of the agent.
        seed: seed or name of the run.
        x: counter values of the metric, increasing, float [P].
        y: metric values, float [P].
        score_x: counter values of the evaluations, float [Q].
        score_y: mean evaluation returns, float [Q].
        frames_in_a_step: frames, as published scores count them, in one step of the environment.
    """

    task: str
    agent: str
    seed: str
    x: np.ndarray
    y: np.ndarray
    score_x: np.ndarray
    score_y: np.ndarray
    frames_in_a_step: int = 1


def plot_learning_curves(
    runs: Sequence[Path],
    output: Path,
    x: AxisName = "env_steps",
    metric: str = RETURN_METRIC,
    smoothing: float = 0.05,
    published: Choice = "none",
) -> list[Path]:
    """Draws the learning curves of runs: one panel a task, one colour an agent, the mean over its seeds.

    Single runs are thin lines. With two seeds or more the thick line is their mean over the range that all of them
    have reached, and the band its 95% bootstrap confidence interval over seeds. Diamonds are evaluations from
    `scores.json`, shown with the episode return only. Task, agent and seed come from `config.json`, else from the
    folder names `task/agent/seed`.

    Published scores of a task are drawn with it: final scores as horizontal lines, curves over the same frames. Frames
    then count as in the papers, so that one step of an Atari environment that skips frames itself is several frames.

    Args:
        runs: run folders, or folders that hold run folders at any depth.
        output: PNG file to write; its folder is made if missing.
        x: counter on the horizontal axis; `generation` is known of runs that evolve a controller.
        metric: name of the metric in `metrics.jsonl`.
        smoothing: width of the centred moving average as a share of a run's length; 0 shows the values as they are.
        published: which published scores to draw: `none`, those of the `same` agents, those of all `agents` of the
            library, or `all`, with baselines and variants. They need `x="frames"` and the episode return.

    Returns:
        The run folders left out because they hold neither the metric nor evaluations yet.

    Raises:
        RunFolderError: a folder does not exist.
        ReverieError: no run holds the metric or evaluations, an argument is out of range, or there are no published
            scores for any of the tasks.
        OSError: the picture cannot be written.
    """
    _check_arguments(x, metric, smoothing, published)
    curves, empty, names = [], [], set()
    for folder in (run for given in runs for run in _find_runs(Path(given))):
        curve, found = _read_run(folder, x, metric)
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
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, _draw(curves, x, metric, smoothing, published))
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
    factor = curve.frames_in_a_step
    return replace(curve, x=curve.x * factor, score_x=curve.score_x * factor)


def _find_runs(folder: Path) -> list[Path]:
    """The folder itself if there is a run in it or nowhere below it, otherwise the run folders inside it."""
    files = (METRICS_FILE, SCORES_FILE)  # a run in stages may have scores alone
    if any((folder / name).exists() for name in files):
        return [folder]
    return sorted({file.parent for name in files for file in folder.rglob(name)}) or [folder]


def _read_run(folder: Path, x: str, metric: str) -> tuple[RunCurve, set[str]]:
    """Reads one run folder; also returns the names of all its metrics."""
    if not folder.is_dir():
        raise RunFolderError(f"There is no run folder {folder}; check the path.")
    records = read_metrics(folder) if (folder / METRICS_FILE).exists() else []
    points = [(record[x], record[metric]) for record in records if x in record and metric in record]
    evaluations = read_scores(folder) if metric == RETURN_METRIC else []  # other metrics have another unit
    scores = [(entry[x], entry["mean"]) for entry in evaluations if x in entry and "mean" in entry]
    task, agent, seed, step = _identity(folder)
    curve_x, curve_y = _columns(points)
    score_x, score_y = _columns(scores)
    names = {name for record in records for name in record} - {*COUNTERS, "seconds"}
    return RunCurve(task, agent, seed, curve_x, curve_y, score_x, score_y, step), names


def _columns(points: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Splits pairs into two float arrays, sorted by the first entry and without non-finite values."""
    array = np.array(points, dtype=np.float64).reshape(-1, 2)
    array = array[np.isfinite(array).all(axis=1)]
    array = array[np.argsort(array[:, 0], kind="stable")]
    return array[:, 0], array[:, 1]


def _identity(folder: Path) -> tuple[str, str, str, int]:
    """Task, agent and seed from `config.json`, each else from the folder names, and the published frames a step."""
    resolved = folder.resolve()
    config: Any = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
    config = config if isinstance(config, dict) else {}
    environment = config.get("environment")
    task = _name_in(environment) or resolved.parent.parent.name
    keywords = environment.get("kwargs") if isinstance(environment, dict) else None
    agent = _name_in(config.get("agent")) or resolved.parent.name
    seed = config.get("seed")
    step = frames_in_a_step(task, keywords if isinstance(keywords, dict) else {})
    return task, agent, resolved.name if seed is None else str(seed), step


def _name_in(value: Any) -> str:
    """The name in a config entry that is text or a dictionary with `environment` or `name`; empty if there is none."""
    if isinstance(value, dict):
        value = value.get("environment") or value.get("name")
    return value if isinstance(value, str) else ""


def _draw(curves: list[RunCurve], x: str, metric: str, smoothing: float, published: Choice) -> bytes:
    """Draws all panels; returns a PNG file."""
    from matplotlib.figure import Figure

    tasks = sorted({curve.task for curve in curves})
    agents = sorted({curve.agent for curve in curves})
    scores = {task: choose_scores(task, published, agents) for task in tasks}
    others = sorted({score.agent for task in tasks for score in scores[task] if score.agent} - set(agents))
    colours = {agent: f"C{index % 10}" for index, agent in enumerate(agents + others)}
    columns = min(len(tasks), _PANEL_COLUMNS)
    rows = math.ceil(len(tasks) / columns)
    width, height = (4.6, 3.5) if published == "none" else (5.6, 3.6 + _legend_inches(curves, scores))
    figure = Figure(figsize=(max(width * columns, 6.0), height * rows + 0.4), dpi=120, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel, axis in enumerate(axes.flat):
        if panel >= len(tasks):
            axis.set_axis_off()
            continue
        for agent in agents:
            group = [curve for curve in curves if (curve.task, curve.agent) == (tasks[panel], agent)]
            if group:
                _draw_group(axis, agent, group, colours[agent], smoothing)
        _label_panel(axis, tasks[panel], x, metric)
        if published != "none":
            own_end = max(_last_frame(curve) for curve in curves if curve.task == tasks[panel])
            draw_published(axis, scores[tasks[panel]], colours, own_end)
    caption = _caption(curves, smoothing) + ("" if published == "none" else "; dashed and dotted: published scores")
    caption = textwrap.fill(caption, int(figure.get_figwidth() * _CAPTION_LETTERS_PER_INCH))
    figure.supxlabel(caption, fontsize=8, color="0.4")
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png")
    return _shrunk(encoded.getvalue())


def _last_frame(curve: RunCurve) -> float:
    """The last counter value of a run's curve and evaluations."""
    return float(max(np.concatenate([curve.x, curve.score_x])))


def _legend_inches(curves: list[RunCurve], scores: Mapping[str, Sequence[PublishedScore]]) -> float:
    """Height that the longest legend below a panel needs."""
    lines = [
        len({curve.agent for curve in curves if curve.task == task})
        + sum(published_label(score).count("\n") + 1 for score in found)
        for task, found in scores.items()
    ]
    return _LEGEND_LINE_INCHES * max(lines)


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
    axis.legend(fontsize=8, framealpha=0.8)


def _draw_group(axis: Axes, agent: str, group: list[RunCurve], colour: str, smoothing: float) -> None:
    """Draws the runs of one agent on one task, their mean, its confidence band and the evaluations."""
    seeds = f"{len(group)} seed{'s' if len(group) > 1 else ''}"
    lines = [(run.x, _moving_average(run.x, run.y, smoothing)) for run in group if len(run.x)]
    label: str | None = f"{agent} ({seeds})"
    if len(lines) == 1:
        axis.plot(*lines[0], color=colour, linewidth=1.8, label=label)
        label = None
    elif lines:
        for line_x, line_y in lines:
            axis.plot(line_x, line_y, color=colour, linewidth=0.6, alpha=0.35)
        start, stop = max(line_x[0] for line_x, _ in lines), min(line_x[-1] for line_x, _ in lines)
        if start < stop:
            grid = np.linspace(start, stop, _GRID_POINTS)
            values = np.stack([np.interp(grid, line_x, line_y) for line_x, line_y in lines])  # [runs, grid points]
            low, high = _mean_interval(values)
            axis.fill_between(grid, low, high, color=colour, alpha=0.2, linewidth=0)
            axis.plot(grid, values.mean(axis=0), color=colour, linewidth=1.8, label=label)
            label = None
    score_x, score_y = (np.concatenate([getattr(run, name) for run in group]) for name in ("score_x", "score_y"))
    style = {"linestyle": "none", "marker": "D", "markersize": 4.5, "markeredgecolor": "white", "markeredgewidth": 0.6}
    axis.plot(score_x, score_y, color=colour, label=label, **style)  # type: ignore[arg-type]


def _moving_average(x: np.ndarray, y: np.ndarray, smoothing: float) -> np.ndarray:
    """Centred moving average of y [P] over a window of `smoothing` times the range of x [P], one-sided at the ends."""
    if smoothing == 0 or len(x) < 3:
        return y
    half = smoothing * (x[-1] - x[0]) / 2
    sums = np.concatenate([[0.0], np.cumsum(y)])
    first, last = np.searchsorted(x, x - half, side="left"), np.searchsorted(x, x + half, side="right")
    return (sums[last] - sums[first]) / (last - first)


def _mean_interval(values: np.ndarray, resamples: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """95% percentile bootstrap interval of the mean over runs, values [runs, P] -> low [P], high [P]."""
    runs = len(values)
    drawn = np.random.default_rng(0).integers(runs, size=(resamples, runs))
    weights = (drawn[:, :, None] == np.arange(runs)).mean(axis=1)  # [resamples, runs], share of each run
    low, high = np.quantile(weights @ values, (0.025, 0.975), axis=0)
    return low, high


def _caption(curves: list[RunCurve], smoothing: float) -> str:
    """One line that says what the lines, the band and the markers are."""
    parts = [f"moving average over {smoothing:.0%} of each run" if smoothing else "not smoothed"]
    groups = [(curve.task, curve.agent) for curve in curves]
    if len(set(groups)) < len(groups):
        parts += ["thick line: mean over seeds", "band: 95% bootstrap interval of the mean", "thin: single seeds"]
    if any(len(curve.score_x) for curve in curves):
        parts.append("diamonds: evaluations")
    return "; ".join(parts)


def _shrunk(png: bytes) -> bytes:
    """The same PNG with a palette of 256 colours if it is larger than the limit."""
    if len(png) <= _MAX_BYTES:
        return png
    from PIL import Image

    encoded = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256).save(encoded, format="PNG", optimize=True)
    return encoded.getvalue()


def interquartile_mean(scores: np.ndarray) -> float:
    """Mean of the middle half of all scores, pooled over runs and tasks.

    Args:
        scores: finite floats of any shape, usually [runs, tasks], normalised so that tasks compare.

    Returns:
        The mean after a quarter of the values (rounded down) is cut from each end.

    Raises:
        ReverieError: there is no score, or one is not finite.
    """
    from scipy.stats import trim_mean

    return float(trim_mean(_finite(scores), 0.25, axis=None))


def stratified_bootstrap(
    scores: np.ndarray,
    statistic: Callable[[np.ndarray], float] = interquartile_mean,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Percentile confidence interval of a statistic, drawing runs with replacement inside each task.

    The method of Agarwal et al. (2021), "Deep RL at the Edge of the Statistical Precipice".

    Args:
        scores: finite floats [runs, tasks], normalised so that tasks compare.
        statistic: function of one array [runs, tasks].
        resamples: number of bootstrap samples.
        confidence: probability mass of the interval, between 0 and 1.
        seed: seed of the drawing.

    Returns:
        The statistic of the scores, the lower and the upper end of the interval.

    Raises:
        ReverieError: scores are not [runs, tasks], empty or not finite, or confidence is out of range.
    """
    scores = _finite(scores)
    if scores.ndim != 2 or not 0 < confidence < 1:
        raise ReverieError(
            f"Expected scores [runs, tasks] and a confidence between 0 and 1, got {scores.shape} and {confidence}."
        )
    runs, tasks = scores.shape
    generator = np.random.default_rng(seed)
    columns = np.arange(tasks)
    samples = [statistic(scores[generator.integers(runs, size=(runs, tasks)), columns]) for _ in range(resamples)]
    low, high = np.quantile(samples, ((1 - confidence) / 2, (1 + confidence) / 2))
    return statistic(scores), float(low), float(high)


def _finite(scores: np.ndarray) -> np.ndarray:
    """The scores as floats, refused if empty or not finite."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.size == 0 or not np.isfinite(scores).all():
        raise ReverieError(
            f"Expected at least one score and only finite ones, got shape {scores.shape} with "
            f"{int((~np.isfinite(scores)).sum())} non-finite; leave out runs without a score."
        )
    return scores
