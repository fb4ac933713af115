"""The right name of a setting that was mistyped, or that other libraries call otherwise."""

from __future__ import annotations

import difflib
from collections.abc import Collection

ELSEWHERE: dict[str, tuple[str, ...]] = {
    "lr": ("learning_rate", "model_learning_rate"),
    "learning_rate": ("model_learning_rate",),
    "model_lr": ("model_learning_rate", "learning_rate"),
    "actor_lr": ("actor_learning_rate", "behavior_learning_rate", "learning_rate"),
    "critic_lr": ("critic_learning_rate", "behavior_learning_rate", "learning_rate"),
    "value_lr": ("critic_learning_rate", "behavior_learning_rate", "learning_rate"),
    "gamma": ("discount_horizon", "discount"),
    "discount": ("discount_horizon",),
    "discount_factor": ("discount_horizon", "discount"),
    "lambda": ("return_mix",),
    "gae_lambda": ("return_mix",),
    "discount_lambda": ("return_mix",),
    "imagination_horizon": ("horizon",),
    "imag_horizon": ("horizon",),
    "planning_horizon": ("horizon",),
    "ent_coef": ("entropy",),
    "entropy_coef": ("entropy",),
    "actor_entropy": ("entropy",),
    "train_ratio": ("replay_ratio", "updates"),
    "utd": ("replay_ratio", "updates"),
    "batch_len": ("batch_length",),
    "seq_len": ("batch_length",),
    "sequence_length": ("batch_length",),
    "buffer_size": ("replay_capacity",),
    "replay_size": ("replay_capacity",),
    "learning_starts": ("warmup_steps", "random_episodes"),
    "prefill": ("warmup_steps", "random_episodes"),
    "seed_steps": ("warmup_steps", "random_episodes"),
    "grad_clip": ("gradient_clip",),
    "max_grad_norm": ("gradient_clip",),
    "free_bits": ("free_nats",),
    "unimix": ("uniform_mix",),
    "deter": ("deterministic",),
    "stoch": ("variables",),
    "n_envs": ("num_envs",),
    "envs": ("num_envs",),
    "total_timesteps": ("steps",),
    "total_steps": ("steps",),
    "timesteps": ("steps",),
    "logdir": ("run",),
    "log_dir": ("run",),
    "env_id": ("env",),
    "task": ("env",),
}
"""Names in papers and other libraries -> ours; of several the first that an agent has."""


def name_here(name: str, known: Collection[str]) -> str | None:
    """What a setting of other libraries is called here.

    Args:
        name: with hyphens or underscores.
        known: the names that there are.
    """
    return next((own for own in ELSEWHERE.get(name.replace("-", "_"), ()) if own in known), None)


def nearest_name(name: str, known: Collection[str]) -> str | None:
    """The name that was probably meant: what other libraries mean by it, or the most similar one."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.4)
    return name_here(name, known) or (close[0] if close else None)
