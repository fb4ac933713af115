"""Interfaces of the reference counts, small agents, and batches for them."""

import numpy as np
import torch

from reverie.agents.dreamer_v3 import DreamerV3Config
from reverie.agents.dreamer_v3_2023 import DreamerV3In2023Config
from reverie.spaces import ActionPart, Interface, ObservationPart

# The three interfaces of the reference counts: walker with its 24 numbers and 6 actions, Crafter, and Atari in gray.
WALKER = Interface(
    (
        ObservationPart("orientations", "vector", (14,)),
        ObservationPart("height", "vector", (1,)),
        ObservationPart("velocity", "vector", (9,)),
    ),
    (ActionPart("action", "continuous", 6),),
)
CRAFTER = Interface((ObservationPart("image", "image", (64, 64, 3)),), (ActionPart("action", "discrete", 1, (17,)),))
ATARI = Interface((ObservationPart("image", "image", (96, 96, 1)),), (ActionPart("action", "discrete", 1, (18,)),))
SMALL = {"deterministic": 16, "hidden": 8, "classes": 4, "units": 8, "variables": 4, "blocks": 4, "depth": 4}
MIXED = Interface(
    (
        ObservationPart("camera", "image", (33, 50, 3)),
        ObservationPart("inventory", "discrete", (2,), (3, 5)),
        ObservationPart("speed", "vector", (2,)),
    ),
    (ActionPart("move", "continuous", 2), ActionPart("tool", "discrete", 2, (3, 2))),
)


def counts(config, interface):
    with torch.device("meta"):
        return config.build(interface).count_parameters()


def small(year=2025, interface=MIXED, **values):
    torch.manual_seed(0)
    if year == 2025:
        config = DreamerV3Config(**{**SMALL, "horizon": 3, **values})
    else:
        config = DreamerV3In2023Config(
            deterministic=16, units=8, depth=4, layers=1, variables=4, classes=4, horizon=3, **values
        )
    agent = config.build(interface)
    agent.optimizer = config.build_optimizer(agent)
    return agent


def random_batch(agent, batch=2, steps=5):
    generator = np.random.default_rng(0)
    length = steps + agent.replay_context
    data = {}
    for part in agent.interface.observations:
        shape = (batch, length, *part.shape)
        if part.kind == "vector":
            data[part.name] = generator.normal(size=shape).astype(np.float32)
        else:
            data[part.name] = generator.integers(0, min(part.classes, default=256), shape).astype(part.dtype)
    data["action"] = generator.uniform(-1, 1, (batch, length, agent.interface.action_width)).astype(np.float32)
    data["reward"] = generator.normal(size=(batch, length)).astype(np.float32)
    for flag in ("is_first", "is_last", "is_terminal"):
        data[flag] = np.zeros((batch, length), bool)
    data["is_last"][0, 2], data["is_first"][0, 3] = True, True
    if agent.replay_context:
        for name, (shape, dtype) in agent.latent_fields.items():
            data[name] = generator.integers(0, 4, (batch, length, *shape)).astype(dtype)
    return {name: torch.from_numpy(value) for name, value in data.items()}
