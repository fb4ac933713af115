"""The folder of a run: where it is, what it holds, and who may write to it."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import reverie
from reverie.envs.code_identity import code_difference
from reverie.errors import ReverieError, RunFolderError
from reverie.safe_files import LEFTOVER, open_regular, refuse_links, remove_folder, sweep
from reverie.training.checkpoint import digest
from reverie.training.files import read_json, write_json
from reverie.training.settings import MAY_CHANGE

CONFIG_FILE = "config.json"
LOCK_FILE = ".lock"
KEPT = ("from", "changes")
"""Entries of `config.json` that hold the history of a run."""
OWN_FILES = re.compile(
    r"(config|scores|seconds)\.json|learning_curve\.png|(vision|memory|controller)\.safetensors|"
    r"latents(_\d+)?\.npy|\.latents(_\d+)?\.npy\.rows"
)
PARTIAL_VIDEOS = ".partial"
"""Folder in which videos and their pictures are drawn."""
OWN_VIDEOS = re.compile(r"(open_loop_\d{9}|dream|[a-z]+)\.(mp4|gif|png)")
"""Files that a run writes, of which a kill may leave the beginning under another name."""


@dataclass(frozen=True)
class Claim:
    """What a process found when it claimed a folder.

    Attributes:
        fingerprint: of the run, which its checkpoints carry; stays the same for the life of the run.
        differences: section and name of a setting -> its value there and the one that is asked for.
        kept: history of the run, as `config.json` has it.
    """

    fingerprint: str
    differences: Mapping[tuple[str, str], tuple[Any, Any]]
    kept: Mapping[str, Any]


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

    def claim(
        self,
        config: Mapping[str, Any],
        identity: Mapping[str, Mapping[str, Any]],
        defaults: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Claim:
        """Checks that the folder holds no run, or the one that is described, and writes `config.json` for a new one.

        Args:
            config: what to write; must contain `agent`, `environment` and the sections of `identity`.
            identity: section -> settings that must be equal for the folder to hold the same run.
            defaults: the same for settings that the version which began the run may not have had yet.

        Returns:
            What was claimed; for a run that is there `settle` writes the description when it has been read.

        Raises:
            RunFolderError: the folder holds another run; the message names what of the environment's code differs.
        """
        path = self.path / CONFIG_FILE
        plain: dict[str, dict[str, Any]] = json.loads(json.dumps(identity))
        if not path.exists():
            claim = Claim(digest(identity), {}, {})
            self.settle(claim, config)
            return claim
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
        difference = _other_code(stored, config["environment"]["code"])
        if difference is not None:
            raise RunFolderError(
                f"{self.path} holds a run of other code: {difference}; choose another folder (run=..., --run), "
                f"give the same code to resume, or continue with this code by reverie.load(folder, environment=...)"
            )
        old = json.loads(json.dumps(defaults or {}))
        differences = {
            (section, name): (there, value)
            for section, values in plain.items()
            for name, value in values.items()
            if (there := _stored_value(stored, section, name, defaults=old, otherwise=value)) != value
        }
        kept = {key: stored[key] for key in KEPT if key in stored}
        return Claim(str(stored.get("fingerprint") or _first_fingerprint(stored)), differences, kept)

    def settle(self, claim: Claim, config: Mapping[str, Any], **more: Any) -> None:
        """Writes the description of the claimed run.

        Args:
            claim: what `claim` returned.
            config: the description.
            more: further entries.
        """
        entries = {"fingerprint": claim.fingerprint, **claim.kept, **more}
        write_json(self.path / CONFIG_FILE, {"version": reverie.__version__, **config, **entries})

    def refuse(self, claim: Claim, hint: str = "") -> None:
        """Refuses settings that make it another run.

        Raises:
            RunFolderError: names the first one.
        """
        for (section, name), (there, here) in claim.differences.items():
            raise RunFolderError(
                f"{self.path} holds another run: {section} {name} is {there!r} there and {here!r} here; choose another "
                f"folder with --run, or give the same settings to resume{hint}"
            )

    def _restore_config(self) -> str:
        """What to do about a damaged configuration: the best weights have a copy of it."""
        copy = self.path / "checkpoints" / "best" / CONFIG_FILE
        return f"copy {copy} over it" if copy.exists() else "restore it or choose another folder with --run"


def _stored_value(
    stored: Mapping[str, Any], section: str, name: str, defaults: Mapping[str, Mapping[str, Any]], otherwise: Any
) -> Any:
    """The value of a setting in a configuration, or the default of one that its version did not know."""
    values = stored.get(section)
    if isinstance(values, dict) and name in values:
        return values[name]
    return defaults.get(section, {}).get(name, otherwise)


def _first_fingerprint(stored: Mapping[str, Any]) -> str:
    """The fingerprint in the checkpoints of a run of version 0.1.0, which did not keep it in `config.json`."""
    left_out = {"settings": MAY_CHANGE, "environment": {"parts", "code"}}
    sections = ("agent_config", "settings", "environment", "interface")
    identity = {}
    for section in sections:
        values = stored.get(section)
        values = values if isinstance(values, dict) else {}
        identity[section] = {k: v for k, v in values.items() if k not in left_out.get(section, ())}
    return digest(identity)


def shown(path: Path) -> Path:
    """A path as a person reads it: relative where it lies below the working directory."""
    here = Path.cwd()
    return path.relative_to(here) if here != here.parent and path.is_relative_to(here) else path


def _other_code(stored: Any, code: Mapping[str, str]) -> str | None:
    """What differs between the code of a stored environment and another; None also where it was not stored."""
    environment = stored.get("environment") if isinstance(stored, dict) else None
    there = environment.get("code") if isinstance(environment, dict) else None
    return code_difference(there, code) if isinstance(there, dict) else None


def default_path(task: str, agent: str, seed: int, code: Mapping[str, str]) -> Path:
    """runs/<task>/<agent>/<seed>, with characters that do not belong in file names replaced.

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
