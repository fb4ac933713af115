"""Runs one update of Reverie per line of input, for paired timing: see benchmarks/pair_updates.py.

    .venv/bin/python benchmarks/serve_updates.py --size 1m --observation vector

Prints a JSON line {"ready": true, "parameters": ...}, then for each input line {"seconds": ...}; `quit` ends it.
"""

import argparse
import json
import sys
import time

import torch

from reverie.agents.registry import make_config
from reverie.training.benchmark import INTERFACES, random_batch
from reverie.training.memory import keep_freed_memory


def main() -> None:
    """Reads the options, builds the agent and answers until `quit`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", default="1m")
    parser.add_argument("--observation", choices=list(INTERFACES), default="vector")
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    keep_freed_memory()
    config = make_config("dreamer-v3", {"size": options.size})
    agent = config.build(INTERFACES[options.observation])
    agent.optimizer = config.build_optimizer(agent)
    batch = random_batch(agent, config.batch_size, config.batch_length)
    for _ in range(3):
        agent.update(batch)
    print(json.dumps({"ready": True, "parameters": agent.count_parameters()["total"]}), flush=True)
    for line in sys.stdin:
        if line.strip() == "quit":
            return
        start = time.perf_counter()
        agent.update(batch)
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


if __name__ == "__main__":
    main()
