"""Whether two commits compute the same: hashes of every agent's weights after 200 updates, for every preset.

    .venv/bin/python benchmarks/same_numbers.py record FILE.json
    .venv/bin/python benchmarks/same_numbers.py compare COMMIT [COMMIT] [--updates 20]

`record` updates small agents of every preset on fixed random data, from vectors and from images, and writes their
hashes. `compare` does so in a work tree of each commit, by default of the working tree as the second, and names what
differs; exit code 1 if anything does. All on one thread of a CPU, since the order of sums depends on it.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from reverie.agents.registry import AGENTS, make_config, presets
from reverie.spaces import ActionPart, Interface, ObservationPart

ROOT = Path(__file__).resolve().parents[1]
BATCH, LENGTH = 4, 6
TINY = {"deterministic": 16, "depth": 2, "variables": 4}
SMALL = {
    "dreamer-v3": {**TINY, "size": "100k", "hidden": 8, "units": 16, "depth": 4, "classes": 4, "horizon": 3},
    "dreamer-v3-2023": {**TINY, "size": "nano", "units": 8, "classes": 4, "horizon": 3},
    "dreamer-v2": {**TINY, "hidden": 8, "units": 8, "classes": 4, "horizon": 3},
    "dreamer-v1": {**TINY, "hidden": 8, "units": 8, "horizon": 3},
    "planet": {**TINY, "hidden": 8},
}
TASKS = {
    "vectors, discrete": Interface(
        (ObservationPart("place", "vector", (3,)), ObservationPart("lamp", "discrete", (2,), (4, 3))),
        (ActionPart("action", "discrete", 1, (3,)),),
    ),
    "images, continuous": Interface(
        (ObservationPart("image", "image", (64, 64, 3)),), (ActionPart("action", "continuous", 2),)
    ),
}


def random_batch(interface: Interface, agent: torch.nn.Module, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Replayed windows of random numbers, with an episode that begins in the middle."""
    shape = (BATCH, LENGTH + agent.replay_context)
    batch: dict[str, torch.Tensor] = {}
    for part in interface.observations:
        if part.kind == "vector":
            batch[part.name] = torch.randn(*shape, *part.shape, generator=generator)
        elif part.kind == "image":
            batch[part.name] = torch.randint(256, (*shape, *part.shape), generator=generator, dtype=torch.uint8)
        else:
            draws = [torch.randint(classes, shape, generator=generator) for classes in part.classes]
            batch[part.name] = torch.stack(draws, -1)
    batch["action"] = torch.cat(
        [
            torch.rand(*shape, part.width, generator=generator) * 2 - 1
            if part.kind == "continuous"
            else torch.nn.functional.one_hot(torch.randint(part.width, shape, generator=generator), part.width).float()
            for part in interface.actions
        ],
        -1,
    )
    batch["reward"] = torch.randn(shape, generator=generator)
    flags = ("is_first", "is_last", "is_terminal")
    batch |= {name: torch.zeros(shape, dtype=torch.bool) for name in flags}
    batch["is_first"][0, 3], batch["is_last"][0, 2], batch["is_terminal"][0, 2] = True, True, True
    for name, (field, _) in agent.latent_fields.items():
        if name == "stochastic":
            draws = torch.randint(4, (*shape, *field), generator=generator)
            batch[name] = draws.to(torch.uint8)
        else:
            batch[name] = torch.randn(*shape, *field, generator=generator).half()
    return batch


def fingerprint(name: str, preset: str, interface: Interface, updates: int) -> str:
    """Hash of the weights and of the last metrics after some updates."""
    torch.manual_seed(0)
    config = make_config(name, SMALL[name], preset, interface)
    agent = config.build(interface)
    agent.optimizer = config.build_optimizer(agent)
    generator = torch.Generator().manual_seed(1)
    for _ in range(updates):
        metrics, _ = agent.update(random_batch(interface, agent, generator))
    digest = hashlib.sha256()
    for key, value in sorted({**agent.state_dict(), **metrics}.items()):
        digest.update(key.encode() + value.detach().float().numpy().tobytes())
    return digest.hexdigest()


def record(file: Path, updates: int) -> None:
    """Hashes of this tree."""
    torch.set_num_threads(1)
    found = {}
    for name in AGENTS:
        for preset in presets(name):
            for task, interface in TASKS.items():
                found[f"{name}, {preset}, {task}"] = fingerprint(name, preset, interface, updates)
                print(f"{name}, {preset}, {task}", flush=True)
    file.write_text(json.dumps(found, indent=1))


def of_tree(tree: Path, updates: int) -> dict[str, str]:
    """Hashes of the source in another folder, computed with this script."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "hashes.json"
        environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
        subprocess.run(
            [sys.executable, __file__, "record", str(file), "--updates", str(updates)], env=environment, check=True
        )
        return dict(json.loads(file.read_text()))


def of_commit(commit: str, updates: int) -> dict[str, str]:
    """The same of a commit, in a work tree that is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
        try:
            return of_tree(tree, updates)
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def main() -> None:
    """Records, or compares and says what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("record").add_argument("file", type=Path)
    commands.add_parser("compare").add_argument("commits", nargs="+")
    for command in commands.choices.values():
        command.add_argument("--updates", type=int, default=200)
    options = parser.parse_args()
    if options.command == "record":
        record(options.file, options.updates)
        return
    before, *others = options.commits
    one = of_commit(before, options.updates)
    other = of_commit(others[0], options.updates) if others else of_tree(ROOT, options.updates)
    differ = [key for key in one.keys() | other.keys() if one.get(key) != other.get(key)]
    print("\n".join(sorted(differ)) or f"the same numbers in all {len(one)} cases")
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
