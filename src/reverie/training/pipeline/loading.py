"""Continues from what the stages of a run have left: the agent, and the log of its metrics."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reverie.agents.registry import make_config
from reverie.agents.world_models import WorldModelsAgent, WorldModelsConfig
from reverie.errors import CheckpointError
from reverie.safe_files import NUMBER, RECORD, check_shape, damage_of
from reverie.spaces import Interface
from reverie.tensor_files import read_header, read_tensors
from reverie.training.files import read_json
from reverie.training.memory import limited_parameters
from reverie.training.metrics import MetricWriter, position_after
from reverie.training.pipeline.frames import PROGRESS, PROGRESS_SHAPE
from reverie.training.pipeline.learning import Training, open_latents
from reverie.training.pipeline.search import ControllerSearch, read_search
from reverie.training.run_folder import CONFIG_FILE

VISION_FILE, MEMORY_FILE, CONTROLLER_FILE = "vision.safetensors", "memory.safetensors", "controller.safetensors"
SECONDS_FILE = "seconds.json"
"""Wall time of every stage."""
LATENTS = re.compile(r"latents(_[1-9]\d*)?\.npy")


def load_run(
    path: Path, description: dict[str, Any], device: torch.device, checkpoint: str
) -> tuple[WorldModelsAgent, dict[str, Any]]:
    """The agent of a run folder and the folder's description.

    Args:
        path: run folder.
        description: content of its `config.json`.
        device: where to put the agent.
        checkpoint: `best`, the controller with the highest real evaluation (the newest if there is none), or `latest`.

    Raises:
        CheckpointError: the run has no controller yet, or none for the V and M of its present iteration, or a file is
            damaged.
    """
    if checkpoint not in ("best", "latest"):
        raise CheckpointError(f"{path} has no checkpoint {checkpoint!r}; ask for best or latest")
    latents = newest_latents(path)
    for name in (VISION_FILE, MEMORY_FILE, CONTROLLER_FILE):
        if not (path / name).exists():
            raise CheckpointError(f"{path} has no {name} yet: train first")
    if latents is None:
        raise CheckpointError(f"{path} has no latents yet, in which dreams begin: let it encode its frames first")
    config = make_config(description["agent"], description["agent_config"])
    headers = [read_header(path / name) for name in (VISION_FILE, MEMORY_FILE)]
    size, count = sum(header.bytes for header in headers), sum(len(header.shapes) for header in headers)
    larger = CheckpointError(f"{path / CONFIG_FILE} describes larger networks than {path} holds")
    with limited_parameters(size, count, larger):
        agent: WorldModelsAgent = config.build(Interface.from_json(description["interface"]))
    agent = agent.to(device)
    search, arrays = read_search(path / CONTROLLER_FILE)
    if search["evolution"]["generation"] == 0:
        raise CheckpointError(f"{path} has not finished a generation of its controller's evolution: let it continue")
    progress = read_json(path / "frames" / PROGRESS, PROGRESS_SHAPE)
    lengths, iteration = progress["lengths"], search.get("search", 0)
    for name, module, most in (
        (VISION_FILE, agent.world_model.vision, vision_updates(config, lengths, iteration)),
        (MEMORY_FILE, agent.world_model.memory, memory_updates(config, iteration)),
    ):
        if Training(path / name, module, 1.0, total=1).updates > most:
            raise CheckpointError(
                f"{path} is learning in its iteration {iteration + 2}, and its controller is still that of the one "
                f"before; let it continue until it has evolved a new one"
            )
    means = [arrays["mean"], arrays.get("best_mean", arrays["mean"])]
    agent.parameters_of_controller.copy_(torch.from_numpy(means[checkpoint == "best"]))
    encoded = open_latents(latents, config.latent)
    agent.first_latents.copy_(first_latents(encoded, lengths, agent.first_latents.shape[1]))
    description["longest_episode"] = max(lengths) - 1
    return agent.eval(), description


def latents_file(iteration: int) -> str:
    """Name of the file with the latents of all frames that an iteration learns from; the first one is 0."""
    return f"latents_{iteration}.npy" if iteration else "latents.npy"


def newest_latents(path: Path) -> Path | None:
    """The file of the latest iteration that has encoded its frames, if there is one."""
    files = (file for file in path.iterdir() if LATENTS.fullmatch(file.name))
    return max(files, key=lambda file: (len(file.name), file.name), default=None)


def rows_of(config: WorldModelsConfig, lengths: Sequence[int], iteration: int) -> int:
    """Rows of the episodes that were collected up to and including an iteration; `lengths` are those of all."""
    return sum(lengths[: config.episodes(iteration)])


def vision_updates(config: WorldModelsConfig, lengths: Sequence[int], iteration: int) -> int:
    """Updates of V at the end of an iteration: some passes over all frames in each where V learns."""
    learned = min(iteration + 1, 1) if config.keep_vision else iteration + 1
    passes = [max(1, rows_of(config, lengths, i) // config.vision_batch) for i in range(learned)]
    return math.ceil(config.vision_epochs * sum(passes))


def memory_updates(config: WorldModelsConfig, iteration: int) -> int:
    """Updates of M at the end of an iteration."""
    return 0 if config.random_memory else (iteration + 1) * config.memory_updates


def first_latents(encoded: NDArray[np.float16], lengths: Sequence[int], count: int) -> torch.Tensor:
    """Mean and log-variance of the first frames of `count` episodes, float32 [2, N, Z]."""
    starts = np.concatenate([[0], np.cumsum(lengths)])[:count]
    return torch.from_numpy(encoded[:, starts].astype(np.float32))


def open_log(path: Path, search: ControllerSearch, hyperparameters: Mapping[str, bool | str | float]) -> MetricWriter:
    """Continues the metrics of a run from where the files of its stages stand; later ones are cut off.

    Args:
        path: run folder.
        search: of C, as its file has it.
        hyperparameters: see `MetricWriter`.
    """
    files = [path / name for name in (VISION_FILE, MEMORY_FILE)]
    with damage_of(path):
        updates = sum(int(read_tensors(file)["updates"]) for file in files if file.exists())
    evaluated = {score["generation"] for score in search.scores}

    def known(record: dict[str, Any]) -> bool:
        generation = record.get("generation", 0)
        scored = "evaluation/return" not in record or generation in evaluated
        return bool(record["updates"] <= updates and generation <= search.generation and scored)

    position = position_after(path, known, log_step)
    position["seconds"] = max(position["seconds"], sum(stage_seconds(path).values()))
    return MetricWriter(path, position, hyperparameters)


def stage_seconds(path: Path) -> dict[str, float]:
    """Wall time of every stage of a run so far.

    Raises:
        ReverieError: the file does not hold numbers by name.
    """
    file = path / SECONDS_FILE
    seconds: dict[str, float] = read_json(file, RECORD) if file.exists() else {}
    check_shape(seconds, dict.fromkeys(seconds, NUMBER), str(file))
    return seconds


def log_step(record: Mapping[str, Any]) -> int:
    """Where TensorBoard shows a line: updates and generations together, since environment steps often stand still."""
    return int(record["updates"] + record.get("generation", 0))
