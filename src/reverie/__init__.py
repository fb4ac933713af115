"""Agents that learn a world model and learn to act by imagining in it.

>>> import reverie
>>> agent = reverie.DreamerV3("CartPole-v1", seed=0)
>>> agent.learn(20_000)
>>> agent.evaluate(episodes=10).mean
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reverie.api import (
        DreamerV1,
        DreamerV2,
        DreamerV3,
        DreamerV3In2023,
        Learner,
        PlaNet,
        WorldModels,
        check,
        load,
        register_agent,
    )

__version__ = "0.1.0"
__all__ = [
    "DreamerV1",
    "DreamerV2",
    "DreamerV3",
    "DreamerV3In2023",
    "Learner",
    "PlaNet",
    "WorldModels",
    "__version__",
    "check",
    "load",
    "register_agent",
]

# PyTorch takes a second to import, so names are looked up when they are first used.
_HOMES = dict.fromkeys([name for name in __all__ if name != "__version__"], "reverie.api")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'reverie' has no attribute {name!r}")
