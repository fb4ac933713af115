"""Copies what is worth keeping of World Models runs into benchmarks/results: numbers, a figure, pictures of the first.

    .venv/bin/python benchmarks/collect_world_models.py NAME RUN [RUN ...]

Writes NAME.json (settings that differ from the preset `paper`, wall time of every stage, dreamed and real scores of
every evaluation), NAME.png (a panel per run: returns against generations), for runs that differ only in temperature
NAME_temperatures.png (dreamed and real scores beside the paper's), and of the first run NAME_temperatures.mp4,
NAME_game.mp4, NAME_reconstruction.png and NAME_sliders.png.
"""

import json
import shutil
import sys
from pathlib import Path

from matplotlib.figure import Figure

from reverie.agents.world_models import WorldModelsConfig
from reverie.tensor_files import read_tensors
from reverie.training.published import published_tables
from reverie.training.run_groups import differing_settings, read_identity, with_defaults

RESULTS = Path(__file__).parent / "results"
PICTURES = ("temperatures.mp4", "game.mp4", "reconstruction.png", "sliders.png")


def summary(run: Path) -> dict[str, object]:
    """What a table needs of one run, whether it is finished or not."""
    config = json.loads((run / "config.json").read_text())
    default = WorldModelsConfig()
    settings = {k: v for k, v in config["agent_config"].items() if v != getattr(default, k)}
    saved = json.loads(bytes(read_tensors(run / "controller.safetensors")["json"].numpy()))
    return {
        "run": run.name,
        "environment": config["environment"]["environment"],
        "seed": config["seed"],
        "settings": settings,
        "frames": sum(json.loads((run / "frames" / "progress.json").read_text())["lengths"]),
        "generations": len(saved["history"]),
        "seconds": json.loads((run / "seconds.json").read_text()),
        "scores": [{k: v for k, v in score.items() if k not in ("returns", "lengths")} for score in saved["scores"]],
        "returns_of_last_evaluation": saved["scores"][-1]["returns"] if saved["scores"] else [],
        "history": saved["history"],
    }


def draw(rows: list[dict], path: Path) -> None:
    """A panel for each run: mean and best candidates, and the real episodes of the distribution's mean."""
    figure = Figure(figsize=(3.4 * len(rows), 3.2), dpi=100, layout="constrained")
    panels = figure.subplots(1, len(rows), sharey=True, squeeze=False)[0]
    for axes, row in zip(panels, rows, strict=True):
        generations, means, best = zip(*row["history"], strict=True)
        axes.plot(generations, means, color="tab:blue", label="candidates, mean")
        axes.plot(generations, best, color="tab:blue", alpha=0.4, linewidth=1, label="candidates, best")
        if row["scores"]:
            real = [(s["generation"], s["mean"], s["std"]) for s in row["scores"]]
            axes.errorbar(*zip(*real, strict=True), color="tab:orange", marker="o", capsize=3, label="real episodes")
        axes.set_title(row["run"], fontsize=9)
        axes.set_xlabel("generation")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("return")
    panels[0].legend(fontsize=7)
    figure.savefig(path)


def temperature(row: dict) -> float:
    """Of the dream in which a run evolves its controller."""
    return float(row["settings"].get("temperature", WorldModelsConfig().temperature))


def draw_temperatures(rows: list[dict], path: Path) -> None:
    """Dreamed and real score of the mean, at the generation that all runs have reached, over the temperature."""
    last = min(row["scores"][-1]["generation"] for row in rows)
    chosen = [next(s for s in row["scores"] if s["generation"] == last) for row in sorted(rows, key=temperature)]
    table = next(t for t in published_tables() if "reverie/TakeCover-v0" in t.tasks)
    names = [f"World Models, temperature {t:.2f}" for t in sorted(map(temperature, rows))]
    order = [series["name"] for series in table.series]
    dreamed = table.further["score in the dream, mean and standard deviation"]
    lines = {
        "in the dream": [score["dream"]["mean"] for score in chosen],
        "in the game": [score["mean"] for score in chosen],
        "in the dream, paper": [dreamed[name][0] for name in names],
        "in the game, paper": [table.tasks["reverie/TakeCover-v0"][order.index(name)][0] for name in names],
    }
    figure = Figure(figsize=(5.2, 3.4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for (label, values), color, style in zip(lines.items(), ("C0", "C1") * 2, ("-", "-", "--", "--"), strict=True):
        axes.plot(sorted(map(temperature, rows)), values, style, color=color, marker="o", label=label)
    axes.axhline(210, color="0.6", linewidth=1, label="random play, paper")
    axes.set_xlabel("temperature of the dream")
    axes.set_ylabel(f"tics survived, generation {last}")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path)


def main() -> None:
    """Reads the names and writes the files."""
    name, runs = sys.argv[1], [Path(argument) for argument in sys.argv[2:]]
    RESULTS.mkdir(exist_ok=True)
    rows = [summary(run) for run in runs]
    (RESULTS / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
    draw(rows, RESULTS / f"{name}.png")
    different = differing_settings(with_defaults([read_identity(run) for run in runs]))
    temperatures = {temperature(row) for row in rows}
    if different:
        print(f"the runs differ in {', '.join(different)}")
    if len(temperatures) > 2 and (different != ["temperature"] or len(temperatures) < len(rows)):
        print("no picture of temperatures: the runs must differ in nothing else, with one run for each temperature")
    elif len(temperatures) > 2:
        draw_temperatures(rows, RESULTS / f"{name}_temperatures.png")
    for picture in PICTURES:
        if (runs[0] / "videos" / picture).exists():
            shutil.copy(runs[0] / "videos" / picture, RESULTS / f"{name}_{picture}")


if __name__ == "__main__":
    main()
