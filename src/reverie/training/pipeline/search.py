"""The search for C: CMA-ES, what its generations and evaluations brought, and the file that keeps all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reverie.agents.world_models import WorldModelsConfig
from reverie.behaviors.evolution import Evolution
from reverie.safe_files import COUNT, NUMBER, check_shape, damage_of, parse_json
from reverie.tensor_files import read_tensors, save_tensors

SEARCH_SHAPE = {
    "evolution": {"generation": COUNT},
    "scores": [{"mean": NUMBER, "generation": COUNT}],
    "history": [[NUMBER]],
    "search?": COUNT,
    "played?": COUNT,
}
"""What the file of a search must hold besides its arrays; see `check_shape`."""


class ControllerSearch:
    """Continues from its file if it is there.

    Args:
        path: the file.
        parameters: how many C has.
        config: of the agent.
        seed: of CMA-ES.

    Attributes:
        evolution: CMA-ES of this iteration.
        iteration: of the pipeline; each begins a search of its own.
        played: steps of candidates in the real environment.
        scores: evaluations, as in `scores.json`.
        history: generation, mean and maximum return of its candidates, a list for each generation.
        best_mean: the distribution's mean [n] that had the best evaluation of this iteration, None before the first.
    """

    def __init__(self, path: Path, parameters: int, config: WorldModelsConfig, seed: int) -> None:
        self.path, self._parameters, self._config, self._seed = path, parameters, config, seed
        self.evolution = self._new()
        self.iteration, self.played = 0, 0
        self.scores: list[dict[str, Any]] = []
        self.history: list[list[float]] = []
        self.best_mean: NDArray[np.float64] | None = None
        if path.exists():
            data, arrays = read_search(path)
            self.scores, self.history = data["scores"], data["history"]
            self.best_mean = arrays.pop("best_mean", None)
            self.iteration, self.played = data.get("search", 0), data.get("played", 0)
            with damage_of(path):
                self.evolution.restore(data["evolution"], arrays)

    def _new(self) -> Evolution:
        return Evolution(self._parameters, self._config.population, self._config.deviation, seed=self._seed)

    @property
    def generation(self) -> int:
        """Generations over all iterations."""
        return self.iteration * self._config.generations + self.evolution.generation

    @property
    def tried(self) -> float:
        """Mean return of the last generation's candidates, where they are tried."""
        return self.history[-1][1] if self.history else 0.0

    def begin(self, iteration: int) -> None:
        """Starts over if this is another iteration: its V and M, and so its dream, are different."""
        if iteration > self.iteration:
            self.iteration, self.evolution, self.best_mean = iteration, self._new(), None

    def tell(self, returns: NDArray[np.float64], fitness: NDArray[np.float64]) -> None:
        """Moves on by a generation whose candidates got these mean returns [P], and are ranked by their fitness [P]."""
        self.evolution.tell(self.evolution.ask(), fitness)
        self.history.append([self.generation, round(float(returns.mean()), 3), round(float(returns.max()), 3)])

    def add(self, score: dict[str, Any]) -> None:
        """Keeps an evaluation of the distribution's mean, which has `mean` among its fields."""
        before = self.iteration * self._config.generations
        if all(score["mean"] > other["mean"] for other in self.scores if other["generation"] > before):
            self.best_mean = self.evolution.mean
        self.scores.append(score)

    def save(self) -> None:
        """Writes the file, atomically."""
        data, arrays = self.evolution.state()
        tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
        kept = {"scores": self.scores, "history": self.history, "search": self.iteration, "played": self.played}
        text = json.dumps({"evolution": data, **kept}).encode()
        if self.best_mean is not None:
            tensors["best_mean"] = torch.from_numpy(self.best_mean)
        tensors["json"] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        save_tensors(tensors, self.path)


def read_search(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `ControllerSearch.save` wrote: plain data and arrays.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    tensors = read_tensors(path)
    with damage_of(path):
        data = parse_json(bytes(tensors.pop("json").numpy()), str(path))
    check_shape(data, SEARCH_SHAPE, str(path))
    return data, {name: value.numpy() for name, value in tensors.items()}
