"""Checkpoints: complete or not there, checked before they are used, and never a pickle.

A checkpoint is a folder `checkpoints/<env_steps>/` of safetensors and JSON files with a `manifest.json` that holds the
size and SHA-256 of every other file. It is written beside its final place, synchronised to disk and renamed. What is
to be deleted is renamed first. So a kill leaves whole checkpoints and folders whose names begin with a dot.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from reverie.errors import CheckpointError, ReverieError
from reverie.tensor_files import save_tensors
from reverie.training.files import read_json, sha256, synchronise_folder, write_json

FOLDER = "checkpoints"
STATE_FILE = "state.json"
MANIFEST = "manifest.json"
PARTIAL, REPLACED = ".partial-", ".replaced-"
KEPT = 2
NAME_DIGITS = 12


def digest(value: Mapping[str, Any]) -> str:
    """A short fingerprint of plain JSON data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def checkpoint_name(env_steps: int) -> str:
    """Name of the checkpoint after so many environment steps; names sort like numbers."""
    return f"{env_steps:0{NAME_DIGITS}d}"


def newest_state(run: Path) -> dict[str, Any]:
    """`state.json` of the newest checkpoint of a run folder, unchecked; empty if there is none that can be read."""
    for folder in sorted((run / FOLDER).glob("[0-9]*"), reverse=True):
        with contextlib.suppress(ReverieError, OSError):
            state = read_json(folder / STATE_FILE)
            return state if isinstance(state, dict) else {}
    return {}


class Checkpoints:
    """The checkpoints of one run.

    Args:
        run: the run folder.
        fingerprint: of the configuration that the tensors belong to.
    """

    def __init__(self, run: Path, fingerprint: str) -> None:
        self.folder, self.fingerprint = run / FOLDER, fingerprint

    def names(self) -> list[str]:
        """Names of the checkpoints that are there, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(entry.name for entry in self.folder.iterdir() if entry.is_dir() and entry.name.isdigit())

    def write(self, env_steps: int, tensors: Mapping[str, Mapping[str, torch.Tensor]], state: Mapping[str, Any]) -> str:
        """Writes a checkpoint and returns its name.

        Args:
            env_steps: names the checkpoint.
            tensors: file stem -> tensors.
            state: plain JSON data.

        Raises:
            OSError: e.g. no space is left; earlier checkpoints are untouched.
        """
        name = checkpoint_name(env_steps)
        self.folder.mkdir(exist_ok=True)
        self.recover()
        final, partial, replaced = (self.folder / f"{prefix}{name}" for prefix in ("", PARTIAL, REPLACED))
        partial.mkdir()
        try:
            self._fill(partial, tensors, state)
            if final.exists():
                final.rename(replaced)
            partial.rename(final)
            synchronise_folder(self.folder)
        finally:
            self.recover()
        return name

    def recover(self) -> None:
        """Removes what a write that was cut short left, and puts back the checkpoint that it was about to replace."""
        for replaced in self.folder.glob(f"{REPLACED}*"):
            final = self.folder / replaced.name.removeprefix(REPLACED)
            if final.exists():
                self._remove(replaced)
            else:
                replaced.rename(final)
        for partial in self.folder.glob(f"{PARTIAL}*"):
            shutil.rmtree(partial, ignore_errors=True)
        for leftover in self.folder.glob("best/.*"):
            leftover.unlink()

    def _remove(self, folder: Path) -> None:
        """Deletes a folder so that a kill in the middle leaves no half of a checkpoint."""
        partial = self.folder / f"{PARTIAL}removed-{folder.name}"
        shutil.rmtree(partial, ignore_errors=True)
        folder.rename(partial)
        shutil.rmtree(partial, ignore_errors=True)

    def _fill(self, folder: Path, tensors: Mapping[str, Mapping[str, torch.Tensor]], state: Mapping[str, Any]) -> None:
        for stem, values in tensors.items():
            path = folder / f"{stem}.safetensors"
            save_tensors(values, path)
        write_json(folder / STATE_FILE, state)
        files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in sorted(folder.iterdir())}
        write_json(folder / MANIFEST, {"configuration": self.fingerprint, "files": files})
        synchronise_folder(folder)

    def forget_old(self) -> list[str]:
        """Deletes all but the newest checkpoints and returns the names of those kept."""
        names = self.names()
        for name in names[:-KEPT]:
            self._remove(self.folder / name)
        return names[-KEPT:]

    def forget_after(self, name: str) -> None:
        """Deletes the checkpoints that are newer than `name`, when a run goes on from an earlier one."""
        for other in self.names():
            if other > name:
                self._remove(self.folder / other)

    def read(self, name: str, restore: Callable[[dict[str, Any]], None]) -> tuple[Path, dict[str, Any]]:
        """Checks a checkpoint and returns its folder and JSON state.

        Args:
            name: the checkpoint.
            restore: brings back what lies outside the checkpoint's folder from the JSON state, or raises
                CheckpointError.

        Raises:
            CheckpointError: a file is missing, truncated or corrupted, or it belongs to another configuration; the
                message says which file, and names an earlier checkpoint that is whole.
        """
        try:
            state = self._check(name, restore)
        except CheckpointError as error:
            sentence = str(error).rstrip(".")
            raise CheckpointError(f"{sentence}; {self._alternative(name, restore)}") from error
        return self.folder / name, state

    def _check(self, name: str, restore: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        folder = self.folder / name
        if not folder.is_dir():
            raise CheckpointError(f"there is no checkpoint {name} in {self.folder}")
        try:
            manifest = read_json(folder / MANIFEST)
            fingerprint = manifest["configuration"]
            files = [(file, expected["bytes"], expected["sha256"]) for file, expected in manifest["files"].items()]
        except (ReverieError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"checkpoint {folder} is damaged: its {MANIFEST} cannot be read") from error
        for file, bytes_, digits in files:
            path = folder / file
            if not path.is_file():
                raise CheckpointError(f"checkpoint {folder} is damaged: {file} is missing")
            size = path.stat().st_size
            if size != bytes_:
                raise CheckpointError(f"checkpoint {folder} is damaged: {file} has {size} bytes instead of {bytes_}")
            if sha256(path) != digits:
                raise CheckpointError(f"checkpoint {folder} is damaged: the content of {file} was altered")
        if fingerprint != self.fingerprint:
            raise CheckpointError(
                f"checkpoint {folder} belongs to another configuration ({fingerprint} there, {self.fingerprint} here)"
            )
        state = read_json(folder / STATE_FILE)
        restore(state)
        return state

    def _alternative(self, name: str, restore: Callable[[dict[str, Any]], None]) -> str:
        for other in reversed(self.names()):
            if other == name:
                continue
            try:
                self._check(other, restore)
            except CheckpointError:
                continue
            return f"checkpoint {other} is whole: go on from it with --checkpoint {other}"
        return "no other checkpoint is whole: begin anew with another --run"
