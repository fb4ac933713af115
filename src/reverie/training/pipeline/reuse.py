"""Stages that one run takes over from another, so that variants of an agent share frames, V and M."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from reverie.agents.registry import make_config
from reverie.errors import ConfigError, RunFolderError
from reverie.training.files import read_json
from reverie.training.run_folder import CONFIG_FILE

STAGES: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("frames", ("frames",), ("collect_episodes", "collect_steps", "shortest_episode", "collect_policy", "hold")),
    (
        "V",
        ("vision.safetensors", "latents.npy"),
        ("latent", "vision_epochs", "vision_batch", "vision_learning_rate"),
    ),
    (
        "M",
        ("memory.safetensors",),
        (
            *("memory_units", "mixtures", "living_reward", "end_head", "action_head", "random_memory"),
            *("memory_updates", "memory_batch", "memory_length", "memory_learning_rate", "memory_clip"),
        ),
    ),
)
"""Name, files and settings of each stage that can be taken over; a stage also depends on those before it."""


def take_over(other: Path, own: Path, config: Any, environment: dict[str, Any]) -> list[str]:
    """Links (or copies) the files of another run's stages up to the first whose settings differ.

    Frames that later iterations will be added to are not linked: the caller has to copy them.

    Args:
        other: run folder of an agent that is trained in stages.
        own: the new run folder.
        config: of the new run.
        environment: of the new run, as plain data.

    Returns:
        Names of the stages that were taken over.

    Raises:
        RunFolderError: the other folder holds no such run, or its frames are not complete.
        ConfigError: its environment or the settings of its frames differ.
    """
    described = read_json(other / CONFIG_FILE) if (other / CONFIG_FILE).is_file() else {}
    if described.get("agent") != config.name:
        raise RunFolderError(f"{other} holds no run of {config.name}, whose stages could be reused; give its folder")
    if described["environment"] != environment:
        raise ConfigError(
            f"{other} was trained on {described['environment']}, but this run is on {environment}; reuse needs the "
            f"same environment"
        )
    theirs = make_config(config.name, described["agent_config"])
    taken: list[str] = []
    for name, files, settings in STAGES:
        different = [key for key in settings if getattr(theirs, key) != getattr(config, key)]
        missing = [file for file in files if not (other / file).exists()]
        if different or missing:
            if taken:
                break
            why = f"{different[0]} is another one there" if different else f"it has no {missing[0]}"
            raise ConfigError(f"nothing of {other} can be reused: {why}; give the same settings for its {name}")
        for file in files:
            if file != "frames" or config.iterations == 1:
                _link(other / file, own / file)
        taken.append(name)
    return taken


def _link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where the file system has no links; folders likewise."""
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_link_file, dirs_exist_ok=True)
    else:
        _link_file(str(source), str(target))


def _link_file(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
