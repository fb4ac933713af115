"""A disk that is full, and folders that cannot be written."""

import errno
import os
import shutil
import subprocess

import pytest
from run_helpers import content, expect_sentence, train

from reverie.training import checkpoint


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("free", [0, 40_000, 200_000])
def test_a_full_disk_ends_the_run_with_a_sentence_and_it_goes_on_later(small_disk, finished_run, capfd, free):
    run = small_disk / "run"
    shutil.copytree(finished_run, run)
    filler = small_disk / "filler"
    status = os.statvfs(small_disk)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_bsize - free)
    options = {"steps": 320, "evaluate_every": 150}
    capfd.readouterr()
    expect_sentence(capfd, train(run, **options), str(run), "No space left", "repeat the command")
    filler.unlink()
    assert train(run, **options) == 0


def test_a_disk_that_is_full_from_the_beginning(small_disk, capfd):
    with (small_disk / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, os.statvfs(small_disk).f_bavail * 4096)
    expect_sentence(capfd, train(small_disk / "run"), "run", "No space left")


def test_a_full_disk_during_a_checkpoint_leaves_the_last_one(tmp_path, monkeypatch, capsys):
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert train(whole, steps=120) == 0
    assert train(run, steps=60, log_every=60, evaluate_every=100) == 0
    shutil.rmtree(run)
    assert train(run, steps=60) == 0
    before = content(run / "checkpoints")
    save = checkpoint.save_tensors

    def full(tensors, path):
        if path.name == "optimizer.safetensors":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_tensors", full)
        expect_sentence(capsys, train(run, steps=120), "No space left", "the last checkpoint is whole")
    kept = content(run / "checkpoints")
    assert {path: kept[path] for path in before if "best" not in path.parts} == {
        path: data for path, data in before.items() if "best" not in path.parts
    }
    assert train(run, steps=120) == 0


@pytest.mark.parametrize("where", ["/proc/run", "file/run"])
def test_a_folder_that_cannot_be_made(tmp_path, capsys, where):
    (tmp_path / "file").write_text("")
    expect_sentence(capsys, train(tmp_path / where), where, "cannot be written", "--run")


def test_safetensors_reports_a_full_disk_as_such(small_disk):
    import torch

    with pytest.raises(OSError, match="space"):
        checkpoint.save_tensors({"w": torch.zeros(2_000_000)}, small_disk / "w.safetensors")
