import json

import numpy as np
import pytest

from reverie.behaviors.evolution import Evolution
from reverie.errors import ConfigError


def quadratic(parameters):
    """Greatest, 0, at (1, 1, ...), steeper in later directions: [P, n] -> [P]."""
    slopes = np.linspace(1, 10, parameters.shape[1])
    return -(slopes * (parameters - 1) ** 2).sum(-1)


def advance(evolution, generations):
    """Runs some generations and returns all populations, [G, P, n]."""
    populations = []
    for _ in range(generations):
        populations.append(evolution.ask())
        evolution.tell(populations[-1], quadratic(populations[-1]))
    return np.array(populations)


def through_files(evolution, path):
    """State written as JSON and npz without pickle, and read again."""
    data, arrays = evolution.state()
    (path / "state.json").write_text(json.dumps(data))
    np.savez(path / "state.npz", **arrays)
    with np.load(path / "state.npz", allow_pickle=False) as file:
        return json.loads((path / "state.json").read_text()), dict(file)


def test_it_climbs_a_quadratic():
    evolution = Evolution(10, population=16, deviation=0.1, seed=0)
    advance(evolution, 200)
    np.testing.assert_allclose(evolution.mean, np.ones(10), atol=1e-5)
    assert evolution.best.value > -1e-8
    assert evolution.generation == 200
    assert evolution.deviation < 1e-3


def test_the_first_generation():
    # 64 candidates of 867 numbers around zero with deviation 0.1; the standard error of the deviation is 0.0003.
    evolution = Evolution(867)
    population = evolution.ask()
    assert population.shape == (64, 867)
    assert population.dtype == np.float64
    assert population.mean() == pytest.approx(0, abs=0.002)
    assert population.std() == pytest.approx(0.1, abs=0.002)
    assert not evolution.mean.any()
    assert evolution.best is None
    assert evolution.generation == 0


# Eigenvectors are computed anew every generation with 5 parameters, every third one with 100 in a population of 6; the
# other sizes have odd shapes. From 300 parameters on, the package would choose another step-size rule by itself.
@pytest.mark.parametrize(("count", "population"), [(1, 4), (5, 8), (40, 12), (100, 6), (320, 10)])
@pytest.mark.parametrize("generations", [0, 1, 7])
def test_a_restored_evolution_goes_on_bit_for_bit(tmp_path, count, population, generations):
    evolution = Evolution(count, population, seed=3)
    advance(evolution, generations)
    data, arrays = through_files(evolution, tmp_path)
    expected = advance(evolution, 5)

    other = Evolution(count, population, seed=3)
    advance(other, 2)
    other.restore(data, arrays)
    assert other.generation == generations
    assert np.array_equal(advance(other, 5), expected)
    assert np.array_equal(other.mean, evolution.mean)
    assert other.deviation == evolution.deviation
    assert other.best.value == evolution.best.value
    assert other.best.generation == evolution.best.generation
    assert np.array_equal(other.best.parameters, evolution.best.parameters)


def test_a_long_run_with_badly_scaled_directions_is_restored_bit_for_bit(tmp_path):
    # Slopes between 1 and 1e12 give variances between 1 and 1e-12, where the package rescales its coordinates.
    slopes = np.logspace(0, 12, 6)

    def run(evolution, generations):
        for _ in range(generations):
            population = evolution.ask()
            evolution.tell(population, -(slopes * (population - 1) ** 2).sum(-1))
        return population

    evolution = Evolution(6, 12, seed=1)
    run(evolution, 300)
    data, arrays = through_files(evolution, tmp_path)
    assert not (arrays["scale"] == 1).all()
    other = Evolution(6, 12, seed=1)
    other.restore(data, arrays)
    assert np.array_equal(run(other, 30), run(evolution, 30))


def test_a_state_between_ask_and_tell_asks_the_same_again():
    evolution = Evolution(5, 8)
    advance(evolution, 3)
    population = evolution.ask()
    other = Evolution(5, 8)
    other.restore(*evolution.state())
    assert np.array_equal(other.ask(), population)
    for each in (evolution, other):
        each.tell(population, quadratic(population))
    assert np.array_equal(other.ask(), evolution.ask())


def test_saved_state_is_not_shared():
    evolution = Evolution(5, 8)
    advance(evolution, 3)
    data, arrays = evolution.state()
    before = {name: array.copy() for name, array in arrays.items()}
    other = Evolution(5, 8)
    other.restore(data, arrays)
    advance(evolution, 2)
    advance(other, 2)
    for name, array in arrays.items():
        assert np.array_equal(array, before[name])


def test_asking_twice_gives_the_same_candidates():
    evolution = Evolution(5, 8)
    first = evolution.ask()
    kept = first.copy()
    first += 1
    assert np.array_equal(evolution.ask(), kept)


def test_the_seed_alone_decides():
    np.random.seed(0)  # noqa: NPY002 (the package's own default is the global generator)
    first = advance(Evolution(5, 8, seed=1), 3)
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert np.array_equal(advance(Evolution(5, 8, seed=1), 3), first)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert not np.array_equal(advance(Evolution(5, 8, seed=2), 3), first)


def test_generations_have_different_random_numbers():
    # Equal returns move nothing far, so equal noise would give nearly equal candidates.
    evolution = Evolution(5, 8)
    first = evolution.ask()
    evolution.tell(first, np.zeros(8))
    assert abs(np.corrcoef(first.ravel(), evolution.ask().ravel())[0, 1]) < 0.6


def test_the_best_candidate_stays():
    evolution = Evolution(3, 4)
    population = evolution.ask()
    evolution.tell(population, np.array([1.0, 5.0, 2.0, 3.0]))
    assert evolution.best.value == 5
    assert evolution.best.generation == 1
    assert np.array_equal(evolution.best.parameters, population[1])
    evolution.tell(evolution.ask(), np.array([1.0, 2.0, 3.0, 4.0]))
    assert np.array_equal(evolution.best.parameters, population[1])


def test_wrong_use_is_refused():
    evolution = Evolution(3, 4)
    with pytest.raises(ConfigError, match="call ask first"):
        evolution.tell(np.zeros((4, 3)), np.zeros(4))
    population = evolution.ask()
    with pytest.raises(ConfigError, match=r"returns of shape \[3\]; give an array of shape \[4\]"):
        evolution.tell(population, np.zeros(3))
    with pytest.raises(ConfigError, match=r"parameters of shape \[4, 2\]"):
        evolution.tell(population[:, :2], np.zeros(4))
    with pytest.raises(ConfigError, match=r"returns that are not finite, first at \[2\]"):
        evolution.tell(population, np.array([0, 1, np.nan, 2]))
    evolution.tell(population, quadratic(population))
    with pytest.raises(ConfigError, match="call ask first"):
        evolution.tell(population, quadratic(population))


@pytest.mark.parametrize("options", [{"count": 0}, {"population": 3}, {"seed": -1}, {"deviation": 0.0}])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Evolution(**({"count": 3} | options))


def test_a_state_that_does_not_fit_is_refused():
    data, arrays = Evolution(3, 4).state()
    with pytest.raises(ConfigError, match=r"saved mean of shape \[3\]; give an array of shape \[4\]"):
        Evolution(4, 4).restore(data, arrays)
    with pytest.raises(ConfigError, match="lacks covariance"):
        Evolution(3, 4).restore(data, {name: array for name, array in arrays.items() if name != "covariance"})
    arrays["mean"][1] = np.inf
    with pytest.raises(ConfigError, match="not finite"):
        Evolution(3, 4).restore(data, arrays)
