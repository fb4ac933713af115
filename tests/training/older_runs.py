"""Options of tiny runs of the agents before DreamerV3."""

NETWORKS = {"size": None, "vector_units": 8, "vector_layers": 1, "reward_layers": 1}
HEADS = {"actor_layers": 1, "critic_layers": 1}
OPTIONS = {
    "planet": NETWORKS
    | {"units": None, "classes": None, "warmup_steps": None, "replay_ratio": None, "reward_units": 8}
    | {"random_episodes": 3, "updates": 2, "candidates": 10, "elites": 3, "iterations": 2},
    "dreamer-v1": NETWORKS | HEADS | {"classes": None, "replay_ratio": None, "update_every": 16, "updates": 4},
    "dreamer-v2": NETWORKS | HEADS | {"continue_layers": 1, "first_updates": 2},
}
