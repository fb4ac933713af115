"""CMA-ES on controllers (World Models, Ha and Schmidhuber, 2018): the package `cma`, made resumable without pickle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from reverie.errors import ConfigError

_NUMBERS = {"generation", "step_size", "updates", "decomposed"}
_VECTORS = ("mean", "path", "step_size_path", "scale", "lengths")
_MATRICES = ("covariance", "axes")


@dataclass(frozen=True)
class Candidate:
    """A candidate that was evaluated.

    Attributes:
        parameters: float64 [n].
        value: its return. Where returns are noisy, the highest one seen was partly luck.
        generation: in which it was told, from 1.
    """

    parameters: np.ndarray
    value: float
    generation: int


class Evolution:
    """Covariance matrix adaptation over n parameters, which maximizes returns.

    The search starts at zero with the same deviation in all directions and adapts a full covariance matrix. The
    options are those of World Models, the package's defaults of 2018: in particular the step size follows the length
    of the path of the mean (CSA), for which today's package has another rule from 300 parameters on.

    The random numbers of a generation depend on the seed and the generation alone, so no random state needs saving.
    A run is repeatable, and a restored one continues bit for bit, on one machine with the same versions of numpy and
    cma and the same number of threads, because the eigenvectors come from a linear algebra library.

    `state` is the distribution itself: two matrices of n^2 float64 (16 MB at n = 1,000) and some vectors. Restoring
    takes milliseconds, where replaying the returns would repeat all generations and would silently pair returns with
    other parameters on a machine whose eigenvectors differ in the last bit.

    Args:
        count: n.
        population: candidates a generation; 64 in World Models.
        deviation: initial standard deviation of every parameter; 0.1 in World Models.
        seed: of all random numbers, not negative.

    Raises:
        ConfigError: a number is out of its range.
    """

    def __init__(self, count: int, population: int = 64, deviation: float = 0.1, seed: int = 0) -> None:
        for name, value, least in (("count", count, 1), ("population", population, 4), ("seed", seed, 0)):
            if value < least:
                raise ConfigError(f"evolution got {name} = {value}; choose a number that is at least {least}")
        if not 0 < deviation < np.inf:
            raise ConfigError(f"evolution got deviation = {deviation}; choose a positive finite number")
        self.count, self.population, self.seed = count, population, seed
        self.best: Candidate | None = None
        self._initial_deviation = deviation
        self._strategy = self._new_strategy()
        self._asked: np.ndarray | None = None

    @property
    def generation(self) -> int:
        """Generations told so far."""
        return int(self._strategy.countiter)

    @property
    def mean(self) -> np.ndarray:
        """Mean of the distribution, float64 [n]: the agent that World Models evaluates."""
        return np.array(self._strategy.mean)

    @property
    def deviation(self) -> float:
        """The step size: common factor of the standard deviations of all parameters."""
        return float(self._strategy.sigma)

    def ask(self) -> np.ndarray:
        """The candidates of this generation, float64 [P, n]; the same ones until `tell`."""
        if self._asked is None:
            self._asked = np.stack(self._strategy.ask())
        return self._asked.copy()

    def tell(self, parameters: np.ndarray, returns: np.ndarray) -> None:
        """Moves the distribution toward the candidates with the highest returns, which ends the generation.

        Args:
            parameters: [P, n], as they came from `ask`. (The package shortens steps that it did not propose.)
            returns: [P].

        Raises:
            ConfigError: a shape differs, a number is not finite, or `ask` was not called before.
        """
        if self._asked is None:
            raise ConfigError(f"tell got returns of generation {self.generation + 1} before ask; call ask first")
        parameters = _checked("parameters", parameters, (self.population, self.count))
        returns = _checked("returns", returns, (self.population,))
        self._strategy.tell(list(parameters), [-float(value) for value in returns])
        self._asked = None
        winner = int(returns.argmax())
        if self.best is None or returns[winner] > self.best.value:
            self.best = Candidate(parameters[winner].copy(), float(returns[winner]), self.generation)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Everything that `restore` needs: plain numbers for JSON, and arrays. After `ask`, it asks the same again."""
        strategy, model = self._strategy, self._strategy.sm
        data: dict[str, Any] = {
            "generation": self.generation,
            "step_size": float(strategy.sigma),
            "updates": int(model.count_tell),
            "decomposed": int(model.last_update),
        }
        arrays = {
            "mean": strategy.mean,
            "path": strategy.pc,
            "step_size_path": strategy.adapt_sigma.ps,
            "scale": np.broadcast_to(strategy.sigma_vec.scaling, self.count),
            "covariance": model.C,
            "axes": model.B,
            "lengths": model.D,
        }
        if self.best is not None:
            data |= {"best_value": self.best.value, "best_generation": self.best.generation}
            arrays["best"] = self.best.parameters
        return data, {name: np.array(value, dtype=np.float64, order="C") for name, value in arrays.items()}

    def restore(self, data: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Inverse of `state`, on an evolution with the same `count`, `population` and `seed`.

        Raises:
            ConfigError: an array is missing, or its shape or values do not fit.
        """
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(_VECTORS, (self.count,))
        shapes |= dict.fromkeys(_MATRICES, (self.count, self.count))
        if "best_value" in data:
            shapes["best"] = (self.count,)
        missing = sorted((_NUMBERS - data.keys()) | (shapes.keys() - arrays.keys()))
        if missing:
            raise ConfigError(f"the saved evolution lacks {', '.join(missing)}; give back all that state() returned")
        own = {name: _checked(f"the saved {name}", arrays[name], shape) for name, shape in shapes.items()}
        self._strategy, self._asked = self._restored_strategy(data, own), None
        self.best = None
        if "best_value" in data:
            self.best = Candidate(own["best"], float(data["best_value"]), int(data["best_generation"]))

    def _new_strategy(self) -> Any:
        import cma  # takes more than a second
        from cma.sigma_adaptation import CMAAdaptSigmaCSA

        options = {
            "popsize": self.population,
            "AdaptSigma": CMAAdaptSigmaCSA,
            # Mirrored candidates (default below 6) and a change of coordinates (default at a condition of 1e12) would
            # be more state to save.
            "CMA_mirrors": 0,
            "conditioncov_alleviate": [1e8, 0],
            "randn": self._normal,
            "seed": np.nan,
            "verbose": -9,
        }
        return cma.CMAEvolutionStrategy(np.zeros(self.count), self._initial_deviation, options)

    def _normal(self, *shape: int) -> np.ndarray:
        """The standard normal numbers of this generation, which the package draws in one call."""
        return np.random.default_rng((self.seed, self.generation)).standard_normal(shape)

    def _restored_strategy(self, data: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
        """A strategy of the package with the saved distribution in it."""
        from cma.utilities.utils import ElapsedWCTime

        strategy = self._new_strategy()
        strategy.countiter, strategy.sigma = int(data["generation"]), float(data["step_size"])
        strategy.mean, strategy.pc, strategy.adapt_sigma.ps = arrays["mean"], arrays["path"], arrays["step_size_path"]
        # Both are set by the first generation in a run without interruption.
        strategy.mean_old, strategy.timer = arrays["mean"].copy(), ElapsedWCTime()
        strategy.sigma_vec *= arrays["scale"]
        model = strategy.sm
        model.count_tell, model.last_update = int(data["updates"]), int(data["decomposed"])
        # The package keeps the axes column by column; in another order, products would differ in the last bit.
        model.C, model.B, model.D = arrays["covariance"], np.asfortranarray(arrays["axes"]), arrays["lengths"]
        strategy._updateBDfromSM()
        return strategy


def _checked(name: str, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A float64 copy of an array, which must have a shape and be finite."""
    array = np.array(values, dtype=np.float64)
    if array.shape != shape:
        raise ConfigError(f"evolution got {name} of shape {list(array.shape)}; give an array of shape {list(shape)}")
    if not np.isfinite(array).all():
        wrong = np.argwhere(~np.isfinite(array))[0].tolist()
        raise ConfigError(f"evolution got {name} that are not finite, first at {wrong}; give finite numbers")
    return array
