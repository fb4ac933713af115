"""Times two programs in turns and reports the ratio of their medians.

Absolute times on a shared machine mean little; the ratio of two programs that take turns means something. Each program
prints a JSON line with "ready" when it is warm, and a JSON line with "seconds" for each line of input.

    .venv/bin/python benchmarks/pair_updates.py 10 "COMMAND OF A" "COMMAND OF B"
"""

import json
import shlex
import statistics
import subprocess
import sys


def start(command: str) -> subprocess.Popen[str]:
    """Starts a program and waits until it is ready."""
    process = subprocess.Popen(shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    ready = read(process)
    print(f"ready: {command}: {ready}")
    return process


def read(process: subprocess.Popen[str]) -> dict[str, float]:
    """One JSON line of a program."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"a program ended early with code {process.wait()}: {process.args}")
    return json.loads(line)


def ask(process: subprocess.Popen[str]) -> float:
    """Seconds of one update."""
    assert process.stdin is not None
    process.stdin.write("update\n")
    process.stdin.flush()
    return read(process)["seconds"]


def main() -> None:
    """Alternates the programs, changing who goes first every round."""
    rounds, commands = int(sys.argv[1]), sys.argv[2:4]
    programs = [start(command) for command in commands]
    seconds: list[list[float]] = [[], []]
    for index in range(rounds):
        for which in (0, 1) if index % 2 == 0 else (1, 0):
            seconds[which].append(ask(programs[which]))
    for program in programs:
        assert program.stdin is not None
        program.stdin.write("quit\n")
        program.stdin.flush()
        program.wait()
    medians = [statistics.median(values) for values in seconds]
    result = {
        "a": commands[0],
        "b": commands[1],
        "rounds": rounds,
        "median_a": medians[0],
        "median_b": medians[1],
        "ratio_a_over_b": statistics.median(a / b for a, b in zip(*seconds, strict=True)),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
