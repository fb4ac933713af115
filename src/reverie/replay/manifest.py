"""What a save of the replay consists of: counters, random state and the chunks it needs, as plain JSON types."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from reverie.errors import CheckpointError
from reverie.replay.fields import Field

FORMAT = 1
SAVE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class ChunkRecord:
    """The part of a chunk that is durable.

    Attributes:
        index: number of the chunk.
        rows: number of rows, from the first row of the chunk on.
        crc32: for each experience field the CRC-32 of these rows.
    """

    index: int
    rows: int
    crc32: dict[str, int]


@dataclass(frozen=True)
class Manifest:
    """A save of a `SequenceReplay`.

    Attributes:
        name: name given to the save.
        serial: number of the save; later saves have higher numbers.
        layout: fields, number of environments, window length and storage; a replay must agree to restore it.
        chunk_rows: time rows in a chunk.
        first_row: absolute time of the oldest row.
        end_row: absolute time after the newest row.
        closed_rows: absolute times of rows that `close_episodes` marked as last; the files are not changed by it.
        episode_starts: for each environment the absolute time of its newest `is_first` row, -1 without one.
        online_cursor: number of windows of the online queue that were served or dropped.
        random: state of the numpy bit generator.
        chunks: the chunks of rows `first_row` to `end_row - 1`.
        latents_crc32: for each latent field the CRC-32 of its snapshot; None with disk storage.
    """

    name: str
    serial: int
    layout: dict[str, Any]
    chunk_rows: int
    first_row: int
    end_row: int
    closed_rows: list[int]
    episode_starts: list[int]
    online_cursor: int
    random: dict[str, Any]
    chunks: list[ChunkRecord]
    latents_crc32: dict[str, int] | None

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain JSON types."""
        return {"format": FORMAT, **asdict(self)}

    @staticmethod
    def from_json(data: Mapping[str, Any], layout: Mapping[str, Any]) -> Manifest:
        """Reads and checks a manifest.

        Args:
            data: what `to_json` gave.
            layout: layout of the replay that is to be restored.

        Raises:
            CheckpointError: the data is damaged or belongs to a replay of another layout.
        """
        try:
            if data["format"] != FORMAT:
                raise CheckpointError(
                    f"The replay was saved in format {data['format']}, this version of the library reads {FORMAT}."
                )
            _compare_layouts(data["layout"], layout)
            values = {name: data[name] for name in Manifest.__dataclass_fields__}
            values["chunks"] = [ChunkRecord(c["index"], c["rows"], dict(c["crc32"])) for c in data["chunks"]]
            manifest = Manifest(**values)
            manifest._check()
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise CheckpointError(
                f"The replay manifest of the checkpoint is damaged ({type(error).__name__}: {error}); "
                "restore an older checkpoint or start over."
            ) from error
        return manifest

    def _check(self) -> None:
        """Raises ValueError or another built-in error if the values contradict each other."""
        integers = [self.serial, self.chunk_rows, self.first_row, self.end_row, self.online_cursor]
        for record in self.chunks:
            integers += [record.index, record.rows, *record.crc32.values()]
        integers += [*self.closed_rows, *(start + 1 for start in self.episode_starts)]
        if any(type(value) is not int or not 0 <= value < 2**62 for value in integers) or self.chunk_rows < 1:
            raise ValueError("a count is out of range or not an integer")
        if self.first_row > self.end_row or len(self.episode_starts) != self.layout["num_envs"]:
            raise ValueError("the row counts do not fit")
        if not SAVE_NAME.fullmatch(self.name):
            raise ValueError("the name of the save is not allowed")
        restore_random(self.random)
        rows = [(record.index, record.rows) for record in self.chunks]
        covered = (self.end_row - self.first_row) // self.chunk_rows <= len(rows)  # so that the next line is cheap
        if not covered or rows != chunk_rows_between(self.first_row, self.end_row, self.chunk_rows):
            raise ValueError("the chunks do not cover the rows")
        experience = {field["name"] for field in self.layout["fields"] if not field["latent"]}
        if any(set(record.crc32) != experience for record in self.chunks):
            raise ValueError("a chunk lacks a checksum")
        latents = {field["name"] for field in self.layout["fields"] if field["latent"]}
        if self.layout["storage"] == "ram" and set(self.latents_crc32 or {}) != latents:
            raise ValueError("the latents lack a checksum")


def make_layout(fields: Sequence[Field], num_envs: int, length: int, storage: str) -> dict[str, Any]:
    """What two replays must share for one to restore a save of the other."""
    return {
        "fields": [field.to_json() for field in fields],
        "num_envs": num_envs,
        "length": length,
        "storage": storage,
    }


def chunk_rows_between(first_row: int, end_row: int, chunk_rows: int) -> list[tuple[int, int]]:
    """The chunks that hold the rows `first_row` to `end_row - 1`: (number, rows filled from the chunk's start)."""
    if first_row == end_row:
        return []
    indices = range(first_row // chunk_rows, (end_row - 1) // chunk_rows + 1)
    return [(index, min(chunk_rows, end_row - index * chunk_rows)) for index in indices]


def restore_random(state: Mapping[str, Any]) -> np.random.Generator:
    """A generator in the given PCG64 state.

    Raises:
        ValueError, TypeError, KeyError, OverflowError: the state is damaged.
    """
    bit_generator: Any = np.random.PCG64()
    bit_generator.state = dict(state)
    return np.random.Generator(bit_generator)


def _compare_layouts(saved: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raises CheckpointError with the first difference between two layouts; windows may have another length."""
    for key in ("num_envs", "storage"):
        if saved[key] != expected[key]:
            raise CheckpointError(
                f"The replay was saved with {key}={saved[key]!r}, but is restored with {key}={expected[key]!r}; "
                "use the saved value."
            )
    before = {field["name"]: field for field in saved["fields"]}
    after = {field["name"]: field for field in expected["fields"]}
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            raise CheckpointError(
                f"The replay field {name!r} was saved as {before.get(name)}, but is restored as {after.get(name)}; "
                "use the saved configuration."
            )
    if [field["name"] for field in saved["fields"]] != [field["name"] for field in expected["fields"]]:
        raise CheckpointError("The replay was saved with its fields in another order; use the saved configuration.")
