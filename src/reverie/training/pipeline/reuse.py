"""What one run takes over from another: whole stages, so that variants share frames, V and M; or V's weights alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from reverie.agents.registry import make_config
from reverie.envs import EnvironmentSource
from reverie.envs.code_identity import code_difference
from reverie.errors import ConfigError, RunFolderError
from reverie.safe_files import RECORD, damage_of, refuse_links
from reverie.tensor_files import read_tensors
from reverie.training.files import read_json
from reverie.training.pipeline.frames import PROGRESS, PROGRESS_SHAPE
from reverie.training.pipeline.loading import VISION_FILE, latents_file
from reverie.training.run_folder import CONFIG_FILE

STAGES: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("frames", ("frames",), ("collect_episodes", "collect_steps", "shortest_episode", "collect_policy", "hold")),
    (
        "V",
        ("vision.safetensors", "latents.npy"),
        ("latent", "vision_epochs", "vision_batch", "vision_learning_rate", "anneal_to"),
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


@dataclass(frozen=True)
class Reusable:
    """What a new run can take over from another one.

    Attributes:
        stages: name of each stage and its files.
        iterations: of the other run, all of whose stages these are if there are several.
    """

    stages: dict[str, tuple[str, ...]]
    iterations: int


def reusable(other: Path, config: Any, source: EnvironmentSource) -> Reusable:
    """The stages of another run that a new one can take over, up to the first whose settings differ.

    Of a run with several iterations it is all or nothing, since its later frames come from its controller: the new run
    then only evolves another controller for the last iteration.

    Args:
        other: run folder of an agent that is trained in stages.
        config: of the new run.
        source: recipe for the new run's environments.

    Raises:
        RunFolderError: the other folder holds no such run, has not collected all its frames, or has several iterations
            and has not learned all of M.
        ConfigError: its environment or the settings of its frames differ, or it has several iterations and the settings
            of any stage differ.
    """
    refuse_links(other)
    with damage_of(other):
        return _reusable(other, config, source)


def _reusable(other: Path, config: Any, source: EnvironmentSource) -> Reusable:
    described = read_json(other / CONFIG_FILE, RECORD) if (other / CONFIG_FILE).is_file() else {}
    if described.get("agent") != config.name:
        raise RunFolderError(f"{other} holds no run of {config.name}, whose stages could be reused; give its folder")
    there, ours = described["environment"], source.identity()
    stored = {key: there.get(key) for key in ours}
    if stored != ours:
        raise ConfigError(
            f"{other} was trained on {stored}, but this run is on {ours}; reuse needs the same environment"
        )
    if "code" in there and (difference := code_difference(there["code"], source.code)) is not None:
        raise ConfigError(
            f"{other} was trained on an environment of other code: {difference}; reuse needs the same code"
        )
    theirs = make_config(config.name, described["agent_config"])
    if theirs.iterations > 1:
        return _whole(other, theirs, config)
    found: dict[str, tuple[str, ...]] = {}
    for name, files, settings in STAGES:
        different = [key for key in settings if getattr(theirs, key) != getattr(config, key)]
        if name == "frames" and different:
            raise ConfigError(
                f"nothing of {other} can be reused: {different[0]} is different there; give the same settings for "
                f"its frames"
            )
        if different or any(not (other / file).exists() for file in files):
            break
        found[name] = files
    progress = other / "frames" / PROGRESS
    collected = len(read_json(progress, PROGRESS_SHAPE)["lengths"]) if progress.exists() else 0
    if collected != config.collect_episodes:
        raise RunFolderError(
            f"{other} has {collected} episodes, but {config.collect_episodes} are asked for; let it collect them first"
        )
    return Reusable(found, 1)


def _whole(other: Path, theirs: Any, config: Any) -> Reusable:
    """All stages of a run of several iterations."""
    settings = ("iterations", "collect_again", "keep_vision", *(key for *_, keys in STAGES for key in keys))
    different = [key for key in settings if getattr(theirs, key) != getattr(config, key)]
    if different:
        key = different[0]
        raise ConfigError(
            f"nothing of {other} can be reused: {key} is {getattr(theirs, key)} there and {getattr(config, key)} here, "
            f"and a run of {theirs.iterations} iterations is reused as a whole, for another search of a controller"
        )
    latents = latents_file(theirs.iterations - 1)
    files = {name: tuple(latents if file == "latents.npy" else file for file in names) for name, names, _ in STAGES}
    there = all((other / file).exists() for names in files.values() for file in names)
    learned = int(read_tensors(other / "memory.safetensors")["updates"]) if there else 0
    wanted = 0 if theirs.random_memory else theirs.iterations * theirs.memory_updates
    if not there or learned < wanted:
        raise RunFolderError(f"{other} has not learned all of M in its last iteration; let it do so first")
    return Reusable(files, theirs.iterations)


def vision_weights(other: Path, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """V's weights as another run left them.

    Args:
        other: run folder of an agent with such a V; its environment and its frames may differ.
        like: weights whose names and shapes are expected.

    Raises:
        RunFolderError: the folder has no V yet.
        ConfigError: its V has other shapes.
    """
    path = other / VISION_FILE
    if not path.is_file():
        raise RunFolderError(f"{other} holds no V ({VISION_FILE}); give the folder of a run that has trained one")
    tensors = read_tensors(path)
    weights = {name: tensors[f"module.{name}"] for name in like if f"module.{name}" in tensors}
    for name, expected in like.items():
        there = list(weights[name].shape) if name in weights else "missing"
        if there != list(expected.shape):
            raise ConfigError(
                f"V of {other} does not fit: {name} is {there} there and {list(expected.shape)} here; give the same "
                f"number of latents, or train V in this run"
            )
    return weights


def take_over(other: Path, own: Path, stages: dict[str, tuple[str, ...]], link_frames: bool) -> None:
    """Links the files of stages, the one that says that frames are complete last, so that it can be repeated.

    Args:
        other: run folder that has them.
        own: run folder that gets them; what an attempt that was cut short has left there is replaced.
        stages: from `reusable`.
        link_frames: False where frames will be added, which must not happen to files that two runs share. These, and
            those on another file system, are left to `FrameStore.copy_from`.
    """
    for name, files in stages.items():
        for file in files if name != "frames" else ():
            (own / file).unlink(missing_ok=True)
            try:
                os.link(other / file, own / file)
            except OSError:
                shutil.copyfile(other / file, own / file)
    if not link_frames:
        return
    (own / "frames").mkdir(exist_ok=True)
    arrays = [file.name for file in sorted((other / "frames").glob("*.npy"))]
    try:
        for file in (*arrays, PROGRESS):
            (own / "frames" / file).unlink(missing_ok=True)
            os.link(other / "frames" / file, own / "frames" / file)
    except OSError:
        for file in arrays:
            (own / "frames" / file).unlink(missing_ok=True)


def refuse_half_taken(own: Path) -> None:
    """Checks that nothing was half taken over, for a run that would continue without reuse.

    Raises:
        RunFolderError: stages of another run are there, but not the mark that its frames are complete. Frames that are
            collected now would go into the files of the other run, or stand beside a V that has not seen them.
    """
    frames = own / "frames"
    shared = any(file.stat().st_nlink > 1 for file in frames.glob("*.npy"))
    if not (frames / PROGRESS).exists() and (shared or any((own / name).exists() for name in STAGES[1][1])):
        raise RunFolderError(f"{own} was taking over stages of another run when it stopped; repeat it with its --reuse")
