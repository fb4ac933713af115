"""Checkpoints that are damaged, half written, or of another run."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from run_helpers import checkpoints, content, expect_sentence, metrics, train

from reverie.cli.main import main
from reverie.errors import CheckpointError
from reverie.training.checkpoint import Checkpoints

OPTIONS = {"evaluate_every": 150, "steps": 320}
BRIEFLY = {"evaluate_every": 150, "steps": 156, "evaluation_episodes": 1}


def truncate(path):
    path.write_bytes(path.read_bytes()[:-9])


def flip(path, where=-5):
    data = bytearray(path.read_bytes())
    data[where] ^= 64
    path.write_bytes(bytes(data))


def remove(path):
    path.unlink()


FILES = ["agent.safetensors", "optimizer.safetensors", "loop.safetensors", "state.json", "manifest.json"]
CASES = [(file, harm) for file in FILES for harm in (truncate, flip, remove)]


@pytest.mark.parametrize(("file", "harm"), CASES, ids=lambda case: getattr(case, "__name__", case))
def test_damage_is_named_and_the_checkpoint_before_is_offered(copied_run, capsys, file, harm):
    older, newest = checkpoints(copied_run)
    harm(copied_run / "checkpoints" / newest / file)
    before = content(copied_run / "checkpoints")
    named = file if file != "manifest.json" or harm is not flip else newest
    expect_sentence(capsys, train(copied_run, **OPTIONS), newest, named, f"--checkpoint {older}")
    assert content(copied_run / "checkpoints") == before


def test_the_checkpoint_that_is_offered_goes_on(copied_run, finished_run):
    older, newest = checkpoints(copied_run)
    truncate(copied_run / "checkpoints" / newest / "agent.safetensors")
    again = {**OPTIONS, "steps": 300}
    assert train(copied_run, checkpoint=older.lstrip("0"), **again) == 0
    assert metrics(copied_run) == metrics(finished_run)


def test_without_a_whole_checkpoint_another_folder_is_offered(copied_run, capsys):
    for name in checkpoints(copied_run):
        remove(copied_run / "checkpoints" / name / "state.json")
    expect_sentence(
        capsys, train(copied_run, **OPTIONS), "state.json is missing", "no other checkpoint is whole", "--run"
    )


def test_a_checkpoint_that_is_not_there_is_refused(copied_run, capsys):
    older, newest = checkpoints(copied_run)
    expect_sentence(capsys, train(copied_run, checkpoint="77", **OPTIONS), "000000000077", f"--checkpoint {newest}")


def test_a_checkpoint_of_another_configuration_is_refused(copied_run, tmp_path, capsys):
    other = tmp_path / "other"
    assert train(other, steps=60, horizon=2, evaluate_every=0) == 0
    name = checkpoints(other)[-1]
    shutil.copytree(other / "checkpoints" / name, copied_run / "checkpoints" / "000000000999")
    newest = checkpoints(copied_run)[-2]
    expect_sentence(capsys, train(copied_run, **OPTIONS), "another configuration", f"--checkpoint {newest}")


@pytest.mark.parametrize("file", ["deterministic.npy", "stochastic.npy"])
@pytest.mark.parametrize("harm", [truncate, flip, remove])
def test_damaged_latents_of_the_replay_are_named_and_the_checkpoint_before_is_offered(copied_run, capsys, file, harm):
    older, newest = checkpoints(copied_run)
    (save,) = (copied_run / "replay" / "saves").glob(f"*-{newest}")
    harm(save / file)
    expect_sentence(capsys, train(copied_run, **OPTIONS), str(save / file), f"--checkpoint {older}")
    assert train(copied_run, checkpoint=older, **BRIEFLY) == 0


@pytest.mark.parametrize("harm", [truncate, flip, remove])
def test_damaged_experience_is_named_and_a_whole_checkpoint_is_offered_if_there_is_one(copied_run, capsys, harm):
    older, newest = checkpoints(copied_run)
    rows = copied_run / "replay" / "chunk-00000000" / "reward.npy"
    if harm is flip:
        manifest = json.loads((copied_run / "checkpoints" / newest / "state.json").read_text())["replay"]
        flip(rows, 128 + (manifest["end_row"] - 1) * 16)  # a header of 128 bytes, rows of 4 rewards of 4 bytes
        expect_sentence(capsys, train(copied_run, **OPTIONS), str(rows), f"--checkpoint {older}")
        assert train(copied_run, checkpoint=older, **BRIEFLY) == 0
    else:
        harm(rows)
        expect_sentence(capsys, train(copied_run, **OPTIONS), str(rows), "no other checkpoint is whole")


def test_a_damaged_configuration_file_is_named(copied_run, capsys):
    truncate(copied_run / "config.json")
    expect_sentence(capsys, train(copied_run, **OPTIONS), "config.json")
    (copied_run / "config.json").write_text("[]")
    expect_sentence(capsys, train(copied_run, **OPTIONS), "config.json")


class Killed(BaseException):
    """Ends the writing as a kill would: nothing is tidied up."""


@pytest.mark.parametrize("rename", [1, 2])
def test_a_kill_while_a_checkpoint_is_replaced_loses_neither(tmp_path, monkeypatch, rename):
    store = Checkpoints(tmp_path, "print")
    store.write(5, {"agent": {"w": torch.zeros(2)}}, {"version": "old"})
    calls = []
    real = type(tmp_path).rename

    def killed(self, target):
        calls.append(target)
        if len(calls) == rename:
            raise Killed
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "rename", killed)
        patch.setattr(Checkpoints, "recover", lambda self: None)
        with pytest.raises(Killed):
            store.write(5, {"agent": {"w": torch.ones(2)}}, {"version": "new"})
    again = Checkpoints(tmp_path, "print")
    again.recover()
    assert again.names() == ["000000000005"]
    _, state = again.read("000000000005", lambda state: None)
    assert state == {"version": "old"}
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["000000000005"]


def test_only_the_newest_two_are_kept(tmp_path):
    store = Checkpoints(tmp_path, "print")
    for steps in (1, 20, 300):
        store.write(steps, {}, {})
        store.forget_old()
    assert store.names() == ["000000000020", "000000000300"]
    store.forget_after("000000000020")
    assert store.names() == ["000000000020"]


def test_what_restore_refuses_is_no_checkpoint_to_offer(tmp_path):
    store = Checkpoints(tmp_path, "print")
    for steps in (1, 2, 3):
        store.write(steps, {}, {"steps": steps})

    def restore(state):
        if state["steps"] > 1:
            raise CheckpointError("the rows are gone.")

    with pytest.raises(CheckpointError, match="the rows are gone; checkpoint 000000000001 is whole"):
        store.read("000000000003", restore)


@pytest.mark.parametrize(("checkpoint", "file"), [("best", "model"), ("latest", "agent")])
@pytest.mark.parametrize("harm", [truncate, flip, remove])
def test_damaged_weights_are_not_played_with(copied_run, capsys, checkpoint, file, harm):
    folder = "best" if checkpoint == "best" else checkpoints(copied_run)[-1]
    path = copied_run / "checkpoints" / folder / f"{file}.safetensors"
    harm(path)
    sentence = expect_sentence(
        capsys, main(["evaluate", str(copied_run), "--checkpoint", checkpoint, "--episodes", "1"]), str(path)
    )
    other = sentence.rpartition("--checkpoint ")[2]
    assert main(["evaluate", str(copied_run), "--checkpoint", other, "--episodes", "1"]) == 0


def test_a_lost_configuration_is_in_the_best_checkpoint(copied_run, capsys):
    config = copied_run / "config.json"
    for harm in ("{", None):
        config.unlink() if harm is None else config.write_text(harm)
        sentence = expect_sentence(capsys, train(copied_run, evaluate_every=150, videos=True), "over it")
        copy = Path(sentence.partition("; copy ")[2].partition(" over it")[0])
        shutil.copy(copy, config)
        assert train(copied_run, evaluate_every=150, videos=True) == 0
        capsys.readouterr()
