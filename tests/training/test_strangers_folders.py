"""Folders that somebody else has made, and kills, moves and races that a user's own folder lives through."""

import errno
import hashlib
import json
import os
import shutil
import subprocess

import gymnasium
import pytest
import torch
from run_helpers import PYTHON, Walk, checkpoints, content, expect_sentence, train, words

import reverie
from reverie.cli.main import main
from reverie.errors import CheckpointError, RunFolderError
from reverie.tensor_files import read_tensors
from reverie.training import model_files, trainer
from reverie.training.checkpoint import Checkpoints

OPTIONS = {"evaluate_every": 150, "steps": 320}


def sign(folder):
    """Makes the manifest of a checkpoint right again."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["files"]:
        data = (folder / name).read_bytes()
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


# ---------------------------------------------------------------- nothing outside is touched

PLACES = ["checkpoints/best", "checkpoints", "replay/saves", "replay/chunk-00000000/reward.npy", "metrics.jsonl"]
PLACES += ["tensorboard", "videos", "scores.json", "config.json", ".lock", "replay/README.txt.writing", "notes"]


@pytest.mark.parametrize("place", PLACES)
def test_a_link_in_a_run_folder_is_named_and_not_followed(copied_run, tmp_path, capsys, place):
    outside, path = tmp_path / "documents", copied_run / place
    outside.mkdir()
    for name in (".bashrc", "000000000001", "000001-x"):
        (outside / name).write_text("mine")
    (outside / "000001-old").mkdir()
    (outside / "000001-old" / "thesis").write_text("mine")
    before = content(outside)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(outside if "." not in place[1:] else outside / ".bashrc")
    for line in (None, ["evaluate", str(copied_run), "--episodes", "1"]):
        code = train(copied_run, **OPTIONS) if line is None else main(line)
        expect_sentence(capsys, code, str(path), "link")
        assert content(outside) == before and path.is_symlink()


def test_the_run_folder_itself_may_be_a_link(copied_run, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(copied_run)
    assert train(link, **{**OPTIONS, "steps": 300}) == 0


def test_only_our_own_names_are_deleted(copied_run):
    best, saves = copied_run / "checkpoints" / "best", copied_run / "replay" / "saves"
    kept = [best / ".git" / "HEAD", best / ".gitattributes", saves / "000009-mine" / "thesis.txt"]
    kept += [copied_run / "checkpoints" / "12" / "notes", copied_run / "checkpoints" / ".partial-mine" / "notes"]
    kept += [copied_run / ".config.json.1.0123abcd.tmp" / "notes", copied_run / "replay" / "chunk-00000000" / "notes"]
    swept = [copied_run / ".config.json.1.0123abcf.tmp", best / ".model.safetensors.2.0123abcd.tmp"]
    swept += [best / ".model.safetensors.partial", copied_run / "videos" / ".open_loop_000000300.mp4.3.0123abcd.tmp"]
    swept += [copied_run / "videos" / ".partial" / "open_loop_000000300.mp4"]
    for path in (*kept, *swept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    assert train(copied_run, **{**OPTIONS, "evaluation_episodes": 1}) == 0
    assert [path for path in kept if not path.exists()] == []
    assert [path for path in swept if path.exists()] == []


# ---------------------------------------------------------------- values

STATES = [
    ("env_steps", "x"),
    ("best", []),
    ("updater.credit", 1e12),
    ("updater.updates", True),
    ("collector", {}),
    ("collector.episode_index", [0]),
    ("collector.finished", [["a", 1]]),
    ("metrics.seconds", None),
    ("replay", 3),
    ("replay.chunk_rows", 2**61),
]


@pytest.mark.parametrize(("key", "value"), STATES, ids=[key for key, _ in STATES])
def test_wrong_values_in_a_checkpoint_that_is_signed_are_refused(copied_run, capsys, key, value):
    folder = copied_run / "checkpoints" / checkpoints(copied_run)[-1]
    state = json.loads((folder / "state.json").read_text())
    *inner, last = key.split(".")
    place = state
    for name in inner:
        place = place[name]
    place[last] = value
    (folder / "state.json").write_text(json.dumps(state))
    sign(folder)
    before = content(copied_run / "checkpoints")
    expect_sentence(capsys, train(copied_run, **OPTIONS), "checkpoint")
    assert content(copied_run / "checkpoints") == before


DESCRIPTIONS = [
    ("agent", 3),
    ("agent_config", []),
    ("agent_config.units", 10**5),
    ("agent_config.variables", 10**7),
    ("agent_config.units", "16"),
    ("environment.pixels", "no"),
    ("environment.kwargs", []),
    ("environment.image_size", "x"),
    ("interface.observations", [{"name": "x"}]),
    ("interface.actions", [{"name": "a", "kind": "discrete", "size": 1, "classes": [10**9]}]),
    ("settings.num_envs", "4"),
    ("seed", None),
]


@pytest.mark.parametrize(("key", "value"), DESCRIPTIONS, ids=[f"{key}={value}"[:40] for key, value in DESCRIPTIONS])
def test_wrong_values_in_a_configuration_are_refused_before_memory_is_taken(copied_run, capsys, key, value):
    path = copied_run / "config.json"
    data = json.loads(path.read_text())
    *inner, last = key.split(".")
    place = data
    for name in inner:
        place = place[name]
    place[last] = value
    path.write_text(json.dumps(data))
    expect_sentence(capsys, main(["evaluate", str(copied_run), "--episodes", "1"]), str(path))


@pytest.mark.parametrize("kind", ["deep", "pipe", "device", "long"])
@pytest.mark.parametrize("file", ["config.json", "scores.json", "metrics.jsonl"])
def test_plot_says_what_is_wrong_with_a_file(copied_run, tmp_path, capsys, file, kind):
    path = copied_run / file
    path.unlink()
    if kind == "deep":
        path.write_text("[" * 200_000 + "\n{}\n")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as opened:
            opened.truncate(10**10)
    expect_sentence(capsys, main(["plot", str(copied_run), "--output", str(tmp_path / "a.png")]), file)


# ---------------------------------------------------------------- kills and races


class Killed(BaseException):
    """Ends the writing as a kill would: nothing is tidied up."""


@pytest.fixture
def two_agents(copied_run):
    """Two agents of one run with different weights: the best, and the newest with one number changed."""
    old, new = (reverie.load(copied_run, device="cpu") for _ in range(2))
    with torch.no_grad():
        next(iter(new.agent.parameters())).add_(1.0)
    new._updates = 77
    return old, new


@pytest.mark.parametrize("kill_at", range(1, 6))
def test_a_kill_while_an_agent_is_saved_leaves_the_old_or_the_new_one(two_agents, tmp_path, monkeypatch, kill_at):
    old, new = two_agents
    old.save(tmp_path / "saved")
    calls = []

    def killed(function):
        def call(*arguments, **options):
            calls.append(function)
            if len(calls) == kill_at:
                raise Killed
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed(os.replace))
        patch.setattr(os, "fsync", killed(os.fsync))
        with pytest.raises(Killed):
            new.save(tmp_path / "saved")
    found = reverie.load(tmp_path / "saved", device="cpu")
    expected = new if found._updates == 77 else old
    for name, value in expected.agent.state_dict().items():
        assert torch.equal(value, found.agent.state_dict()[name]), name
    assert (found._updates == 77) == (kill_at > 2)


def test_a_command_that_names_a_checkpoint_can_be_repeated_until_the_run_is_complete(copied_run, capsys):
    older = checkpoints(copied_run)[0]
    options = {"evaluate_every": 40, "evaluation_episodes": 1, "checkpoint": older.lstrip("0")}
    assert train(copied_run, **options, steps=240) == 0  # stands for a kill after several checkpoints
    reached = checkpoints(copied_run)
    assert older not in reached
    assert train(copied_run, **options, steps=320) == 0
    assert int(checkpoints(copied_run)[-1]) >= 320
    before = content(copied_run / "checkpoints")
    assert train(copied_run, **options, steps=320) == 0
    assert content(copied_run / "checkpoints") == before


@pytest.mark.parametrize(("name", "parts"), [("best", ["weights alone"]), ("../x", []), ("²", []), ("x", [])])
def test_a_checkpoint_that_no_run_has_is_refused(copied_run, capsys, name, parts):
    expect_sentence(
        capsys, train(copied_run, checkpoint=name, **OPTIONS), repr(name), checkpoints(copied_run)[-1], *parts
    )


def test_a_reader_that_loses_a_race_with_pruning_looks_again(copied_run, monkeypatch):
    real, newest, calls = model_files.find_weights, checkpoints(copied_run)[-1], []

    def found(path, checkpoint="best"):
        calls.append(checkpoint)
        weights = real(path, checkpoint)
        return weights if len(calls) > 1 else weights.parent.with_name("000000000001") / weights.name

    monkeypatch.setattr(model_files, "find_weights", found)
    agent = reverie.load(copied_run, checkpoint="latest", device="cpu").agent
    weights = read_tensors(copied_run / "checkpoints" / newest / "agent.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in agent.state_dict().items())
    assert calls.count("latest") == 2


def test_files_that_are_swept_are_exact(tmp_path):
    store = Checkpoints(tmp_path, "print")
    store.write(3, {"agent": {"w": torch.zeros(1)}}, {})
    with pytest.raises(CheckpointError, match="no checkpoint 000000000009"):
        store.read("000000000009", lambda state: None)
    assert store.choose("3") == "000000000003" and store.choose(None) == "000000000003"


# ---------------------------------------------------------------- surroundings


class Wanderer(Walk):
    """Changes the working directory."""

    def reset(self, *, seed=None, options=None):
        os.chdir("/")
        return super().reset(seed=seed)


if "RunTestWanderer-v0" not in gymnasium.registry:
    gymnasium.register(id="RunTestWanderer-v0", entry_point=f"{__name__}:Wanderer")


def test_an_environment_may_change_the_working_directory(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = {"env": "RunTestWanderer-v0", "steps": 60, "vectorization": "in-process", "evaluation_episodes": 1}
    assert train("runs/a[/b]", **options) == 0
    assert "run folder        runs/a[/b]" in capsys.readouterr().out
    assert (tmp_path / "runs" / "a[/b]" / "learning_curve.png").exists()


def test_brackets_in_the_name_of_a_folder_are_no_markup(copied_run, capsys):
    folder = copied_run.parent / "a[bold]b[" / "x[" / "y]"
    folder.parent.mkdir(parents=True)
    copied_run.rename(folder)
    assert main([word for word in words(folder, evaluate_every=150) if word != "--quiet"]) == 0
    printed = capsys.readouterr()
    assert f"run folder {folder}" in printed.err and f"run folder        {folder}" in printed.out


def test_output_that_knows_no_other_letters_than_ascii(copied_run):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"}
    line = [PYTHON, "-m", "reverie.cli.main", "evaluate", copied_run, "--episodes", "1", "--device", "cpu"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "mean return" in done.stdout and "?" in done.stdout


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EFBIG, True), (errno.EIO, False)]
)
def test_space_is_asked_for_only_where_it_lacks(tmp_path, number, advice):
    error = trainer._unwritable(tmp_path, OSError(number, os.strerror(number)))
    assert isinstance(error, RunFolderError) and ("free some space" in str(error)) is advice
    assert os.strerror(number) in str(error)
