"""From agents to runs: the loop, counters, run folders, checkpoints, logging and evaluation."""
