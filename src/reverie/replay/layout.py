"""The notes in a replay folder that let a person read it with numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reverie.replay.fields import Field
from reverie.replay.files import write_json, write_text

README = """\
Experience of a Reverie run
===========================

fields.json        the fields of a row: name, shape, dtype, file name, and whether it is a latent
chunk-00000012/    time rows 12 * chunk_rows to 13 * chunk_rows - 1 of all E environments (chunk_rows: fields.json);
                   one file per field, an array [chunk_rows, E, ...]
saves/             one folder per save: save.json says which rows it has (first_row to end_row - 1, absolute times) and
                   their checksums; with storage "ram" also the latents of these rows, arrays [rows, E, ...]

Read a file without loading it:

    import numpy as np
    images = np.load("chunk-00000000/image.npy", mmap_mode="r")     # [chunk_rows, E, height, width, channels]

A row is what the agent knew and did at one time: observation, action chosen after seeing it, reward that arrived with
the observation, and the flags is_first, is_last and is_terminal. Rows are only ever appended. Rows at or after the
end_row of the newest save may be empty or unfinished. Rows before first_row are forgotten; their chunks are deleted
once no kept save needs them. With storage "ram" the chunks have no latents. With storage "disk" they have, and the
latents are rewritten in place during training. The rows in closed_rows (save.json) count as is_last although the file
says otherwise: there the run was interrupted and its environments could not be restored.
"""


def write_notes(folder: Path, fields: Sequence[Field], num_envs: int, chunk_rows: int, length: int) -> None:
    """Writes README.txt and fields.json into a replay folder.

    Raises:
        OSError: the disk is full or not writable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "README.txt", README)
    description = {
        "num_envs": num_envs,
        "chunk_rows": chunk_rows,
        "window_length": length,
        "fields": [field.to_json() for field in fields],
    }
    write_json(folder / "fields.json", description)
