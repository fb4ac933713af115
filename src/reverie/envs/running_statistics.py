"""Finds wrappers with a memory: those that keep running statistics, such as NormalizeObservation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium

# A mean, a spread and a count: what a running mean keeps, whatever its class is called.
STATISTICS = ({"mean"}, {"var", "std"}, {"count", "n"})


def running_statistics(environment: gymnasium.Env[Any, Any]) -> str | None:
    """What to warn about if a layer of the environment keeps running statistics, or None.

    A wrapper whose `update_running_mean` is False has fixed ones.
    """
    layers = [type(layer).__name__ for layer in _layers(environment) if _keeps_statistics(layer)]
    if not layers:
        return None
    return (
        f"{' and '.join(layers)} of this environment keeps running statistics, which live in each environment "
        f"separately: evaluation, loading and resuming begin without them, so the agent sees other numbers there than "
        f"in training; leave the wrapper out (DreamerV3 squashes observations and rewards itself), or scale by "
        f"constants"
    )


def _layers(environment: Any) -> Iterator[Any]:
    """The environment, and what each of its wrappers holds."""
    yield environment
    while isinstance(environment, gymnasium.Wrapper):
        environment = environment.env
        yield environment


def _keeps_statistics(layer: Any) -> bool:
    if getattr(layer, "update_running_mean", True) is False:
        return False
    held = list(vars(layer).values())
    for value in list(held):
        if isinstance(value, dict):
            held += value.values()
        elif isinstance(value, list | tuple):
            held += value
    is_wrapper = isinstance(layer, gymnasium.Wrapper)
    return (is_wrapper and _is_running_mean(layer)) or any(_is_running_mean(value) for value in held)


def _is_running_mean(value: Any) -> bool:
    attributes = getattr(value, "__dict__", {})
    names = {name.lstrip("_") for name in [*attributes, *attributes.get("_buffers", ())]}  # buffers of a torch module
    return all(names & known for known in STATISTICS)
