"""Learning checks of PlaNet, Dreamer v1 and DreamerV2 on vectors, and the horizon ablation of Dreamer v1.

    .venv/bin/python benchmarks/older_agents.py FOLDER [checks|horizons] [--processes N] [--dry]

Runs the commands of a group in N processes of one thread each, with the run folders FOLDER/NAME. Runs that are there
resume, and finished ones are not repeated. `--dry` prints the commands only. At the end it prints the evaluations,
writes them to FOLDER/GROUP.json, and for `horizons` draws FOLDER/horizons.png: the mean of the last
two evaluations against the horizon.
"""

import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from matplotlib.figure import Figure

COMMON = "--preset quick --num-envs 1 --threads 1 --evaluation-episodes 5 --quiet"
SWINGUP = "--env dmc/cartpole-swingup-v0 --action-repeat 8"
PENDULUM = "--env dmc/pendulum-swingup-v0 --action-repeat 2 --update-every 500 --updates 50 --steps 50000"
CHECKS = {
    "planet-cartpole": f"planet {SWINGUP} --updates 100 --candidates 300 --iterations 5 --elites 30 --steps 6250",
    "dreamer-v1-pendulum": f"dreamer-v1 {PENDULUM}",
    "dreamer-v1-cartpole": f"dreamer-v1 {SWINGUP} --updates 100 --steps 6250 --update-every 125 --warmup-steps 625",
    "dreamer-v2-cartpole": "dreamer-v2 --env dmc/cartpole-swingup-v0 --action-repeat 2 --steps 30000",
}
"""An agent, a task and a budget each; played with the seeds 0 and 1. Our thresholds: 300 in the swing-up of PlaNet and
Dreamer v1, 200 in that of DreamerV2, 300 in pendulum_swingup."""
LENGTHS = (5, 15, 30)
ABLATION = f"{SWINGUP} --updates 100 --steps 6250"
AGENTS = {
    "value": f"dreamer-v1 {ABLATION} --update-every 125 --warmup-steps 625",
    "no value": f"dreamer-v1 {ABLATION} --update-every 125 --warmup-steps 625 --no-value",
    "PlaNet": f"planet {ABLATION}",
}
"""Dreamer v1 with and without a critic, and the agent PlaNet, with as many episodes and updates."""


def commands(group: str) -> dict[str, str]:
    """Name and arguments of every run of a group."""
    if group == "checks":
        return {f"{name}-{seed}": f"{words} --seed {seed}" for name, words in CHECKS.items() for seed in (0, 1)}
    return {
        f"{name.replace(' ', '-')}-{horizon}": f"{words} --horizon {horizon} --seed 0"
        for horizon in LENGTHS
        for name, words in AGENTS.items()
    }


def run(folder: Path, name: str, words: str) -> None:
    """One command, in a process of its own."""
    line = ["reverie", "train", *shlex.split(f"{words} {COMMON}"), "--run", str(folder / name)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = [str(Path(sys.executable).parent / line[0]), *line[1:]]
    with (folder / f"{name}.log").open("a") as log:
        subprocess.run(program, env=environment, stdout=log, stderr=log, check=False)
    print(f"{name}: {evaluations(folder / name)}", flush=True)


def evaluations(path: Path) -> list[tuple[int, float, float]]:
    """Environment steps, mean and standard deviation of the evaluations of a run."""
    scores = path / "scores.json"
    rows = json.loads(scores.read_text()) if scores.exists() else []
    return [(row["env_steps"], round(row["mean"], 1), round(row["std"], 1)) for row in rows]


def write(folder: Path, group: str) -> None:
    """The evaluations of all runs of a group that are there, as a file, and as a picture where there is one."""
    found = {name: evaluations(folder / name) for name in commands(group)}
    rows = {
        name: {"command": f"reverie train {words} {COMMON}", "env_steps, mean, std over 5 episodes": found[name]}
        for name, words in commands(group).items()
        if found[name]
    }
    lines = (f"{json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    (folder / f"{group}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    if group == "horizons":
        draw(folder)


def draw(folder: Path) -> None:
    """The last evaluations against the horizon, a line for each way to act."""
    figure = Figure(figsize=(5, 3.4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for name in AGENTS:
        points = []
        for horizon in LENGTHS:
            last = evaluations(folder / f"{name.replace(' ', '-')}-{horizon}")[-2:]
            if last:
                points.append((horizon, sum(mean for _, mean, _ in last) / len(last)))
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set_xlabel("imagined steps")
    axes.set_ylabel("return")
    axes.set_xticks(LENGTHS)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(folder / "horizons.png")


def main() -> None:
    """Reads the arguments, runs and reports."""
    words = [word for word in sys.argv[1:] if not word.startswith("--") and not word.isdigit()]
    folder, group = Path(words[0]), words[1] if len(words) > 1 else "checks"
    processes = int(sys.argv[sys.argv.index("--processes") + 1]) if "--processes" in sys.argv else os.cpu_count() or 1
    todo = commands(group)
    if "--dry" in sys.argv:
        for name, line in todo.items():
            print(f"reverie train {line} {COMMON} --run {folder / name}")
        return
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(lambda item: run(folder, *item), todo.items()))
    write(folder, group)


if __name__ == "__main__":
    main()
