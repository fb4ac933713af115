"""The default command on small tasks: what `reverie train AGENT --env ID --seed SEED` reaches, and whether it stays.

    .venv/bin/python benchmarks/defaults.py train FOLDER [--processes N] [--only TEXT]
    .venv/bin/python benchmarks/defaults.py collect FOLDER

`train` runs the commands of the table below with nothing but environment, seed, one thread and a run folder
FOLDER/AGENT/TASK/SEED, N at a time; a run that is there resumes, so the same command continues after an interruption.
`collect` reads the runs that are there, complete or not, puts them in the place of the same agent, task and seed in
benchmarks/results/defaults.json, draws a picture defaults_AGENT.png with a panel per task, and prints the table of
benchmarks/README.md. A run holds its line if the
mean of the evaluations in its last fifth is at least 80 % of the way from random play to the line; the last checkpoint
is the last of these evaluations.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from reverie.envs import EnvironmentSource
from reverie.training.metrics import read_metrics, read_scores

RESULTS = Path(__file__).parent / "results"
RANDOM_EPISODES = 100
LINES: dict[str, dict[str, float | None]] = {
    "dreamer-v3": {
        "CartPole-v1": 475,
        "Pendulum-v1": -200,
        "InvertedPendulum-v5": 950,
        "Acrobot-v1": -100,
        "reverie/CatchPixels-v0": 4.5,
        "reverie/RepeatPrevious-v0": 40,
        "MountainCarContinuous-v0": None,
        "LunarLander-v3": None,
        "BipedalWalker-v3": None,
    },
    "dreamer-v3-2023": {"CartPole-v1": 475},
    "dreamer-v2": {"CartPole-v1": 475},
    "dreamer-v1": {"Pendulum-v1": None},
    "planet": {"Pendulum-v1": None},
}
"""Agent -> task -> the return at which it counts as learned, or None where a curve is all that is asked for."""
SEEDS = {None: (0,)}
"""Seeds of a task without a line; those with one have three."""


def commands(folder: Path, only: str) -> list[list[str]]:
    """The words after `reverie` of every run whose `agent/task/seed` contains a text, seeds in the outer loop."""
    found = []
    for seed in (0, 1, 2):
        for agent, tasks in LINES.items():
            for task, line in tasks.items():
                if seed in SEEDS.get(line, (0, 1, 2)) and only in f"{agent}/{task}/{seed}":
                    run = folder / agent / task.replace("/", "-") / str(seed)
                    words = f"train {agent} --env {task} --seed {seed} --threads 1 --quiet --run"
                    found.append([*words.split(), str(run)])
    return found


def train(words: list[str]) -> None:
    """One command in a process of its own, whose output goes beside its run folder."""
    run = Path(words[-1])
    run.parent.mkdir(parents=True, exist_ok=True)
    program = [sys.executable, "-m", "reverie.cli.main", *words]
    with run.with_suffix(".log").open("a") as log:
        subprocess.run(program, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=log, check=False)
    scores = read_scores(run)
    print(run, [round(score["mean"], 1) for score in scores], flush=True)


def random_play(task: str) -> float:
    """Mean return of uniformly random actions."""
    adapter = EnvironmentSource(task).make()
    environment, totals = adapter.environment, []
    environment.action_space.seed(0)
    for episode in range(RANDOM_EPISODES):
        environment.reset(seed=episode)
        total, ended = 0.0, False
        while not ended:
            _, reward, terminated, truncated, _ = environment.step(environment.action_space.sample())
            total, ended = total + float(reward), terminated or truncated
        totals.append(total)
    adapter.close()
    return float(np.mean(totals))


def summary(run: Path, agent: str, task: str, line: float | None, random: float) -> dict[str, Any]:
    """What a table and a picture need of one run."""
    config = json.loads((run / "config.json").read_text())
    last, scores = read_metrics(run)[-1], read_scores(run)
    steps = config["settings"]["steps"]
    late = [score["mean"] for score in scores if score["env_steps"] > 0.8 * steps]
    floor = None if line is None else random + 0.8 * (line - random)
    reached = [score for score in scores if line is not None and score["mean"] >= line]
    return {
        "agent": agent,
        "task": task,
        "seed": config["seed"],
        "preset": config["preset"],
        "steps": steps,
        "env_steps": last["env_steps"],
        "updates": last["updates"],
        "minutes": round(last["seconds"] / 60, 1),
        "line": line,
        "random": round(random, 1),
        "first_step_on_line": reached[0]["env_steps"] if reached else None,
        "best": max((score["mean"] for score in scores), default=None),
        "late_mean": float(np.mean(late)) if late else None,
        "last": scores[-1]["mean"] if scores and last["env_steps"] >= steps else None,
        "floor": floor,
        "evaluations": [{key: score[key] for key in ("env_steps", "mean", "std", "episodes")} for score in scores],
    }


def collect(folder: Path) -> None:
    """Summaries of the runs in a folder, beside those collected before, as JSON, pictures and a table."""
    path = RESULTS / "defaults.json"
    known = {(run["agent"], run["task"], run["seed"]): run for run in json.loads(path.read_text())}
    for agent, tasks in LINES.items():
        for task, line in tasks.items():
            runs = sorted((folder / agent / task.replace("/", "-")).glob("*/scores.json"))
            random = random_play(task) if runs else 0.0
            for scores in runs:
                run = summary(scores.parent, agent, task, line, random)
                known[agent, task, run["seed"]] = run
    order = {(agent, task): place for place, (agent, task) in enumerate((a, t) for a in LINES for t in LINES[a])}
    found = sorted(known.values(), key=lambda run: (order[run["agent"], run["task"]], run["seed"]))
    path.write_text(json.dumps(found, indent=1) + "\n")
    for agent in dict.fromkeys(run["agent"] for run in found):
        draw([run for run in found if run["agent"] == agent], RESULTS / f"defaults_{agent.replace('-', '_')}.png")
    for run in found:
        late = "-" if run["late_mean"] is None else f"{run['late_mean']:.1f}"
        last = "unfinished" if run["last"] is None else f"{run['last']:.1f}"
        print(
            f"| {run['agent']}, {run['task']} | {run['seed']} | {run['env_steps']:,} | {run['updates']:,} | "
            f"{run['minutes']:.0f} min | {run['random']} | {'-' if run['line'] is None else run['line']} | "
            f"{run['first_step_on_line'] or '-'} | {run['best']:.1f} | {late} | {last} |"
        )


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """A panel per task: every evaluation of every seed, the line, and random play."""
    tasks = list(dict.fromkeys(run["task"] for run in runs))
    columns = min(len(tasks), 3)
    rows = -(-len(tasks) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.8 * rows), dpi=90, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axis in panels[len(tasks) :]:
        axis.axis("off")
    for axis, task in zip(panels, tasks, strict=False):
        for run in (run for run in runs if run["task"] == task):
            x, y = zip(*[(score["env_steps"], score["mean"]) for score in run["evaluations"]], strict=True)
            axis.plot(x, y, "o-", markersize=3, label=f"seed {run['seed']}")
            axis.axhline(run["random"], color="gray", linestyle=":", linewidth=1)
            if run["line"] is not None:
                axis.axhline(run["line"], color="black", linestyle="--", linewidth=1)
        axis.set_title(task, fontsize=10)
        axis.set_xlabel("environment steps", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.legend(fontsize=7)
    figure.savefig(path)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "collect"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", default="", help="text that AGENT/TASK/SEED must contain")
    options = parser.parse_args()
    if options.what == "train":
        with ThreadPoolExecutor(options.processes) as pool:
            list(pool.map(train, commands(options.folder, options.only)))
    else:
        collect(options.folder)


if __name__ == "__main__":
    main()
