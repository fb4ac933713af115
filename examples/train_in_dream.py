"""Train another library's agent in the dream of a world model, then let it act in the real environment.

pip install "reverie-rl[baselines]"
python examples/train_in_dream.py runs/demo   PPO of Stable-Baselines3 in the dream of a trained agent, a minute or two
python examples/train_in_dream.py --tiny      trains a tiny world model first and PPO briefly, for some seconds
"""

import sys
from pathlib import Path

import gymnasium

import reverie

try:
    from stable_baselines3 import PPO
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor
except ImportError:
    sys.exit('this example needs Stable-Baselines3: pip install "reverie-rl[baselines]"')

steps = 20_000
if "--tiny" in sys.argv:
    steps = 64
    settings = {"size": "100k", "deterministic": 32, "hidden": 16, "units": 16, "variables": 4, "classes": 4}
    settings |= {"batch_size": 4, "batch_length": 8, "horizon": 3, "warmup_steps": 50}
    settings |= {"videos": False, "evaluate_every": 0, "evaluation_episodes": 2}
    reverie.DreamerV3("CartPole-v1", run="tiny", **settings).learn(200)
    folder = Path("tiny")
elif len(sys.argv) == 2:
    folder = Path(sys.argv[1])
else:
    sys.exit(__doc__)

agent = reverie.load(folder)
dream = Monitor(agent.dream_env(horizon=200, starts=512))  # a gymnasium.Env with the spaces of the real one
real = Monitor(gymnasium.make(agent.source.name))

ppo = PPO("MlpPolicy", dream, n_steps=min(steps, 1024), batch_size=64, seed=1, device="cpu")
before, _ = evaluate_policy(ppo, real, n_eval_episodes=10)
ppo.learn(steps)
dreamed, _ = evaluate_policy(ppo, dream, n_eval_episodes=10)
after, deviation = evaluate_policy(ppo, real, n_eval_episodes=20)
print(f"mean return before training  {before:.1f}, real environment")
print(f"mean return after {steps:,} steps in the dream  {dreamed:.1f} of at most 200 in the dream")
print(f"mean return after {steps:,} steps in the dream  {after:.1f} ± {deviation:.1f}, real environment")
