"""Train from images: a ball falls, a paddle catches it, and the agent sees 64 x 64 pixels.

python examples/pixels.py          2,500 updates, about a quarter of an hour on a CPU
python examples/pixels.py --tiny   some seconds, learns nothing

Any environment that can render may be learned from pixels: reverie.DreamerV3("CartPole-v1", pixels=True).
"""

import sys

import reverie
from reverie.dream.open_loop import save_open_loop

steps, settings = 15_000, {"replay_storage": "disk"}  # images fill the memory, so keep them on disk
if "--tiny" in sys.argv:
    steps = 200
    settings = {"size": "100k", "deterministic": 32, "hidden": 16, "units": 16, "variables": 4, "classes": 4}
    settings |= {"batch_size": 4, "batch_length": 8, "horizon": 3, "warmup_steps": 50, "replay_ratio": 8}
    settings |= {"videos": False, "evaluate_every": 0, "evaluation_episodes": 2}

agent = reverie.DreamerV3("reverie/CatchPixels-v0", seed=0, **settings)
agent.learn(steps)
print("mean return of 10 episodes, at most 5:", agent.evaluate(episodes=10).mean)

# What the world model expects: it sees the first half of some episodes and imagines the other half.
dream = agent.dream(length=40, sequences=4)
for path in save_open_loop(dream, agent.run_folder / "videos" / "dream"):
    print("truth, model and difference:", path)
