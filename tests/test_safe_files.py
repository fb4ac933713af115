"""The rules by which files are read, written and deleted."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from reverie.errors import CheckpointError, RunFolderError
from reverie.replay.files import map_array
from reverie.safe_files import (
    COUNT,
    FLAG,
    NUMBER,
    TEXT,
    check_shape,
    open_regular,
    optional,
    parse_json,
    read_bytes,
    refuse_links,
    remove_folder,
    replacing,
    sweep,
)
from reverie.tensor_files import compare_shapes, load_tensors, read_tensors, save_tensors


def strange(path, kind):
    """Puts something in the place of a file."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"link": "/etc/hostname", "device": "/dev/zero", "broken": "nothing", "loop": path.name}[kind])


KINDS = ["link", "device", "broken", "loop", "pipe", "folder"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR | os.O_CREAT], ids=["read", "write"])
def test_only_regular_files_are_opened(tmp_path, kind, flags):
    strange(tmp_path / "file", kind)
    with pytest.raises(CheckpointError, match="expected a regular file"):
        open_regular(tmp_path / "file", flags)


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_a_folder_with_a_way_out_is_refused_wherever_that_is(tmp_path, kind):
    inner = tmp_path / "run" / "a" / ".b"
    inner.mkdir(parents=True)
    (tmp_path / "run" / "file").write_text("")
    (tmp_path / "link to the run").symlink_to(tmp_path / "run")
    for folder in (tmp_path / "run", tmp_path / "link to the run", tmp_path / "missing"):
        refuse_links(folder)
    strange(inner / "c", kind)
    for folder in (tmp_path / "run", tmp_path / "link to the run"):
        with pytest.raises(RunFolderError, match=re.escape(str(folder / "a" / ".b" / "c"))):
            refuse_links(folder)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 65 + "1" + "}" * 65,
        "NaN",
        '{"a": Infinity}',
        "",
        "{",
        '"' + "[" * 99,
        "1" * 5000,
        "\xff",
    ],
)
def test_json_that_nobody_should_write_is_refused(text):
    with pytest.raises(CheckpointError, match="^the file does not hold valid JSON"):
        parse_json(text.encode("latin-1"), "the file")


def test_brackets_in_texts_are_no_depth():
    value = ["[" * 200, '\\"[{' * 200, {"a\\": ["b"]}]
    assert parse_json(json.dumps(value).encode(), "file") == value
    assert parse_json(("[" * 64 + "]" * 64).encode(), "file")


def test_length_is_checked_before_a_file_is_read(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(CheckpointError, match="has more than"):
        read_bytes(tmp_path / "file")


SHAPE = {"steps": COUNT, "best": optional(NUMBER), "inner?": {"names": [TEXT]}, "on?": FLAG}


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ([], "content"),
        ({"best": 1}, "steps"),
        ({"steps": True, "best": 1}, "steps"),
        ({"steps": 1.0, "best": 1}, "steps"),
        ({"steps": -1, "best": 1}, "steps"),
        ({"steps": 10**30, "best": 1}, "steps"),
        ({"steps": 1, "best": "1"}, "best"),
        ({"steps": 1, "best": float("inf")}, "best"),
        ({"steps": 1, "best": None, "inner": None}, "inner"),
        ({"steps": 1, "best": None, "inner": {}}, "inner.names"),
        ({"steps": 1, "best": None, "inner": {"names": {"a": 1}}}, "inner.names"),
        ({"steps": 1, "best": None, "inner": {"names": ["a", 1]}}, "inner.names\\[1\\]"),
        ({"steps": 1, "best": None, "on": "no"}, "on"),
    ],
)
def test_values_of_the_wrong_kind_are_named(value, key):
    with pytest.raises(CheckpointError, match=f"^file.json is damaged: .*{key}"):
        check_shape(value, SHAPE, "file.json")


def test_values_of_the_right_kind_pass():
    check_shape({"steps": 0, "best": None, "more": 1}, SHAPE, "file")
    check_shape({"steps": 3, "best": -1.5, "inner": {"names": []}, "on": True}, SHAPE, "file")


def test_a_new_file_has_the_usual_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        save_tensors({"a": torch.ones(2)}, tmp_path / "a.safetensors")
        (tmp_path / "usual").write_text("")
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_replacing_replaces_a_link_and_does_not_follow_it(tmp_path):
    (tmp_path / "outside").write_text("mine")
    (tmp_path / "file").symlink_to(tmp_path / "outside")
    with replacing(tmp_path / "file") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "outside").read_text() == "mine" and not (tmp_path / "file").is_symlink()


KILLED = """
import os, sys
from pathlib import Path
from reverie.safe_files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    if sys.argv[2] == "killed":
        os._exit(9)
    print("writing", flush=True)
    sys.stdin.readline()
"""


def test_what_a_kill_leaves_is_swept_by_the_next_writer_and_what_is_being_written_is_not(tmp_path):
    path, other = tmp_path / "video.mp4", tmp_path / ".other.mp4.1.0123abcd.tmp"
    other.write_text("of another name")
    subprocess.run([sys.executable, "-c", KILLED, str(path), "killed"], check=False, timeout=60)
    assert len(list(tmp_path.iterdir())) == 2 and not path.exists()
    alive = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path), "alive"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert alive.stdout.readline() == "writing\n"
    with replacing(path) as temporary:
        temporary.write_text("whole")
    assert len(list(tmp_path.iterdir())) == 3, "video, the one that is being written, and the other name"
    alive.communicate("end\n", timeout=60)
    assert alive.returncode == 0 and path.read_text() == "half"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [other.name, "video.mp4"]
    sweep(tmp_path, re.compile("other.mp4"))
    assert not other.exists()


def test_only_our_own_files_are_deleted_from_a_folder(tmp_path):
    folder = tmp_path / "chunk"
    folder.mkdir()
    for name in ("a.npy", "notes.txt", ".a.npy.1.0123abcd.tmp"):
        (folder / name).write_text("")
    (folder / "b.npy").symlink_to(tmp_path)
    remove_folder(folder, re.compile(r".\.npy"))
    assert sorted(entry.name for entry in folder.iterdir()) == ["b.npy", "notes.txt"]
    (folder / "b.npy").unlink()
    (folder / "notes.txt").unlink()
    (tmp_path / "link").symlink_to(folder)
    remove_folder(tmp_path / "link", re.compile(".*"))
    assert folder.is_dir()
    remove_folder(folder, re.compile(".*"))
    assert not folder.exists()


# ---------------------------------------------------------------- tensors and arrays


def test_tensors_of_every_type_come_back_in_our_reader_and_in_the_library(tmp_path):
    from safetensors.torch import load_file

    types = [torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.uint8, torch.bool]
    tensors = {f"of {dtype}": torch.arange(3).to(dtype) for dtype in types}
    tensors |= {"none": torch.zeros(0, 4), "scalar": torch.tensor(2.5), "turned": torch.ones(2, 3).T}
    save_tensors(tensors, tmp_path / "a.safetensors", {"note": "text"})
    for read in (read_tensors, load_file):
        found = read(tmp_path / "a.safetensors")
        assert found.keys() == tensors.keys()
        assert all(
            torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in tensors.items()
        )


def test_shapes_are_compared_before_tensors_are_read(tmp_path):
    path = tmp_path / "a.safetensors"
    save_tensors({"w": torch.ones(2, 3)}, path)
    compare_shapes({"w": torch.empty(2, 3, device="meta")}, path)
    for other in (
        {"w": torch.empty(10**6, 10**6, device="meta")},
        {"v": torch.empty(2, 3)},
        {"w": torch.empty(2, 3).double()},
    ):
        with pytest.raises(CheckpointError, match="another configuration"):
            compare_shapes(other, path)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    save_tensors({"w": torch.tensor([1.0, torch.nan])}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="w is not finite"):
        load_tensors({"w": torch.zeros(2)}, tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "header",
    [
        {"w": {"dtype": "F32", "shape": [10**10], "data_offsets": [0, 4 * 10**10]}},
        {"w": {"dtype": "F99", "shape": [1], "data_offsets": [0, 8]}},
        {"w": {"dtype": "F32", "shape": "x", "data_offsets": [0, 8]}},
        {"w": 3},
        [],
        {f"w{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(10**5)},
    ],
    ids=["size", "type", "shape", "entry", "list", "many"],
)
def test_hostile_headers_are_refused(tmp_path, header):
    text = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(CheckpointError, match="a.safetensors"):
        read_tensors(tmp_path / "a.safetensors")


def test_an_array_is_mapped_only_if_it_is_what_is_expected(tmp_path):
    path, kind = tmp_path / "a.npy", np.dtype(np.float32)
    np.save(path, np.ones((3, 2), np.float32))
    assert map_array(path, (None, 2), kind).shape == (3, 2)
    for shape, dtype in (((3, None, 1), kind), ((2, 2), kind), ((3, 2), np.dtype(np.float64))):
        with pytest.raises(CheckpointError, match="a.npy is damaged"):
            map_array(path, shape, dtype)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="a.npy is damaged"):
        map_array(path, (3, 2), kind)
