"""Copies what is worth keeping of finished runs into benchmarks/results: scores, curve, one dream video.

    .venv/bin/python benchmarks/collect.py NAME RUN [RUN ...] [--episodes N]

Writes NAME.json (command-line settings, counters, wall time, evaluations of every run), NAME.png (learning curves, runs
with different settings apart) and NAME.mp4 (last dream video of the first run). It says in which settings runs differ.
The best checkpoint of every run plays 100 episodes with a seed that training did not use (N where 100 take too long),
with most likely actions if the evaluations during training had them.
"""

import json
import shutil
import sys
from pathlib import Path

import reverie
from reverie.training.curves import plot_learning_curves
from reverie.training.metrics import read_metrics, read_scores
from reverie.training.run_groups import differing_settings, read_identity, with_defaults

FRESH_EPISODES, FRESH_SEED = 100, 777_777
RESULTS = Path(__file__).parent / "results"


def summary(run: Path, episodes: int) -> dict[str, object]:
    """Settings that differ from the defaults are in the run's config; here is what a table needs."""
    config = json.loads((run / "config.json").read_text())
    last = read_metrics(run)[-1]
    scores = read_scores(run)
    deterministic = config["settings"]["deterministic_evaluation"]
    fresh = reverie.load(run).evaluate(episodes, deterministic=deterministic, seed=FRESH_SEED)
    return {
        "agent": config["agent"],
        "environment": config["environment"]["environment"],
        "action_repeat": config["environment"]["action_repeat"],
        **{key: config["environment"][key] for key in ("pixels", "image_size", "time_limit", "kwargs")},
        "seed": config["seed"],
        "agent_config": {key: value for key, value in config["agent_config"].items() if value is not None},
        "num_envs": config["settings"]["num_envs"],
        "threads": config["settings"]["threads"],
        "env_steps": last["env_steps"],
        "frames": last["frames"],
        "updates": last["updates"],
        "replay_ratio": round(last["replay/ratio"], 1),
        "wall_seconds": round(last["seconds"]),
        "evaluations": [
            {key: score[key] for key in ("env_steps", "mean", "std", "episodes", "deterministic")} for score in scores
        ],
        "best_checkpoint": {
            "mean": round(fresh.mean, 2),
            "std": round(fresh.standard_deviation, 2),
            "episodes": episodes,
            "deterministic": deterministic,
        },
    }


def main() -> None:
    """Reads the names and writes the three files."""
    words, episodes = sys.argv[1:], FRESH_EPISODES
    if "--episodes" in words:
        place = words.index("--episodes")
        episodes = int(words[place + 1])
        del words[place : place + 2]
    name, runs = words[0], [Path(word) for word in words[1:]]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps([summary(run, episodes) for run in runs], indent=1) + "\n")
    different = differing_settings(with_defaults([read_identity(run) for run in runs]))
    if different:
        print(f"the runs differ in {', '.join(different)}")
    plot_learning_curves(runs, RESULTS / f"{name}.png")
    videos = sorted((runs[0] / "videos").glob("*.mp4"))
    if videos:
        shutil.copy(videos[-1], RESULTS / f"{name}.mp4")


if __name__ == "__main__":
    main()
