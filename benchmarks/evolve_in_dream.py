"""Evolves a linear controller in dreams of a CartPole model and scores it in the real CartPole.

    .venv/bin/python benchmarks/evolve_in_dream.py RUN TEMPERATURE SEED [--most-likely]

Prints a JSON line: dreamed returns and the real score of the distribution's mean after every 10 generations.
"""

import json
import sys
import time

import torch

import reverie
from reverie.behaviors.controllers import LinearController
from reverie.behaviors.evolution import Evolution
from reverie.dream.dream import Dream, collect_starts
from reverie.dream.evolve import ControlledAgent, evolve
from reverie.training.evaluation import evaluate

POPULATION, ROLLOUTS, HORIZON, ROUNDS, GENERATIONS, EPISODES = 32, 8, 200, 5, 10, 100


def main() -> None:
    """Reads the arguments, evolves and prints."""
    run, temperature, seed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    most_likely = "--most-likely" in sys.argv
    torch.set_num_threads(1)
    learner = reverie.load(run)
    agent, parts = learner.agent, learner.interface.actions
    starts = collect_starts(agent, learner.source, count=256, context=1, seed=seed)
    dream = Dream(agent.world_model, starts, 1, temperature, most_likely)
    controller = LinearController(agent.world_model.features, learner.interface.action_width)
    evolution = Evolution(controller.count, POPULATION, seed=seed)
    scores, seconds = [], 0.0
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        history = evolve(dream, controller, evolution, parts, GENERATIONS, rollouts=ROLLOUTS, horizon=HORIZON)
        seconds += time.perf_counter() - begun
        real = evaluate(ControlledAgent(agent, controller, evolution.mean), learner.source, EPISODES, seed)
        scores.append(
            {
                "generation": history[-1].number,
                "dream": round(history[-1].mean, 1),
                "real": round(real.mean, 1),
                "std": round(real.standard_deviation, 1),
                "seconds": round(seconds, 1),
            }
        )
    result = {"temperature": temperature, "seed": seed, "most_likely": most_likely, "parameters": controller.count}
    print(json.dumps({**result, "scores": scores}))


if __name__ == "__main__":
    main()
