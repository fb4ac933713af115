import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reverie.errors import ReverieError
from reverie.training.files import read_json, sha256, write_atomic, write_json


def test_write_atomic_creates_replaces_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "notes.txt"
    write_atomic(path, "grüße")
    assert path.read_bytes() == "grüße".encode()
    write_atomic(path, b"\x00\x01")
    assert path.read_bytes() == b"\x00\x01"
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_write_atomic_gives_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_text("x")
    write_atomic(tmp_path / "atomic", "x")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_failure_keeps_the_old_file_and_removes_the_temporary_one(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_file_size_limit_keeps_the_old_file(tmp_path):
    program = """
import resource, sys
from pathlib import Path
from reverie.training.files import write_atomic
path = Path(sys.argv[1])
write_atomic(path, b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(path, b"n" * 5000)
except OSError:
    print("refused")
"""
    path = tmp_path / "file"
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "refused"
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_json_round_trip_with_numpy_and_paths(tmp_path):
    path = tmp_path / "value.json"
    value = {"count": np.int64(3), "mean": np.float32(0.5), "list": np.arange(2), "folder": Path("a/b"), "pair": (1, 2)}
    write_json(path, value)
    assert read_json(path) == {"count": 3, "mean": 0.5, "list": [0, 1], "folder": "a/b", "pair": [1, 2]}


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"x": np.array([np.nan])}, object()])
def test_write_json_refuses_what_json_cannot_hold(tmp_path, value):
    with pytest.raises(ReverieError, match="finite"):
        write_json(tmp_path / "value.json", value)
    assert os.listdir(tmp_path) == []


def test_read_json_names_the_problem(tmp_path):
    with pytest.raises(ReverieError, match="no file"):
        read_json(tmp_path / "absent.json")
    (tmp_path / "torn.json").write_text('{"a": 1')
    with pytest.raises(ReverieError, match="valid JSON"):
        read_json(tmp_path / "torn.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ReverieError, match="valid JSON"):
        read_json(tmp_path / "binary.json")


def test_sha256(tmp_path):
    data = json.dumps(list(range(1000))).encode()
    (tmp_path / "data").write_bytes(data)
    assert sha256(tmp_path / "data") == hashlib.sha256(data).hexdigest()
