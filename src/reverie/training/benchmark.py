"""Times the update of an agent on random data."""

from __future__ import annotations

import platform
import statistics
import time
from dataclasses import dataclass
from typing import Literal

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from reverie.agents.imagination_agent import PHASE, ImaginationAgent
from reverie.agents.registry import AgentConfig
from reverie.nn.latents import CategoricalLatent
from reverie.spaces import ActionPart, Interface, ObservationPart
from reverie.training.memory import keep_freed_memory

INTERFACES = {
    "vector": Interface((ObservationPart("vector", "vector", (24,)),), (ActionPart("action", "continuous", 6),)),
    "image": Interface(
        (ObservationPart("image", "image", (64, 64, 3)),), (ActionPart("action", "discrete", 1, classes=(17,)),)
    ),
}
"""The two interfaces for which the specification gives parameter counts and timings of other implementations."""


@dataclass
class Report:
    """What was measured: seconds, floating-point operations, operations per second."""

    median: float
    fastest: float
    phases: dict[str, float]
    parameters: int
    flops: float
    matmul_rate: float
    machine: str


def random_batch(agent: ImaginationAgent, batch_size: int, length: int) -> dict[str, torch.Tensor]:
    """A batch as the replay gives it, filled with random numbers, on the agent's device."""
    device, latent = agent.device, agent.world_model.rssm.latent
    shape = (batch_size, length + agent.replay_context)
    batch = random_observation(agent.interface, shape, device)
    batch["action"] = torch.rand(*shape, agent.interface.action_width, device=device)
    batch["reward"] = torch.randn(shape, device=device)
    for flag in ("is_first", "is_last", "is_terminal"):
        batch[flag] = torch.rand(shape, device=device) < 0.01
    for name, (size, _) in agent.latent_fields.items():
        if name == "deterministic":
            batch[name] = torch.rand(*shape, *size, device=device).half()
        elif isinstance(latent, CategoricalLatent):
            batch[name] = torch.randint(0, latent.classes, (*shape, *size), device=device)
    return batch


def random_observation(interface: Interface, shape: tuple[int, ...], device: torch.device) -> dict[str, torch.Tensor]:
    """Observation parts filled with random numbers, [*shape, *shape of the part] each."""
    parts: dict[str, torch.Tensor] = {}
    for part in interface.observations:
        if part.kind == "vector":
            parts[part.name] = torch.randn(*shape, *part.shape, device=device)
        else:
            dtype = torch.uint8 if part.kind == "image" else torch.int32
            end = 256 if part.kind == "image" else min(part.classes)
            parts[part.name] = torch.randint(0, end, (*shape, *part.shape), dtype=dtype, device=device)
    return parts


def matmul_rate(device: torch.device, dtype: torch.dtype, side: int = 2048) -> float:
    """Floating-point operations per second of a square matrix product, the best of ten."""
    a = torch.randn(side, side, device=device).to(dtype)
    fastest = float("inf")
    for _ in range(10):
        wait(device)
        start = time.perf_counter()
        a @ a
        wait(device)
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * side**3 / fastest


def measure(
    config: AgentConfig,
    observation: Literal["vector", "image"],
    device: torch.device,
    dtype: torch.dtype,
    updates: int,
) -> Report:
    """Times updates of an agent that `config` describes; the report's phases come from one profiled update."""
    keep_freed_memory()
    agent = config.build(INTERFACES[observation]).to(device)
    agent.compute_dtype = dtype
    agent.optimizer = config.build_optimizer(agent)
    batch = random_batch(agent, config.batch_size, config.batch_length)
    for _ in range(3):
        agent.update(batch)
    seconds = []
    for _ in range(updates):
        wait(device)
        start = time.perf_counter()
        agent.update(batch)
        wait(device)
        seconds.append(time.perf_counter() - start)
    with FlopCounterMode(display=False) as counter:
        agent.update(batch)
    return Report(
        statistics.median(seconds),
        min(seconds),
        _phases(agent, batch),
        parameters=agent.count_parameters()["total"],
        flops=counter.get_total_flops(),
        matmul_rate=matmul_rate(device, dtype),
        machine=_machine(device, dtype),
    )


def _phases(agent: ImaginationAgent, batch: dict[str, torch.Tensor]) -> dict[str, float]:
    """Seconds of each labeled phase in one update, as the host sees them."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        agent.update(batch)
    return {
        event.key.removeprefix(PHASE): event.cpu_time_total / 1e6
        for event in recorded.key_averages()
        if event.key.startswith(PHASE)
    }


def wait(device: torch.device) -> None:
    """Waits until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _machine(device: torch.device, dtype: torch.dtype) -> str:
    precision = str(dtype).removeprefix("torch.")
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {precision}, PyTorch {torch.__version__}"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads, {precision}, PyTorch {torch.__version__}"
