"""Checkpoints: complete or not there, checked before they are used, and never a pickle.

A checkpoint is a folder `checkpoints/<env_steps>/` of safetensors and JSON files with a `manifest.json` that holds the
size and SHA-256 of every other file. It is written beside its final place, synchronized to disk and renamed. What is
to be deleted is renamed first. So a kill leaves whole checkpoints and folders whose names begin with a dot.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from reverie.errors import CheckpointError, ReverieError
from reverie.safe_files import (
    COUNT,
    FLAG,
    NUMBER,
    RECORD,
    TEXT,
    WHOLE,
    check_shape,
    optional,
    remove_folder,
    sweep,
)
from reverie.tensor_files import save_tensors
from reverie.training.files import read_json, sha256, synchronize_folder, write_json

FOLDER = "checkpoints"
STATE_FILE = "state.json"
MANIFEST = "manifest.json"
PARTIAL, REPLACED = ".partial-", ".replaced-"
KEPT = 2
NAME_DIGITS = 12
NAME = re.compile(rf"[0-9]{{{NAME_DIGITS},}}")
FILES = re.compile(r"(agent|optimizer|loop)\.safetensors|state\.json|manifest\.json")
_PARTIAL = re.compile(rf"{re.escape(PARTIAL)}(removed-({re.escape(REPLACED)})?)?{NAME.pattern}")
BEST_FILES = re.compile(r"config\.json|model\.safetensors")
OLDER_LEFTOVER = ".model.safetensors.partial"
"""What earlier versions left of best weights whose writing was cut short."""

MANIFEST_SHAPE = {"configuration": TEXT, "files": RECORD}
STATE_SHAPE = {
    "env_steps": COUNT,
    "best": optional(NUMBER),
    "evaluated": WHOLE,
    "continued_from?": optional(TEXT),
    "measured_vectorization?": optional(TEXT),
    "updater": {"credit": NUMBER, "updates": COUNT, "begun?": FLAG, "names": [TEXT], "count": COUNT},
    "collector": {
        "episode_index": [COUNT],
        "totals": [NUMBER],
        "lengths": [COUNT],
        "finished": [[NUMBER]],
        "episodes": COUNT,
        "longest?": optional(COUNT),
        "broken?": FLAG,
        "info?": RECORD,
    },
    "metrics": {"metrics_bytes": COUNT, "env_steps": WHOLE, "seconds": NUMBER},
    "replay": RECORD,
}
"""What `state.json` of a run must hold; see `check_shape`."""


def digest(value: Mapping[str, Any]) -> str:
    """A short fingerprint of plain JSON data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def checkpoint_name(env_steps: int) -> str:
    """Name of the checkpoint after so many environment steps; names sort like numbers."""
    return f"{env_steps:0{NAME_DIGITS}d}"


def newest_state(run: Path) -> dict[str, Any]:
    """`state.json` of the newest checkpoint of a run folder; empty if there is none that can be read."""
    for name in reversed(_names(run / FOLDER)):
        with contextlib.suppress(ReverieError, OSError):
            state: dict[str, Any] = read_json(run / FOLDER / name / STATE_FILE, STATE_SHAPE)
            return state
    return {}


def _names(folder: Path) -> list[str]:
    """Names of the checkpoints in a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if NAME.fullmatch(entry.name) and entry.is_dir())


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
        return _names(self.folder)

    def choose(self, wanted: str | None) -> str | None:
        """The checkpoint to continue from, None where a run begins.

        A command that names a checkpoint is meant to be repeated until the run is complete: where the newest checkpoint
        comes from the named one, the newest is taken.

        Args:
            wanted: number of environment steps, with or without leading zeros, or `latest`; by default the newest.

        Raises:
            CheckpointError: no checkpoint can have that name.
        """
        names = self.names()
        if wanted in (None, "latest"):
            return names[-1] if names else None
        if not wanted.isascii() or not wanted.isdigit():
            there = f"it has {', '.join(names)}" if names else "it has none yet"
            why = " (best are weights alone, from which learning cannot continue)" if wanted == "best" else ""
            raise CheckpointError(
                f"a run continues from a checkpoint that is named by its environment steps, not from {wanted!r}{why}; "
                f"{there}: leave --checkpoint out for the newest"
            )
        name = wanted.zfill(NAME_DIGITS)
        return names[-1] if names and newest_state(self.folder.parent).get("continued_from") == name else name

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
            synchronize_folder(self.folder)
        finally:
            self.recover()
        return name

    def recover(self) -> None:
        """Removes what a write that was cut short left, and puts back the checkpoint that it was about to replace."""
        for entry in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            name = entry.name.removeprefix(REPLACED)
            if entry.name.startswith(REPLACED) and NAME.fullmatch(name):
                if (self.folder / name).exists():
                    self._remove(entry)
                else:
                    entry.rename(self.folder / name)
            elif _PARTIAL.fullmatch(entry.name):
                remove_folder(entry, FILES)
        best = self.folder / "best"
        sweep(best, BEST_FILES)
        if not (best / OLDER_LEFTOVER).is_symlink() and (best / OLDER_LEFTOVER).is_file():
            (best / OLDER_LEFTOVER).unlink()

    def _remove(self, folder: Path) -> None:
        """Deletes a folder so that a kill in the middle leaves no half of a checkpoint."""
        partial = self.folder / f"{PARTIAL}removed-{folder.name}"
        remove_folder(partial, FILES)
        folder.rename(partial)
        remove_folder(partial, FILES)

    def _fill(self, folder: Path, tensors: Mapping[str, Mapping[str, torch.Tensor]], state: Mapping[str, Any]) -> None:
        for stem, values in tensors.items():
            path = folder / f"{stem}.safetensors"
            save_tensors(values, path)
        write_json(folder / STATE_FILE, state)
        files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in sorted(folder.iterdir())}
        write_json(folder / MANIFEST, {"configuration": self.fingerprint, "files": files})
        synchronize_folder(folder)

    def forget_old(self) -> list[str]:
        """Deletes all but the newest checkpoints and returns the names of those kept."""
        names = self.names()
        for name in names[:-KEPT]:
            self._remove(self.folder / name)
        return names[-KEPT:]

    def forget_after(self, name: str) -> None:
        """Deletes the checkpoints that are newer than `name`, when a run continues from an earlier one."""
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
            manifest = read_json(folder / MANIFEST, MANIFEST_SHAPE)
            listed = manifest["files"]
            check_shape(listed, dict.fromkeys(listed, {"bytes": COUNT, "sha256": TEXT}), MANIFEST, key="files")
        except ReverieError as error:
            raise CheckpointError(
                f"checkpoint {folder} is damaged: its {MANIFEST} cannot be read ({str(error).partition(';')[0]})"
            ) from error
        fingerprint = manifest["configuration"]
        files = [(file, expected["bytes"], expected["sha256"]) for file, expected in listed.items()]
        for file, bytes_, digits in files:
            path = folder / file
            if not FILES.fullmatch(file):
                raise CheckpointError(f"checkpoint {folder} is damaged: its {MANIFEST} lists a file {file[:60]!r}")
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
            except ReverieError:
                continue
            return f"checkpoint {other} is whole: continue from it with --checkpoint {other}"
        return "no other checkpoint is whole: start over with another --run"
