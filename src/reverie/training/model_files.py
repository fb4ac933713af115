"""A trained agent as a folder of two files: `config.json` and `model.safetensors`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

import reverie
from reverie.agents.registry import PIPELINES, make_config
from reverie.errors import CheckpointError, ReverieError
from reverie.spaces import Interface
from reverie.tensor_files import read_tensors, save_tensors
from reverie.training.checkpoint import FOLDER, STATE_FILE, newest_state
from reverie.training.files import read_json, write_json
from reverie.training.metrics import read_scores
from reverie.training.run_folder import CONFIG_FILE

MODEL_FILE = "model.safetensors"


def save_model(folder: Path, agent: nn.Module, description: Mapping[str, Any]) -> None:
    """Writes an agent so that `load_model` builds it again; an older one in the folder is replaced when complete.

    Args:
        folder: made if it is not there.
        agent: its weights are saved.
        description: `agent`, `agent_config`, `environment`, `interface` and `seed`, and `longest_episode`, the steps of
            the longest one of training, if that is known.

    Raises:
        CheckpointError: the folder holds something else, such as a run.
    """
    if (folder / CONFIG_FILE).exists() and not (folder / MODEL_FILE).exists():
        raise CheckpointError(
            f"{folder} holds a {CONFIG_FILE} that is not of a saved agent, perhaps a run; save to another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{MODEL_FILE}.partial"
    save_tensors(agent.state_dict(), partial)
    os.replace(partial, folder / MODEL_FILE)
    write_json(folder / CONFIG_FILE, {"version": reverie.__version__, **description})


def find_weights(path: Path, checkpoint: str = "best") -> Path:
    """The weights of a saved agent or of a checkpoint in a run folder.

    Args:
        path: what `save` wrote, or a run folder.
        checkpoint: in a run folder `best` (highest evaluation; the newest if none is there), `latest` or a name.

    Raises:
        CheckpointError: nothing to load is there.
    """
    if not (path / CONFIG_FILE).is_file():
        what = "has no config.json" if path.is_dir() else "does not exist"
        raise CheckpointError(f"{path} {what}; give a run folder or a folder that an agent was saved to")
    if (path / MODEL_FILE).is_file():
        return path / MODEL_FILE
    names = _checkpoint_names(path)
    if checkpoint == "best" and (path / FOLDER / "best").is_dir():
        return path / FOLDER / "best" / MODEL_FILE
    if checkpoint in ("best", "latest") and names:
        checkpoint = names[-1]
    if checkpoint not in names:
        there = f"it has {', '.join(names)}" if names else "it has none yet: train first"
        raise CheckpointError(f"{path} has no checkpoint {checkpoint!r}; {there}")
    return path / FOLDER / checkpoint / "agent.safetensors"


def trained_steps(path: Path, checkpoint: str = "best") -> int | None:
    """How many environment steps the weights that `find_weights` finds have learned from; None where no file tells.

    Args:
        path: what `save` wrote, or a run folder.
        checkpoint: as for `find_weights`.
    """
    if (path / MODEL_FILE).is_file() or not (path / FOLDER).is_dir():
        return None
    name = find_weights(path, checkpoint).parent.name
    if name.isdigit():
        return int(name)
    scores = read_scores(path)
    best = max((score["mean"] for score in scores), default=None)
    return next((int(score["env_steps"]) for score in reversed(scores) if score["mean"] == best), None)


def _checkpoint_names(path: Path) -> list[str]:
    return sorted(entry.name for entry in (path / FOLDER).glob("*") if entry.name.isdigit())


def load_model(path: Path, device: torch.device, checkpoint: str = "best") -> tuple[Any, dict[str, Any]]:
    """Builds a saved agent and reads its weights; runs no code but the library's own.

    Args:
        path: a saved agent or a run folder.
        device: where to put it.
        checkpoint: see `find_weights`.

    Returns:
        The agent, and the description it was saved with, or of its run and what that has seen so far; `updates` is how
        many made the weights, or None.

    Raises:
        CheckpointError: files are missing, damaged, or do not fit each other.
    """
    config_file = path / CONFIG_FILE
    staged = config_file.is_file() and _agent_of(config_file) in PIPELINES
    if staged and not (path / MODEL_FILE).exists():
        from reverie.training.pipeline.loading import load_run

        return load_run(path, device, checkpoint)
    weights = find_weights(path, checkpoint)
    description = read_json(config_file)
    try:
        config = make_config(description["agent"], description["agent_config"])
        interface = Interface.from_json(description["interface"])
        missing = {"environment", "seed"} - description.keys()
        if missing:
            raise KeyError(*missing)
    except (KeyError, TypeError, AttributeError, ReverieError) as error:
        raise CheckpointError(f"{config_file} does not describe an agent of this version ({error})") from error
    agent = config.build(interface).to(device)
    try:
        agent.load(weights)
    except CheckpointError as error:
        raise CheckpointError(f"{str(error).rstrip('.')}; {_alternative(path, weights)}") from error
    if weights.parent != path:
        state = newest_state(path)
        description["longest_episode"] = state.get("collector", {}).get("longest")
        description["vectorization"] = state.get("measured_vectorization")
    return agent, {**description, "updates": _updates(weights.parent)}


def _updates(folder: Path) -> int | None:
    """How many updates made the weights in a folder, if it says so: a checkpoint, or what `save_model` wrote."""
    try:
        if (folder / STATE_FILE).is_file():
            return read_json(folder / STATE_FILE)["updater"]["updates"]
        return read_json(folder / CONFIG_FILE).get("updates")
    except (ReverieError, KeyError, TypeError, AttributeError):
        return None


def _agent_of(config_file: Path) -> str | None:
    """The name of the agent that a configuration file describes, if it does."""
    description = read_json(config_file)
    return description.get("agent") if isinstance(description, dict) else None


def _alternative(path: Path, damaged: Path) -> str:
    """What to load instead of damaged weights."""
    for name in ["best", *reversed(_checkpoint_names(path))]:
        try:
            weights = find_weights(path, name)
            if weights != damaged:
                read_tensors(weights)
                return f"checkpoint {name!r} is whole: ask for it with --checkpoint {name}"
        except CheckpointError:
            continue
    return "restore it from a copy"
