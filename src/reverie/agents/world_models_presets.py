"""Presets of World Models (2018), and the names of the tasks of its paper."""

from __future__ import annotations

from typing import Any

TAKE_COVER: dict[str, Any] = {
    "living_reward": 1.0,
    "controller_reads": "zch",
    "controller_bias": False,
    "shortest_episode": 101,
}
CAR_RACING: dict[str, Any] = {
    "latent": 32,
    "memory_units": 256,
    "living_reward": 0.0,
    "end_head": False,
    "collect_steps": 1000,
    "collect_policy": "wandering",
    "memory_updates": 4000,
    "memory_length": 999,
    "evolve_in": "environment",
}
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "take-cover": TAKE_COVER,
    "take-cover-small": {
        **TAKE_COVER,
        "collect_episodes": 3000,
        "collect_policy": "varied",
        "hold": 200,
        "vision_learning_rate": 3e-4,
        "memory_batch": 50,
        "memory_length": 200,
        "memory_updates": 2500,
        "rollouts": 8,
        "generations": 20,
        "evaluate_every": 10,
    },
    "car-racing": CAR_RACING,
    "car-racing-small": {
        **CAR_RACING,
        "collect_episodes": 1000,
        "collect_steps": 300,
        "vision_epochs": 2,
        "memory_length": 299,
        "memory_updates": 1500,
        "population": 32,
        "rollouts": 2,
        "generations": 60,
        "evaluate_every": 20,
    },
    "quick": {
        "latent": 16,
        "memory_units": 128,
        "collect_episodes": 400,
        "vision_epochs": 6,
        "vision_batch": 32,
        "vision_learning_rate": 5e-4,
        "memory_updates": 1500,
        "memory_batch": 16,
        "memory_length": 50,
        "population": 32,
        "rollouts": 8,
        "generations": 40,
        "dream_horizon": 100,
        "evaluate_every": 10,
        "evaluation_episodes": 50,
    },
}
"""`take-cover` and `car-racing` are the paper's agents, the small ones what a CPU trains in hours (ours). `quick` is
ours too: small tasks with simple pictures, in minutes."""

RECIPES = {
    "reverie/TakeCover-v0": ("reverie/TakeCover-v0", "take-cover"),
    "VizdoomTakeCover-v1": ("reverie/TakeCover-v0", "take-cover"),
    "reverie/WorldModelsCarRacing-v0": ("reverie/WorldModelsCarRacing-v0", "car-racing"),
    "CarRacing-v3": ("reverie/WorldModelsCarRacing-v0", "car-racing"),
    "reverie/CarRacing-v0": ("reverie/WorldModelsCarRacing-v0", "car-racing"),
}
"""The paper's two tasks by the names that people know them by: the environment as the paper saw it, and the preset."""
