"""Trains PPO of Stable-Baselines3 in the dream of a CartPole model and scores it in the real CartPole.

    .venv/bin/python benchmarks/train_in_dream.py RUN PPO_SEED HORIZON [--most-likely]

Prints a JSON line: mean lengths of episodes under random actions, and the scores after every 10,000 dreamed steps.
With `--most-likely`, dreams draw neither latents nor ends.
"""

import json
import sys

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

import reverie

ROUNDS, STEPS = 5, 10_000


def random_length(environment: gymnasium.Env, episodes: int = 200) -> float:
    """Mean length of episodes under random actions."""
    generator, lengths = np.random.default_rng(0), []
    for episode in range(episodes):
        environment.reset(seed=episode)
        length, ended = 0, False
        while not ended:
            _, _, terminated, truncated, _ = environment.step(int(generator.integers(2)))
            length, ended = length + 1, terminated or truncated
        lengths.append(length)
    return float(np.mean(lengths))


def main() -> None:
    """Reads the arguments, trains and prints."""
    run, seed, horizon = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    agent = reverie.load(run)
    options = {"horizon": horizon, "starts": 512, "most_likely": "--most-likely" in sys.argv}
    dream, real = Monitor(agent.dream_env(**options)), Monitor(gymnasium.make("CartPole-v1"))
    result = {"ppo_seed": seed, **options, "random_length_dream": random_length(dream)}
    result |= {"random_length_real": random_length(real), "scores": []}
    ppo = PPO("MlpPolicy", dream, n_steps=1024, batch_size=64, seed=seed, device="cpu")
    for done in range(ROUNDS + 1):
        if done:
            ppo.learn(STEPS, reset_num_timesteps=False)
        mean, deviation = evaluate_policy(ppo, real, 20)
        dreamed, _ = evaluate_policy(ppo, dream, 10)
        result["scores"].append(
            {"dreamed_steps": done * STEPS, "real": float(mean), "std": float(deviation), "dream": float(dreamed)}
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
