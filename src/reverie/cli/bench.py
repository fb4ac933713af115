"""reverie bench [AGENT]: seconds per update by phase, parameters, and the share of the machine's matmul rate."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reverie.cli.options import parse


@dataclass(frozen=True)
class BenchOptions:
    """Time updates of an agent on random data; the agent comes first, dreamer-v3 if there is none."""

    preset: str = "paper"
    """Settings of the agent: paper, quick, or another of its presets."""
    size: str | None = None
    """Model size of dreamer-v3 (100k to 400m) and dreamer-v3-2023 (nano to xl); by default the preset's."""
    observation: Literal["vector", "image"] = "vector"
    """24 numbers and 6 continuous actions, or a 64x64x3 image and 17 discrete actions."""
    updates: int = 10
    """Timed updates, after 3 that warm up."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute precision; auto means bfloat16 on a GPU, float32 on a CPU."""
    threads: int | None = None
    """Threads of PyTorch on the CPU; all cores by default."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    words = list(arguments)
    agent = words.pop(0) if words and not words[0].startswith("-") else "dreamer-v3"
    options = parse(BenchOptions, f"bench {agent}", words)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler reports its own beginning and end
    import torch
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from reverie.agents.registry import PIPELINES, make_config
    from reverie.errors import ConfigError
    from reverie.training.benchmark import measure
    from reverie.training.device import choose_device, choose_precision

    if options.updates < 1:
        raise ConfigError(f"updates must be at least 1, got {options.updates}")
    if options.threads:
        torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    dtype = choose_precision(options.precision, device)
    if agent in PIPELINES:
        raise ConfigError(f"{agent} is trained in stages, which report their speed themselves; choose another agent")
    config = make_config(agent, {"size": options.size} if options.size else {}, options.preset)
    report = measure(config, options.observation, device, dtype=dtype, updates=options.updates)
    title = Text(f"one update, {agent}, {options.size or options.preset}, {options.observation}")
    table = Table("phase", "milliseconds", "share", title=title)
    total = sum(report.phases.values())
    for phase, seconds in report.phases.items():
        table.add_row(Text(phase), f"{seconds * 1e3:.1f}", f"{seconds / total:.0%}")
    Console(highlight=False).print(table)
    print(f"update            {report.median * 1e3:.1f} ms median, {report.fastest * 1e3:.1f} ms fastest")
    print(f"parameters        {report.parameters:,}")
    print(f"matrix products   {report.flops / 1e9:.1f} GFLOP per update")
    print(f"matmul rate       {report.matmul_rate / 1e9:,.0f} GFLOP/s for 2048 x 2048 matrices")
    print(f"share of it       {report.flops / report.median / report.matmul_rate:.1%}")
    print(f"machine           {report.machine}")
    return 0
