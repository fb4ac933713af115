"""Load a trained agent and act with it in a loop.

python examples/load_and_act.py runs/CartPole-v1/dreamer-v3/0   a run folder or a saved agent
python examples/load_and_act.py --tiny                          trains a tiny agent first, for some seconds
"""

import sys
from pathlib import Path

import reverie

if "--tiny" in sys.argv:
    settings = {"size": "100k", "deterministic": 32, "hidden": 16, "units": 16, "variables": 4, "classes": 4}
    settings |= {"batch_size": 4, "batch_length": 8, "horizon": 3, "warmup_steps": 50}
    settings |= {"videos": False, "evaluate_every": 0, "evaluation_episodes": 2}
    reverie.DreamerV3("CartPole-v1", run="tiny", **settings).learn(200)
    folder = Path("tiny")
elif len(sys.argv) == 2:
    folder = Path(sys.argv[1])
else:
    sys.exit(__doc__)

agent = reverie.load(folder)  # the best checkpoint of a run; checkpoint="latest" takes the newest
environment = agent.adapter.environment  # a gymnasium.Env with the wrappers of training; one of your own does as well
for episode in range(3):
    observation, _ = environment.reset(seed=episode)
    state, total, ended = None, 0.0, False  # None begins an episode
    while not ended:
        # As agent.evaluate acts; deterministic=True takes the most likely latents and actions.
        action, state = agent.predict(observation, state)
        observation, reward, terminated, truncated, _ = environment.step(action)
        total += float(reward)
        ended = terminated or truncated
    print(f"episode {episode}: return {total:.1f}")
