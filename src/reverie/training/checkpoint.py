"""Checkpoints: complete or not there, checked before they are used, and never a pickle.

A checkpoint is a folder `checkpoints/<env_steps>/` of safetensors and JSON files with a `manifest.json` that holds the
size and SHA-256 of every other file. It is written beside its final place, synchronised to disk and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from reverie.errors import CheckpointError, ReverieError
from reverie.training.files import read_json, sha256, synchronise_folder, write_json

FOLDER = "checkpoints"
MANIFEST = "manifest.json"
KEPT = 2


def digest(value: Mapping[str, Any]) -> str:
    """A short fingerprint of plain JSON data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


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
        name = f"{env_steps:012d}"
        self.folder.mkdir(exist_ok=True)
        for old in self.folder.glob(".partial-*"):
            shutil.rmtree(old)
        partial = self.folder / f".partial-{name}"
        partial.mkdir()
        try:
            self._fill(partial, tensors, state)
            final = self.folder / name
            if final.exists():
                shutil.rmtree(final)
            partial.rename(final)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        synchronise_folder(self.folder)
        return name

    def _fill(self, folder: Path, tensors: Mapping[str, Mapping[str, torch.Tensor]], state: Mapping[str, Any]) -> None:
        for stem, values in tensors.items():
            path = folder / f"{stem}.safetensors"
            save_tensors(values, path)
        write_json(folder / "state.json", state)
        files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in sorted(folder.iterdir())}
        write_json(folder / MANIFEST, {"configuration": self.fingerprint, "files": files})
        synchronise_folder(folder)

    def forget_old(self) -> list[str]:
        """Deletes all but the newest checkpoints and returns the names of those kept."""
        names = self.names()
        for name in names[:-KEPT]:
            shutil.rmtree(self.folder / name)
        return names[-KEPT:]

    def forget_after(self, name: str) -> None:
        """Deletes the checkpoints that are newer than `name`, when a run goes on from an earlier one."""
        for other in self.names():
            if other > name:
                shutil.rmtree(self.folder / other)

    def read(self, name: str) -> tuple[Path, dict[str, Any]]:
        """Checks a checkpoint and returns its folder and JSON state.

        Raises:
            CheckpointError: a file is missing, truncated or corrupted, or it belongs to another configuration; the
                message says which file, and names an earlier checkpoint that is whole.
        """
        try:
            self._check(name)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; {self._alternative(name)}") from error
        folder = self.folder / name
        return folder, read_json(folder / "state.json")

    def _check(self, name: str) -> None:
        folder = self.folder / name
        if not folder.is_dir():
            raise CheckpointError(f"there is no checkpoint {name} in {self.folder}")
        try:
            manifest = read_json(folder / MANIFEST)
            files, fingerprint = manifest["files"], manifest["configuration"]
        except (ReverieError, KeyError, TypeError) as error:
            raise CheckpointError(f"checkpoint {folder} is damaged: its {MANIFEST} cannot be read") from error
        for file, expected in files.items():
            path = folder / file
            if not path.is_file():
                raise CheckpointError(f"checkpoint {folder} is damaged: {file} is missing")
            size = path.stat().st_size
            if size != expected["bytes"]:
                raise CheckpointError(
                    f"checkpoint {folder} is damaged: {file} has {size} bytes instead of {expected['bytes']}"
                )
            if sha256(path) != expected["sha256"]:
                raise CheckpointError(f"checkpoint {folder} is damaged: the content of {file} was altered")
        if fingerprint != self.fingerprint:
            raise CheckpointError(
                f"checkpoint {folder} belongs to another configuration ({fingerprint} there, {self.fingerprint} here)"
            )

    def _alternative(self, name: str) -> str:
        for other in reversed(self.names()):
            if other == name:
                continue
            try:
                self._check(other)
            except CheckpointError:
                continue
            return f"checkpoint {other} is whole: go on from it with --checkpoint {other}"
        return "no other checkpoint is whole: begin anew with another --run"


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Writes a safetensors file and synchronises it to disk."""
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Reads a safetensors file of a checkpoint that was checked."""
    return load_file(path)
