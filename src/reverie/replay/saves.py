"""The folder `saves/` of a replay: one folder per save, with its manifest and a snapshot of the latents.

A save is written under a temporary name and renamed when it is whole and durable. The experience itself is in the
chunk files, which only ever grow.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from reverie.errors import CheckpointError
from reverie.replay.fields import Field
from reverie.replay.files import Array, write_array_file, write_json
from reverie.replay.manifest import Manifest
from reverie.safe_files import parse_json, read_bytes, remove_folder, synchronize_folder

_SAVE_FOLDER = re.compile(r"(\d{6,})-(.+)")
_TEMPORARY = "writing-"
_MANIFEST = "save.json"
_FILES = re.compile(r"save\.json|[^/]+\.npy")


class Saves:
    """Writes, finds and forgets the saves of one replay folder.

    Args:
        folder: the folder `saves/`; it is made with the first save.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._first_chunks: dict[Path, int] = {}  # complete saves and the oldest chunk that each needs
        self._current: dict[str, Path] = {}  # for each name, what this process saved or restored last
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            first_chunk = _read_first_chunk(path)
            if first_chunk is not None:
                self._first_chunks[path] = first_chunk

    def path(self, manifest: Manifest) -> Path:
        """Folder of a save."""
        return self.folder / f"{manifest.serial:06d}-{manifest.name}"

    def next_serial(self) -> int:
        """A number above that of every save in the folder, complete or not."""
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        matches = (_SAVE_FOLDER.fullmatch(name.removeprefix(_TEMPORARY)) for name in names)
        return max((int(match[1]) for match in matches if match), default=0) + 1

    def needs(self, chunk: int) -> bool:
        """Whether a save in the folder may need a chunk."""
        return any(first <= chunk for first in self._first_chunks.values())

    def use(self, manifest: Manifest) -> None:
        """Notes that a save was just written or restored: it is the one that its name stands for."""
        path = self.path(manifest)
        self._first_chunks[path] = manifest.first_row // manifest.chunk_rows
        self._current[manifest.name] = path

    def write(
        self, manifest: Manifest, latents: Iterable[tuple[Field, tuple[int, ...], Iterable[Array]]] | None
    ) -> Manifest:
        """Writes a save and makes it durable.

        Args:
            manifest: the manifest, still without the checksums of the latents.
            latents: for each latent field the shape [rows, E, ...] of its snapshot and the blocks of rows; None
                without a snapshot.

        Returns:
            The manifest with the checksums of the latents.

        Raises:
            OSError: the disk is full or not writable; all earlier saves are untouched.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        synchronize_folder(self.folder.parent)
        final = self.path(manifest)
        temporary = self.folder / f"{_TEMPORARY}{final.name}"
        remove_folder(temporary, _FILES)
        try:
            temporary.mkdir()
            if latents is not None:
                checksums = {
                    field.name: write_array_file(temporary / field.file_name, shape, field.dtype, blocks=blocks)
                    for field, shape, blocks in latents
                }
                manifest = replace(manifest, latents_crc32=checksums)
            write_json(temporary / _MANIFEST, manifest.to_json())
            os.replace(temporary, final)
        except OSError:
            remove_folder(temporary, _FILES)
            raise
        synchronize_folder(self.folder)
        self.use(manifest)
        return manifest

    def forget(self, keep: Sequence[str]) -> int | None:
        """Deletes all saves but one of each kept name: what this process saved or restored last, else the newest.

        Returns:
            The oldest chunk that a kept save needs; None if no save is kept.
        """
        kept = set()
        for name in set(keep):
            of_name = [path for path in self._first_chunks if path.name.partition("-")[2] == name]
            if of_name:
                kept.add(self._current.get(name) or max(of_name, key=lambda path: int(path.name.partition("-")[0])))
        for path in list(self.folder.iterdir()) if self.folder.is_dir() else ():
            begun = path.name.startswith(_TEMPORARY)
            ours = _SAVE_FOLDER.fullmatch(path.name.removeprefix(_TEMPORARY)) is not None
            if ours and path not in kept and (begun or (path / _MANIFEST).is_file()):
                _remove(path)
        self._first_chunks = {path: first for path, first in self._first_chunks.items() if path in kept}
        self._current = {name: path for name, path in self._current.items() if path in kept}
        return min(self._first_chunks.values(), default=None)


def _remove(save: Path) -> None:
    """Deletes a save; a kill in the middle leaves a folder that a later call takes for an unfinished one."""
    begun = save
    if not save.name.startswith(_TEMPORARY):
        begun = save.with_name(f"{_TEMPORARY}{save.name}")
        remove_folder(begun, _FILES)
        save.rename(begun)
    remove_folder(begun, _FILES)


def _read_first_chunk(path: Path) -> int | None:
    """The oldest chunk that a save needs; None if the folder is not a complete save."""
    if not _SAVE_FOLDER.fullmatch(path.name):
        return None
    try:
        data = parse_json(read_bytes(path / _MANIFEST), str(path))
        return int(data["first_row"]) // int(data["chunk_rows"])
    except (OSError, CheckpointError, ArithmeticError, LookupError, TypeError, ValueError):
        return None
