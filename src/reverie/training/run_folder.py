"""The folder of a run: where it is, what it holds, and who may write to it."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import reverie
from reverie.envs.code_identity import code_difference
from reverie.errors import ReverieError, RunFolderError
from reverie.safe_files import LEFTOVER, open_regular, refuse_links, remove_folder, sweep
from reverie.training.files import read_json, write_json

CONFIG_FILE = "config.json"
LOCK_FILE = ".lock"
OWN_FILES = re.compile(
    r"(config|scores|seconds)\.json|learning_curve\.png|(vision|memory|controller)\.safetensors|"
    r"latents(_\d+)?\.npy|\.latents(_\d+)?\.npy\.rows"
)
PARTIAL_VIDEOS = ".partial"
"""Folder in which videos and their pictures are drawn."""
OWN_VIDEOS = re.compile(r"(open_loop_\d{9}|dream|[a-z]+)\.(mp4|gif|png)")
"""Files that a run writes, of which a kill may leave the beginning under another name."""


class RunFolder:
    """A run folder that this process alone writes to.

    Args:
        path: the folder; made if it is not there.

    Raises:
        RunFolderError: it cannot be made or written, holds other things or a link, or another process trains in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._refuse_other_things()
            refuse_links(self.path)
            lock = open_regular(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT)
            self._lock: IO[str] | None = os.fdopen(lock, "w")
        except OSError as error:
            raise RunFolderError(
                f"the run folder {self.path} cannot be written ({error.strerror or error}); "
                f"choose a folder of your own with --run"
            ) from error
        self._take_lock()
        sweep(self.path, OWN_FILES)
        videos = self.path / "videos"
        sweep(videos, OWN_VIDEOS)
        remove_folder(videos / PARTIAL_VIDEOS, OWN_VIDEOS)

    def _refuse_other_things(self) -> None:
        """A folder without a run must be empty but for what a run that was killed at its beginning leaves."""
        if (self.path / CONFIG_FILE).exists():
            return
        if (self.path / "checkpoints" / "best" / CONFIG_FILE).exists():
            raise RunFolderError(f"{self.path} holds a run without its {CONFIG_FILE}; {self._restore_config()}")
        if any(entry.name != LOCK_FILE and not LEFTOVER.fullmatch(entry.name) for entry in self.path.iterdir()):
            raise RunFolderError(
                f"{self.path} is not empty and holds no run (no {CONFIG_FILE}); choose a new folder with --run"
            )

    def _take_lock(self) -> None:
        if os.name != "posix":
            return
        import fcntl

        assert self._lock is not None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise RunFolderError(
                f"another process is training in {self.path}; wait for it, stop it, or choose another --run"
            ) from error

    def close(self) -> None:
        """Lets another process use the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def claim(self, config: Mapping[str, Any], identity: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes `config.json`, or checks that the one that is there describes the same run.

        Args:
            config: what to write; must contain `agent`, `environment` and the sections of `identity`.
            identity: section -> settings that must be equal for the folder to hold the same run.

        Raises:
            RunFolderError: the folder holds another run; the message names the first setting that differs, or what of
                the environment's code.
        """
        path = self.path / CONFIG_FILE
        if path.exists():
            try:
                stored = read_json(path)
            except ReverieError as error:
                raise RunFolderError(f"{str(error).partition(';')[0]}; {self._restore_config()}") from error
            if not isinstance(stored, dict):
                raise RunFolderError(f"{path} does not describe a run; {self._restore_config()}")
            if stored.get("agent") != config["agent"]:
                raise RunFolderError(
                    f"{self.path} holds a run of {stored.get('agent')!r}, not of {config['agent']!r}; "
                    f"choose another folder with --run"
                )
            for section, values in identity.items():
                _compare(self.path, section, stored.get(section, {}), json.loads(json.dumps(values)))
            difference = _other_code(stored, config["environment"]["code"])
            if difference is not None:
                raise RunFolderError(
                    f"{self.path} holds a run of other code: {difference}; choose another folder (run=..., --run), "
                    f"give the same code to resume, or continue with this code by reverie.load(folder, environment=...)"
                )
        write_json(path, {"version": reverie.__version__, **config})

    def _restore_config(self) -> str:
        """What to do about a damaged configuration: the best weights have a copy of it."""
        copy = self.path / "checkpoints" / "best" / CONFIG_FILE
        return f"copy {copy} over it" if copy.exists() else "restore it or choose another folder with --run"


def _compare(folder: Path, section: str, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for key, value in wanted.items():
        if key in stored and stored[key] != value:
            raise RunFolderError(
                f"{folder} holds another run: {section} {key} is {stored[key]!r} there and {value!r} here; "
                f"choose another folder with --run, or give the same settings to resume"
            )


def shown(path: Path) -> Path:
    """A path as a person reads it: relative where it lies below the working directory."""
    here = Path.cwd()
    return path.relative_to(here) if here != here.parent and path.is_relative_to(here) else path


def stored_preset(path: Path) -> str | None:
    """The preset of the run in a folder, if there is a run and it says so."""
    try:
        config = read_json(path / CONFIG_FILE) if (path / CONFIG_FILE).is_file() else {}
    except ReverieError:
        return None  # `RunFolder.claim` says what is wrong with the file
    preset = config.get("preset") if isinstance(config, dict) else None
    return preset if isinstance(preset, str) else None


def _other_code(stored: Any, code: Mapping[str, str]) -> str | None:
    """What differs between the code of a stored environment and another; None also where it was not stored."""
    environment = stored.get("environment") if isinstance(stored, dict) else None
    there = environment.get("code") if isinstance(environment, dict) else None
    return code_difference(there, code) if isinstance(there, dict) else None


def default_path(task: str, agent: str, seed: int, code: Mapping[str, str]) -> Path:
    """runs/<task>/<agent>/<seed>, with characters that no file name should have replaced.

    Where that holds a run of other code, the first of <seed>-2, <seed>-3 and so on that does not, with a warning: the
    name of a class or function says too little to resume its run.

    Args:
        task: name of the environment.
        agent: name of the agent.
        seed: of the run.
        code: of the environment, see `describe_code`.
    """
    first = Path("runs") / re.sub(r"[^A-Za-z0-9._+-]+", "-", task) / agent / str(seed)
    path, number, difference = first, 1, None
    while (path / CONFIG_FILE).is_file():
        try:
            other = _other_code(read_json(path / CONFIG_FILE), code)
        except ReverieError:
            break  # A damaged file: RunFolder says what to do about it.
        if other is None:
            break
        number, difference = number + 1, difference or other
        path = first.with_name(f"{seed}-{number}")
    if difference is not None:
        warnings.warn(
            f"{first} holds a run of other code: {difference}; this run is in {path}; choose another folder with "
            f"run=... or --run",
            stacklevel=3,
        )
    return path
