"""Draws benchmarks/results/dream_evolution.json: dreamed and real returns against the temperature of the dream.

.venv/bin/python benchmarks/plot_temperatures.py
"""

import json
from pathlib import Path

from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Reads the results and writes the picture beside them."""
    runs = json.loads((RESULTS / "dream_evolution.json").read_text())
    drawn = sorted((run for run in runs if not run["most_likely"]), key=lambda run: (run["temperature"], run["seed"]))
    figure = Figure(figsize=(6, 3.4), dpi=120, layout="constrained")
    axis = figure.subplots()
    temperatures = [run["temperature"] for run in drawn]
    for key, label, marker in (("real", "real environment, of 500", "o"), ("dream", "dream, of 200", "s")):
        axis.plot(temperatures, [run["scores"][-1][key] for run in drawn], marker, label=label)
        means = {t: [run["scores"][-1][key] for run in drawn if run["temperature"] == t] for t in temperatures}
        axis.plot(
            list(means), [sum(values) / len(values) for values in means.values()], color=axis.lines[-1].get_color()
        )
    axis.set_xlabel("temperature of the dream in which the controller evolved")
    axis.set_ylabel("mean return, generation 50")
    axis.set_ylim(0, 520)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8)
    figure.savefig(RESULTS / "dream_evolution.png")


if __name__ == "__main__":
    main()
