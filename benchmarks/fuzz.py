"""Breaks the files of runs and saved agents, and the arguments of commands and of Python calls, at random.

Whatever is in a folder that somebody else has made, and whatever is typed, a command ends with its result or with one
sentence and exit code 2. It never ends with a traceback, never hangs, and changes nothing outside the folder.

    python benchmarks/fuzz.py --minutes 60

prints how many tries there were of each kind, and each that went wrong with the seed that repeats it. The tests make
the same tries for half a minute (`tests/test_fuzz.py`).
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import reverie
from reverie.cli.main import main
from reverie.errors import ReverieError
from reverie.tensor_files import read_tensors, save_tensors

SECONDS = 120.0
"""A try that takes longer hangs; the usual ones take a second or two."""
TINY = {
    "preset": "paper",
    "size": "100k",
    "deterministic": 16,
    "hidden": 8,
    "units": 8,
    "variables": 2,
    "classes": 4,
    "batch_size": 2,
    "batch_length": 8,
    "horizon": 3,
    "warmup_steps": 30,
    "replay_ratio": 2,
    "num_envs": 2,
    "threads": 1,
    "log_every": 20,
    "evaluate_every": 40,
    "evaluation_episodes": 1,
    "device": "cpu",
}
STAGES = {
    "preset": "paper",
    "num_envs": 2,
    "threads": 1,
    "vectorization": "in-process",
    "latent": 2,
    "memory_units": 4,
    "collect_episodes": 3,
    "vision_batch": 20,
    "memory_updates": 2,
    "memory_batch": 2,
    "memory_length": 10,
    "population": 4,
    "rollouts": 1,
    "dream_horizon": 3,
    "evaluate_every": 1,
    "evaluation_episodes": 1,
    "device": "cpu",
}
DEEP = "[" * 100_000
VALUES: list[Any] = [None, True, -1, 0, 1.5, 10**18, 2**64, 10**400, 1e308, "x", "", "../../x", [], {}, [[]], ["x"]]
CHECKPOINTS = ["best", "0", "x", "../..", "9" * 30]
NUMBERS = ["-1", "0", "1", "nan", "inf", "1e400", str(10**18), str(2**64), "x", ""]


class Hang(BaseException):
    """A try took too long. Not an error, so that nothing that handles errors handles it."""


@dataclass
class Report:
    """What came of all tries.

    Attributes:
        tries: kind of try -> how many there were.
        wrong: each that did not end as it should, as text.
    """

    tries: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Originals:
    """Whole folders, of which every try breaks a copy, and a folder that nothing may change.

    Attributes:
        home: holds all of them.
        run: of DreamerV3 on CartPole-v1, with two checkpoints.
        saved: an agent that was saved.
        staged: a run of World Models.
        outside: somebody's documents.
    """

    home: Path
    run: Path
    saved: Path
    staged: Path
    outside: Path


def make_originals(home: Path) -> Originals:
    """Trains the smallest runs that have every file, unless they are there already."""
    made = Originals(home, home / "run", home / "saved", home / "staged", home / "outside")
    if made.outside.exists():
        return made
    assert main(train_line(made.run, steps=70)) == 0
    assert main(stages_line(made.staged, generations=1)) == 0
    reverie.load(made.run, device="cpu").save(made.saved)
    made.outside.mkdir()
    for name in ("letter.txt", ".profile", "config.json", "000000000001", "reward.npy"):
        (made.outside / name).write_text("years of work\n")
    (made.outside / "000001-000000000070").mkdir()
    (made.outside / "000001-000000000070" / "thesis.txt").write_text("years of work\n")
    return made


def train_line(run: Path | str, steps: int) -> list[str]:
    """The command of the run, to begin it or to resume it."""
    line = ["train", "dreamer-v3", "--env", "CartPole-v1", "--run", str(run), "--no-videos", "--quiet"]
    return [*line, *_words({**TINY, "steps": steps})]


def stages_line(run: Path, generations: int) -> list[str]:
    """The same for World Models."""
    line = ["train", "world-models", "--env", "reverie/CatchPixels-v0", "--run", str(run), "--quiet"]
    return [*line, *_words({**STAGES, "generations": generations})]


def _words(options: dict[str, Any]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def content(folder: Path) -> str:
    """A checksum of names, kinds, times and bytes below a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        digest.update(f"{path.relative_to(folder)} {status.st_mode} {status.st_mtime_ns}\n".encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


# ---------------------------------------------------------------- breaking files


def break_something(folder: Path, outside: Path, chance: random.Random) -> str:
    """Breaks one thing in a folder and says what."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    path = chance.choice(paths)
    ways: list[Callable[[Path, Path, random.Random], str]] = [break_bytes, break_kind]
    if path.suffix in (".json", ".jsonl", ".rows"):
        ways += [break_json] * 4
    if path.suffix == ".safetensors":
        ways += [break_tensors] * 3
    if path.suffix == ".npy":
        ways += [break_array] * 2
    if chance.random() < 0.15:
        path = chance.choice(sorted(entry for entry in folder.rglob("*") if entry.is_dir()) or [path])
        ways = [break_kind]
    if chance.random() < 0.08:
        return plant(path.parent if path.is_file() else path, outside, chance)
    return f"{path.relative_to(folder)}: {chance.choice(ways)(path, outside, chance)}"


def break_bytes(path: Path, outside: Path, chance: random.Random) -> str:
    """Cuts, lengthens or flips."""
    data = bytearray(path.read_bytes())
    way = chance.choice(["empty", "cut", "longer", "flipped", "start flipped", "noise"])
    if way == "empty":
        data.clear()
    elif way == "cut":
        del data[chance.randrange(len(data) + 1) :]
    elif way == "longer":
        data += chance.randbytes(chance.choice([1, 100, 5000]))
    elif way == "noise":
        data[:] = chance.randbytes(300)
    else:
        for _ in range(chance.choice([1, 8])) if data else ():
            data[chance.randrange(min(len(data), 200 if way == "start flipped" else len(data)))] ^= chance.randrange(
                256
            )
    path.write_bytes(data)
    sign_again(path, chance)
    return way


def break_kind(path: Path, outside: Path, chance: random.Random) -> str:
    """Puts a link, a pipe, a device, a folder, a file or nothing in the place of a file or folder."""
    ways = ["removed", "link", "link to a device", "link to itself", "pipe", "folder", "sparse"]
    way = chance.choice(ways[1:] if path.is_dir() else ways)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if way == "link":
        target = chance.choice(sorted(outside.rglob("*")))
        path.symlink_to(outside if chance.random() < 0.3 else target)
    elif way == "link to a device":
        path.symlink_to("/dev/zero")
    elif way == "link to itself":
        path.symlink_to(path.name)
    elif way == "pipe":
        os.mkfifo(path)
    elif way == "folder":
        path.mkdir()
    elif way == "sparse":
        with path.open("wb") as file:
            file.truncate(3 * 10**9)
    return way


def plant(folder: Path, outside: Path, chance: random.Random) -> str:
    """Adds an entry with a name that the library might take for its own, or for nobody's."""
    names = [".git", ".cache", ".config.json.1.0123abcd.tmp", ".replaced-000000000001", ".partial-000000000001", "12"]
    names += ["000000000001", "000001-x", "writing-000009-x", "chunk-00000000", "latents_9.npy", ".partial", "note[b]"]
    path = folder / chance.choice(names)
    if path.exists():
        return "nothing"
    kind = chance.choice(["link", "folder", "file"])
    if kind == "link":
        path.symlink_to(outside)
    elif kind == "folder":
        path.mkdir()
        (path / "mine.txt").write_text("years of work\n")
    else:
        path.write_text("years of work\n")
    return f"{path.name} planted as a {kind}"


def break_json(path: Path, outside: Path, chance: random.Random) -> str:
    """Changes, removes or adds one value, or nests too deeply."""
    if chance.random() < 0.1:
        path.write_text(chance.choice([DEEP, DEEP.replace("[", '{"a":'), "NaN", "[]", "{}", '"x"', "1" * 5000]))
        sign_again(path, chance)
        return "another value"
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    number = chance.randrange(len(lines))
    data = json.loads(lines[number])
    place, key = chance.choice(list(_places(data)) or [({"": data}, "")])
    if chance.random() < 0.25:
        del place[key]
        way = f"{key!r} removed"
    else:
        place[key] = chance.choice(VALUES)
        way = f"{key!r} = {str(place[key])[:30]!r}"
    lines[number] = json.dumps(data)
    path.write_text("\n".join(lines) + "\n")
    sign_again(path, chance)
    return way


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with every key or index in it."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in list(pairs):
        yield data, key
        yield from _places(value)


def break_tensors(path: Path, outside: Path, chance: random.Random) -> str:
    """Changes one tensor and signs the file again, as somebody would who means harm."""
    tensors = read_tensors(path)
    name = chance.choice(sorted(tensors))
    way = chance.choice(["missing", "nan", "shape", "type", "zero", "large", "more"])
    value = tensors.pop(name)
    if way == "nan":
        value = torch.full_like(value, torch.nan) if value.is_floating_point() else value
    elif way == "shape":
        value = value.reshape(-1)[:-1].clone()
    elif way == "type":
        value = value.double() if value.is_floating_point() else value.float()
    elif way == "zero":
        value = torch.zeros_like(value)
    elif way == "large":
        value = (torch.ones_like(value, dtype=torch.float64) * 1e30).to(value.dtype)
    elif way == "more":
        tensors |= {f"more{number}": torch.zeros(0) for number in range(2000)}
    if way != "missing":
        tensors[name] = value
    save_tensors(tensors, path)
    sign_again(path, chance, always=True)
    return f"{name} {way}"


def break_array(path: Path, outside: Path, chance: random.Random) -> str:
    """Writes an array of another shape, type or content."""
    array = np.load(path)
    way = chance.choice(["shape", "type", "content", "objects"])
    if way == "shape":
        array = array[:1]
    elif way == "type":
        array = array.astype(np.float64)
    elif way == "content":
        array = np.ones_like(array)
    else:
        array = np.array([None, "x"], dtype=object)
    np.save(path, array, allow_pickle=way == "objects")
    return way


def sign_again(path: Path, chance: random.Random, always: bool = False) -> None:
    """Puts the new checksum of a file of a checkpoint into its manifest, so that the content itself is looked at."""
    manifest = path.with_name("manifest.json")
    if path == manifest or not manifest.is_file() or (chance.random() < 0.2 and not always):
        return
    data = json.loads(manifest.read_text())
    data["files"][path.name] = {
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    manifest.write_text(json.dumps(data))


# ---------------------------------------------------------------- tries


def try_files(made: Originals, place: Path, chance: random.Random) -> tuple[str, Callable[[], Any]]:
    """A copy of a run or a saved agent with one thing broken, and a command for it."""
    kind = chance.choices(["run", "saved", "staged"], [6, 2, 2])[0]
    shutil.copytree(getattr(made, kind), place, symlinks=True)
    what = break_something(place, made.outside, chance)
    plots = ["plot", str(place), "--output", str(place.with_name("curve.png"))]
    lines = [
        ["evaluate", str(place), "--episodes", "1", "--episode-limit", "20", "--device", "cpu"],
        ["evaluate", str(place), "--episodes", "1", "--episode-limit", "20", "--checkpoint", "latest"],
        ["dream", str(place), "--sequences", "1", "--length", "4", "--device", "cpu"],
        plots,
    ]
    if kind == "run":
        lines = [train_line(place, steps=90)] * 4 + lines
    elif kind == "staged":
        lines = [stages_line(place, generations=2)] * 2 + lines[:2] + [plots]
    line = chance.choice(lines)
    return f"{kind}: {what}: {line[0]}", lambda: main(line)


def try_commands(made: Originals, place: Path, chance: random.Random) -> tuple[str, Callable[[], Any]]:
    """A command line with one or two odd words."""
    folders = ["a[/b]", "[bold]", "a b", "ä\udcff", "x" * 300, "-", "~", "a\nb"]
    run = str(place.with_name("runs")) + "/" + chance.choice(["plain", *folders])
    numbers = ["units", "hidden", "deterministic", "variables", "classes", "batch-size", "batch-length", "horizon"]
    numbers += ["blocks", "num-envs", "replay-capacity", "seed", "threads", "learning-rate", "discount-horizon"]
    numbers += ["log-every", "time-limit"]
    train = [*train_line(run, chance.choice([20, 40])), f"--{chance.choice(numbers)}", chance.choice(NUMBERS)]
    evaluate = ["evaluate", str(made.saved), "--episode-limit", "10"]
    dream = ["dream", str(made.saved), "--sequences", "1", "--length", "4"]
    output = ["--output", chance.choice(["", ".", "x.avi", "/proc/x.mp4", f"{place}/[b].mp4", str(made.saved)])]
    line = chance.choice(
        [
            train,
            train,
            [*evaluate, chance.choice(["--episodes", "--seed", "--episode-limit"]), chance.choice(NUMBERS)],
            [*dream, chance.choice(["--seed", "--length", "--sequences"]), chance.choice(NUMBERS)],
            [*dream, *output],
            ["plot", str(made.run), *output],
            ["plot", run, "--metric", chance.choice(["", "x", "loss/total"])],
            [chance.choice(["evaluate", "dream", "plot"]), run],
            ["evaluate", str(made.run), "--checkpoint", chance.choice(CHECKPOINTS)],
            [*train_line(place, 70), "--checkpoint", chance.choice(CHECKPOINTS)],
        ]
    )
    if "--checkpoint" in line and line[0] == "train":
        shutil.copytree(made.run, place)
    return f"command: {' '.join(line)[:300]!r}", lambda: main(line)


def try_calls(made: Originals, place: Path, chance: random.Random) -> tuple[str, Callable[[], Any]]:
    """A call of the Python interface with one value that is out of range or of a wrong type."""
    types: list[Any] = ["3", None, 1.5, b"x", [], True, np.int64(1)]
    number = chance.choice([-1, 0, 1, 10**18, 2**64, float("nan"), float("inf"), *types])
    whole = chance.choice([-1, 0, 1, 10**18, 2**64, *types])
    actions = chance.randrange(5)
    calls: list[tuple[str, Callable[[Any], Any]]] = [
        (f"evaluate(episodes={whole})", lambda agent: agent.evaluate(whole, episode_limit=5)),
        (f"evaluate(seed={whole})", lambda agent: agent.evaluate(1, seed=whole, episode_limit=5)),
        (f"dream(sequences={whole})", lambda agent: agent.dream(4, whole)),
        (f"dream(length={whole})", lambda agent: agent.dream(whole, 1)),
        (f"dream(seed={whole})", lambda agent: agent.dream(4, 1, seed=whole)),
        (f"dream_env({whole})", lambda agent: agent.dream_env(whole, starts=2)),
        (f"dream_env(starts={whole})", lambda agent: agent.dream_env(starts=whole)),
        (f"dream_env(context={whole})", lambda agent: agent.dream_env(starts=2, context=whole)),
        (f"dream_env(seed={whole})", lambda agent: agent.dream_env(starts=2, seed=whole)),
        (f"dream_env(temperature={number})", lambda agent: agent.dream_env(starts=2, temperature=number).reset()),
        (f"dream_env(2).step of {actions}", lambda agent: _odd_step(agent, actions)),
        (f"load(checkpoint={whole})", lambda agent: reverie.load(made.run, checkpoint=whole, device="cpu")),
        (f"DreamerV3(seed={whole})", lambda agent: reverie.DreamerV3("CartPole-v1", seed=whole, preset="quick")),
        (f"DreamerV3(num_envs={number})", lambda agent: reverie.DreamerV3("CartPole-v1", num_envs=number)),
        (f"DreamerV3(entropy={number})", lambda agent: reverie.DreamerV3("CartPole-v1", entropy=number)),
        (f"learn({whole})", lambda agent: agent.learn(whole, progress=False)),
        ("save over something", lambda agent: agent.save(made.run)),
    ]
    name, call = chance.choice(calls)

    def made_call() -> int:
        try:
            call(reverie.load(made.saved, device="cpu"))
        except ReverieError:
            return 2
        return 0

    return f"call: {name}", made_call


def _odd_step(agent: Any, actions: int) -> None:
    """A step with perhaps the wrong number of actions, and one after the end."""
    dream = agent.dream_env(2, starts=2)
    dream.reset(seed=0)
    dream.step(np.zeros(actions, np.int64))
    dream.close()
    dream.step(np.zeros(2, np.int64))


KINDS = {"files": try_files, "commands": try_commands, "calls": try_calls}


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises Hang in the block after so many seconds."""

    def stop(number: int, frame: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(made: Originals, kind: str, seed: int, report: Report) -> None:
    """One try; its seed alone decides what is tried."""
    place = made.home / "tries" / "copy"
    shutil.rmtree(place.parent, ignore_errors=True)
    place.parent.mkdir()
    what, call = KINDS[kind](made, place, random.Random(f"{kind} {seed}"))
    before = [content(folder) for folder in (made.outside, made.saved, made.run)]
    out, err = io.StringIO(), io.StringIO()
    problem = ""
    try:
        with (
            limited(SECONDS),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            code = call()
        if code not in (0, 2):
            problem = f"exit code {code}"
    except SystemExit as end:  # of the parser of command lines
        problem = "" if end.code == 2 else f"SystemExit({end.code})"
    except Hang:
        problem = f"more than {SECONDS:g} seconds"
    except Exception:  # noqa: BLE001 (whatever comes here is what is looked for)
        problem = traceback.format_exc(limit=-4)
    if "Traceback" in err.getvalue():
        problem += "a traceback was printed"
    if [content(folder) for folder in (made.outside, made.saved, made.run)] != before:
        problem += " something outside was changed"
    report.tries[kind] += 1
    if problem:
        report.wrong.append(f"--only {kind} --seed {seed}: {what}: {problem}")


def fuzz(home: Path, seconds: float, seed: int = 0, kinds: tuple[str, ...] = tuple(KINDS), most: int = 10**9) -> Report:
    """Tries for so many seconds.

    Args:
        home: an empty folder for all that is made.
        seconds: how long, besides the time to train what is broken.
        seed: of the first try; the others follow.
        kinds: of tries; those of files are as many as all others.
        most: tries.
    """
    made, report = make_originals(home), Report()
    shares = [2 * len(kinds) if kind == "files" else 1 for kind in kinds]
    here, end = Path.cwd(), time.monotonic() + seconds
    os.chdir(home)
    try:
        for number in range(seed, seed + most):
            if time.monotonic() > end:
                break
            attempt(made, random.Random(number).choices(kinds, shares)[0], number, report)
    finally:
        os.chdir(here)
    return report


def run(arguments: list[str] | None = None) -> int:
    """The command; returns 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first try")
    parser.add_argument("--only", choices=KINDS, help="one kind of tries")
    parser.add_argument("--most", type=int, default=10**9, help="tries")
    parser.add_argument("--home", type=Path, help="folder for all that is made, to be used again; by default a new one")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    kinds = (options.only,) if options.only else tuple(KINDS)
    with tempfile.TemporaryDirectory() as temporary:
        report = fuzz(options.home or Path(temporary), options.minutes * 60, options.seed, kinds, options.most)
    for kind, count in report.tries.items():
        print(f"{kind:<10} {count:>6} tries")
    print(f"{'wrong':<10} {len(report.wrong):>6}")
    for text in report.wrong:
        print(text)
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(run())
