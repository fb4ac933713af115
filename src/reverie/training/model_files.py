"""A trained agent as a folder of two files: `config.json` and `model.safetensors`.

The two are written one after the other, the weights first, and a kill may fall between. So the weights carry a copy of
their configuration, and `config.json` says which weights it belongs to: where those are not the ones there, the copy
counts. At any moment the folder holds the old agent or the new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

import reverie
from reverie.agents.registry import PIPELINES, make_config
from reverie.errors import CheckpointError, ReverieError
from reverie.safe_files import (
    COUNT,
    FLAG,
    POSITIVE,
    RECORD,
    TEXT,
    check_shape,
    damage_of,
    one_of,
    optional,
    parse_json,
    refuse_links,
)
from reverie.spaces import Interface
from reverie.tensor_files import CHECKSUM, read_header, read_tensors, save_tensors
from reverie.training.checkpoint import FOLDER, NAME, STATE_FILE, newest_state
from reverie.training.files import as_json, read_json, write_json
from reverie.training.memory import limited_parameters
from reverie.training.metrics import read_scores
from reverie.training.run_folder import CONFIG_FILE
from reverie.training.settings import TrainSettings

MODEL_FILE = "model.safetensors"
COPY = "config"
"""Name under which the weights carry their configuration."""
TRIES = 3
"""How often weights are looked for while a run that is still training deletes old checkpoints."""

_OBSERVATION = {
    "name": TEXT,
    "kind": one_of("image", "vector", "discrete"),
    "shape": [POSITIVE],
    "classes": [POSITIVE],
    "frames?": POSITIVE,
}
_ACTION = {"name": TEXT, "kind": one_of("continuous", "discrete"), "size": POSITIVE, "classes": [POSITIVE]}
_ENVIRONMENT = {
    "kind": TEXT,
    "environment": TEXT,
    "rebuildable": FLAG,
    "pixels": FLAG,
    "action_repeat": POSITIVE,
    "time_limit": optional(POSITIVE),
    "kwargs": RECORD,
    "plain_kwargs": FLAG,
    "parts?": RECORD,
    "code?": RECORD,
}
DESCRIPTION = {
    "agent": TEXT,
    "agent_config": RECORD,
    "environment": _ENVIRONMENT,
    "interface": {"observations": [_OBSERVATION], "actions": [_ACTION]},
    "seed": COUNT,
    "updates?": optional(COUNT),
    "longest_episode?": optional(COUNT),
    "settings?": RECORD,
    "preset?": optional(TEXT),
}
"""What `config.json` of a run or a saved agent must hold; see `check_shape`."""


def save_model(folder: Path, agent: nn.Module, description: Mapping[str, Any]) -> None:
    """Writes an agent so that `load_model` builds it again; an older one in the folder is replaced when complete.

    Args:
        folder: made if it is not there.
        agent: its weights are saved.
        description: `agent`, `agent_config`, `environment`, `interface` and `seed`, and `longest_episode`, the steps of
            the longest one of training, if that is known.

    Raises:
        CheckpointError: the folder holds something else, such as a run.
        OSError: the folder cannot be written; an older agent in it is untouched.
    """
    if (folder / CONFIG_FILE).exists() and not (folder / MODEL_FILE).exists():
        raise CheckpointError(
            f"{folder} holds a {CONFIG_FILE} that is not of a saved agent, perhaps a run; save to another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    described = {"version": reverie.__version__, **description}
    save_tensors(agent.state_dict(), folder / MODEL_FILE, {COPY: as_json(described)})
    weights = read_header(folder / MODEL_FILE).metadata[CHECKSUM]
    write_json(folder / CONFIG_FILE, {**described, "weights": weights})


def read_description(path: Path) -> dict[str, Any]:
    """What describes the agent of a run folder or of a saved agent, checked.

    Raises:
        ReverieError: it is missing, damaged, or has values of the wrong kind.
    """
    description = read_json(path / CONFIG_FILE)
    weights = path / MODEL_FILE
    if isinstance(description, dict) and "weights" in description and weights.is_file():
        metadata = read_header(weights).metadata
        if metadata[CHECKSUM] != description["weights"] and COPY in metadata:
            description = parse_json(metadata[COPY].encode(), f"the header of {weights}")
    check_shape(description, DESCRIPTION, str(path / CONFIG_FILE))
    size = description["environment"].get("image_size")
    check_shape([] if size is None else size, [POSITIVE], str(path / CONFIG_FILE), key="environment.image_size")
    return dict(description)


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
    best = max((score["mean"] for score in scores if "mean" in score), default=None)
    return next((int(score["env_steps"]) for score in reversed(scores) if score.get("mean") == best), None)


def _checkpoint_names(path: Path) -> list[str]:
    return sorted(entry.name for entry in (path / FOLDER).glob("*") if NAME.fullmatch(entry.name))


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
    refuse_links(path)
    config_file = path / CONFIG_FILE
    staged = config_file.is_file() and _agent_of(config_file) in PIPELINES
    if staged and not (path / MODEL_FILE).exists():
        from reverie.training.pipeline.loading import load_run

        with damage_of(path):
            return load_run(path, read_description(path), device, checkpoint=checkpoint)
    for attempt in range(TRIES):
        weights = find_weights(path, checkpoint)
        try:
            return _read(path, weights, device)
        except CheckpointError:
            if weights.exists() or attempt == TRIES - 1:
                raise
    raise AssertionError("every attempt returns or raises")


def _read(path: Path, weights: Path, device: torch.device) -> tuple[Any, dict[str, Any]]:
    """The agent with these weights, and its description; sizes are compared before memory is taken."""
    config_file = path / CONFIG_FILE
    description = read_description(path)
    try:
        config = make_config(description["agent"], description["agent_config"])
        interface = Interface.from_json(description["interface"])
        _check_settings(description.get("settings", {}))
    except (KeyError, TypeError, AttributeError, ReverieError) as error:
        raise CheckpointError(f"{config_file} does not describe an agent of this version ({error})") from error
    try:
        header = read_header(weights)
        larger = CheckpointError(f"{config_file} describes a larger agent than {weights} holds")
        # A parameter that two modules share is counted twice.
        with damage_of(config_file), limited_parameters(2 * header.bytes, 2 * len(header.shapes), larger):
            agent = config.build(interface)
        agent = agent.to(device)
        agent.load(weights)
    except CheckpointError as error:
        raise CheckpointError(f"{str(error).rstrip('.')}; {_alternative(path, weights)}") from error
    if weights.parent != path:
        state = newest_state(path)
        description["longest_episode"] = state.get("collector", {}).get("longest")
        description["vectorization"] = state.get("measured_vectorization")
    return agent, {**description, "updates": _updates(weights.parent)}


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Raises an error of the library or of Python if these are not settings of a run."""
    known = {field.name for field in fields(TrainSettings)}
    TrainSettings(**{name: value for name, value in settings.items() if name in known})


def _updates(folder: Path) -> int | None:
    """How many updates made the weights in a folder, if it says so: a checkpoint, or what `save_model` wrote."""
    try:
        if (folder / STATE_FILE).is_file():
            return read_json(folder / STATE_FILE)["updater"]["updates"]
        return read_description(folder).get("updates")
    except (ReverieError, KeyError, TypeError, AttributeError):
        return None


def _agent_of(config_file: Path) -> str | None:
    """The name of the agent that a configuration file describes, if it does."""
    description = read_json(config_file)
    name = description.get("agent") if isinstance(description, dict) else None
    return name if isinstance(name, str) else None


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
