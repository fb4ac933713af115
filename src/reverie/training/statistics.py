"""Statistics over runs: the interval of a mean over seeds, and scores pooled over tasks."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from reverie.errors import ReverieError


def student_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Student's t interval of the mean over runs, at every point: mean ± t s / sqrt(runs).

    s is the standard deviation of the runs (with runs - 1 in the denominator), t the quantile of Student's t
    distribution with runs - 1 degrees of freedom. For normal values the interval holds the true mean with exactly this
    probability, however few the runs (Student, 1908, "The probable error of a mean"). It is wide for two: t is 12.7.

    Args:
        values: floats [runs, P], one row for each independent run, at least two.
        confidence: probability that the interval holds the true mean, between 0 and 1.

    Returns:
        The lower and the upper end of the interval, float [P] each, in the unit of the values.

    Raises:
        ReverieError: fewer than two runs, or confidence is out of range.
    """
    from scipy.stats import t

    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or len(values) < 2 or not 0 < confidence < 1:
        raise ReverieError(
            f"Expected values [runs, points] of at least 2 runs and a confidence between 0 and 1, got shape "
            f"{values.shape} and {confidence}."
        )
    runs = len(values)
    mean = values.mean(axis=0)
    half = t.ppf((1 + confidence) / 2, runs - 1) * values.std(axis=0, ddof=1) / math.sqrt(runs)
    return mean - half, mean + half


def interquartile_mean(scores: np.ndarray) -> float:
    """Mean of the middle half of all scores, pooled over runs and tasks.

    Args:
        scores: finite floats of any shape, usually [runs, tasks], normalized so that tasks compare.

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
    """Percentile confidence interval of a statistic, drawing runs with replacement within each task.

    The method of Agarwal et al. (2021), "Deep RL at the Edge of the Statistical Precipice".

    The confidence is nominal: with few runs the interval holds the true value less often than it says, since runs that
    are drawn from so few differ less than new ones would. Of 2000 simulated experiments with normal scores the 95%
    interval held the true value in this share (resamples 500, standard error at most 0.011):

    ====================  ======  ======  ======  =======
    statistic             2 runs  3 runs  5 runs  10 runs
    ====================  ======  ======  ======  =======
    mean, 1 task          0.51    0.72    0.85    0.89
    mean, 5 tasks         0.77    0.85    0.91    0.92
    IQM, 1 task           0.50    0.73    0.89    0.92
    ====================  ======  ======  ======  =======

    For the mean of one task use `student_interval`.

    Args:
        scores: finite floats [runs, tasks], normalized so that tasks compare.
        statistic: function of one array [runs, tasks].
        resamples: number of bootstrap samples.
        confidence: nominal probability mass of the interval, between 0 and 1.
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
