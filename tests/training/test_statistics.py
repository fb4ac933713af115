import numpy as np
import pytest

from reverie.errors import ReverieError
from reverie.training.statistics import interquartile_mean, stratified_bootstrap, student_interval


def test_student_interval_by_hand():
    # Values 0 and 1: mean 0.5, s = sqrt(0.5), s / sqrt(2) = 0.5; t of 1 degree of freedom is 12.706.
    # Values 1, 2, 3: mean 2, s = 1, 1 / sqrt(3) = 0.57735; t of 2 degrees of freedom is 4.3027.
    np.testing.assert_allclose(student_interval(np.array([[0.0], [1.0]])), [[0.5 - 6.353], [0.5 + 6.353]], atol=1e-3)
    values = np.array([[1.0, 2.0], [2.0, 2.0], [3.0, 2.0]])
    half = 4.3027 * 0.57735
    np.testing.assert_allclose(student_interval(values), [[2 - half, 2], [2 + half, 2]], atol=1e-4)
    # At 50% t of 1 degree of freedom is tan(pi / 4) = 1.
    np.testing.assert_allclose(student_interval(np.array([[0.0], [1.0]]), confidence=0.5), [[0], [1]], atol=1e-12)


@pytest.mark.parametrize("runs", [2, 3, 5, 10])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_student_interval_holds_the_mean_as_often_as_it_says(runs, confidence):
    experiments = 40_000
    low, high = student_interval(np.random.default_rng(runs).normal(7, 3, (runs, experiments)), confidence)
    # standard error of a share of 40,000: 0.0011 at 0.95, 0.002 at 0.8
    assert ((low <= 7) & (high >= 7)).mean() == pytest.approx(confidence, abs=0.007)


@pytest.mark.parametrize("values, confidence", [(np.zeros((1, 3)), 0.95), (np.zeros(3), 0.95), (np.zeros((2, 1)), 1)])
def test_student_interval_of_what_has_none(values, confidence):
    with pytest.raises(ReverieError, match="at least 2 runs and a confidence between 0 and 1, got shape"):
        student_interval(values, confidence)


def test_the_bootstrap_of_two_runs_is_as_narrow_as_its_docstring_says():
    experiments = np.random.default_rng(0).normal(size=(400, 2, 1))
    intervals = [stratified_bootstrap(scores, np.mean, resamples=60)[1:] for scores in experiments]
    assert np.mean([low <= 0 <= high for low, high in intervals]) == pytest.approx(0.5, abs=0.08)


def test_interquartile_mean_by_hand():
    # 8 values: 2 are cut from each end, (3 + 4 + 5 + 6) / 4 = 4.5
    assert interquartile_mean(np.array([[8.0, 1, 7, 2], [3, 6, 4, 5]])) == 4.5
    # 6 values: floor(1.5) = 1 is cut from each end, so outliers do not count: (1 + 2 + 3 + 4) / 4 = 2.5
    assert interquartile_mean(np.array([-1e9, 1, 2, 3, 4, 1e9])) == 2.5
    with pytest.raises(ReverieError, match="non-finite"):
        interquartile_mean(np.array([1.0, np.nan]))
    with pytest.raises(ReverieError, match="at least one"):
        interquartile_mean(np.array([]))


def test_stratified_bootstrap_keeps_tasks_apart():
    # Both runs agree on every task, so a draw inside the tasks cannot change anything: the mean is always (0 + 10) / 2.
    assert stratified_bootstrap(np.array([[0.0, 10], [0, 10]]), statistic=np.mean) == (5, 5, 5)


def test_stratified_bootstrap_of_two_runs_by_hand():
    # Scores 0 and 1, one task: the mean of a draw is 0, 1/2 or 1 with probability 1/4, 1/2, 1/4.
    point, low, high = stratified_bootstrap(np.array([[0.0], [1.0]]), statistic=np.mean, confidence=0.95)
    assert (point, low, high) == (0.5, 0, 1)
    # The middle 40% of that distribution is the value 1/2 alone.
    assert stratified_bootstrap(np.array([[0.0], [1.0]]), statistic=np.mean, confidence=0.4) == (0.5, 0.5, 0.5)


def test_stratified_bootstrap_agrees_with_the_normal_interval():
    scores = np.random.default_rng(1).normal(size=(50, 4))
    point, low, high = stratified_bootstrap(scores, statistic=np.mean, resamples=1000)
    # the standard error of a mean of 4 tasks x 50 runs of unit variance is 1 / sqrt(200) = 0.0707
    assert high - low == pytest.approx(2 * 1.96 * 0.0707, rel=0.15)
    assert low < point < high
    assert stratified_bootstrap(scores, resamples=50) == stratified_bootstrap(scores, resamples=50)
    with pytest.raises(ReverieError, match="runs, tasks"):
        stratified_bootstrap(scores[:, 0])
