"""Train DreamerV3 on CartPole, evaluate it, save it, load it, and act with it.

python examples/quickstart.py          some five minutes on a CPU
python examples/quickstart.py --tiny   some seconds, shows that everything runs, learns nothing
"""

import sys

import gymnasium

import reverie

steps, settings = 12_000, {}
if "--tiny" in sys.argv:
    steps = 200
    settings = {"size": "100k", "deterministic": 32, "hidden": 16, "units": 16, "variables": 4, "classes": 4}
    settings |= {"batch_size": 4, "batch_length": 8, "horizon": 3, "warmup_steps": 50, "replay_ratio": 16}
    settings |= {"videos": False, "evaluate_every": 0, "evaluation_episodes": 2}

agent = reverie.DreamerV3("CartPole-v1", seed=0, **settings)
agent.learn(steps)  # a progress bar; everything is written to runs/CartPole-v1/dreamer-v3/0
agent = reverie.load(agent.run_folder)  # the weights of the best evaluation; after `learn` an agent has the newest
print("mean return of 10 episodes:", agent.evaluate(episodes=10).mean)
agent.save("cartpole")  # a folder with config.json and model.safetensors

agent = reverie.load("cartpole")
environment = gymnasium.make("CartPole-v1")
observation, _ = environment.reset(seed=1)
state, total, ended = None, 0.0, False  # the state is the agent's memory; None begins an episode
while not ended:
    action, state = agent.predict(observation, state)
    observation, reward, terminated, truncated, _ = environment.step(action)
    total += float(reward)
    ended = terminated or truncated
print("return of one episode:", total)
