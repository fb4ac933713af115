"""Dream steps per second in a generation of World Models' Take Cover agent: one batch, or one process per candidate.

    .venv/bin/python benchmarks/dream_speed.py [THREADS] [SECONDS]

The model has the paper's size (M of 512 units, C of 1,088 parameters) and random weights, and its dreams do not end, so
that both ways take the same steps. The batch holds 64 candidates with 16 rollouts each on all threads. The processes,
as many as threads, have one thread each and play one rollout of one candidate after the other, as the released code
does. Both take turns, three times. Prints a JSON line.
"""

import json
import multiprocessing
import os
import sys
import time

os.environ.setdefault("GOMP_SPINCOUNT", "20000")

import numpy as np
import torch

from reverie.agents.registry import make_config
from reverie.dream.dream import Dream
from reverie.dream.evolve import dreamed_returns
from reverie.spaces import ActionPart, Interface, ObservationPart

POPULATION, ROLLOUTS, ROUNDS = 64, 16, 3


def steps_a_second(threads: int, population: int, rollouts: int, horizon: int, seconds: float, dtype: str) -> float:
    """Steps of all rollouts together, in generations that are repeated until the time is over."""
    torch.set_num_threads(threads)
    parts = (ActionPart("action", "continuous", 1),)
    interface = Interface((ObservationPart("image", "image", (64, 64, 3)),), parts)
    torch.manual_seed(0)
    agent = make_config("world-models", {}, "take-cover").build(interface).eval()
    with torch.no_grad():
        agent.world_model.memory.output.bias[0] = -20  # the logit of the end
    starts = agent.first_states(100, np.random.default_rng(0))
    dream = Dream(agent.world_model, starts, 1, 1.15, draw_ends=False)
    parameters = 0.1 * torch.randn(population, agent.controller.count)
    steps, begun = 0, 0.0
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        dreamed_returns(dream, agent.controller, parameters, parts, rollouts, 3)
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            dreamed_returns(dream, agent.controller, parameters, parts, rollouts, horizon)
            steps += population * rollouts * horizon
    return steps / (time.perf_counter() - begun)


def main() -> None:
    """Measures in turns and prints."""
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else len(os.sched_getaffinity(0))
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 10
    rates: dict[str, list[float]] = {"batch float32": [], "batch bfloat16": [], "process a candidate": []}
    context = multiprocessing.get_context("spawn")
    with context.Pool(threads) as pool:
        for _ in range(ROUNDS):
            for dtype in ("float32", "bfloat16"):
                batch = (threads, POPULATION, ROLLOUTS, 20, seconds, dtype)
                # In a process of its own, since the number of threads cannot be changed twice.
                rates[f"batch {dtype}"].append(pool.apply(steps_a_second, batch))
            alone = [(1, 1, 1, 200, seconds, "float32")] * threads
            rates["process a candidate"].append(sum(pool.starmap(steps_a_second, alone, chunksize=1)))
    rounded = {name: [round(rate) for rate in values] for name, values in rates.items()}
    medians = {name: sorted(values)[len(values) // 2] for name, values in rounded.items()}
    ratio = {name: round(value / medians["process a candidate"], 2) for name, value in medians.items()}
    print(json.dumps({"threads": threads, "steps_a_second": rounded, "median": medians, "ratio": ratio}))


if __name__ == "__main__":
    main()
