"""Evolve a linear controller in the dream of a world model, then let it act in the real environment.

python examples/evolve_in_dream.py runs/demo   a minute on one core
python examples/evolve_in_dream.py --tiny      trains a tiny world model first, for some seconds
"""

import sys
from pathlib import Path

import reverie
from reverie.behaviors.controllers import LinearController
from reverie.behaviors.evolution import Evolution
from reverie.dream.dream import Dream, collect_starts
from reverie.dream.evolve import ControlledAgent, evolve
from reverie.training.evaluation import evaluate

generations = 30
if "--tiny" in sys.argv:
    generations = 2
    settings = {"size": "100k", "deterministic": 32, "hidden": 16, "units": 16, "variables": 4, "classes": 4}
    settings |= {"batch_size": 4, "batch_length": 8, "horizon": 3, "warmup_steps": 50}
    settings |= {"videos": False, "evaluate_every": 0, "evaluation_episodes": 2}
    reverie.DreamerV3("CartPole-v1", run="tiny", **settings).learn(200)
    folder = Path("tiny")
elif len(sys.argv) == 2:
    folder = Path(sys.argv[1])
else:
    sys.exit(__doc__)

learner = reverie.load(folder)
agent, parts = learner.agent, learner.interface.actions
dream = Dream(agent.world_model, collect_starts(agent, learner.source, count=256, context=1, seed=0), lanes=1)
controller = LinearController(agent.world_model.features, learner.interface.action_width)
evolution = Evolution(controller.count, population=32)
for generation in evolve(dream, controller, evolution, parts, generations, rollouts=8, horizon=200):
    print(f"generation {generation.number:>3}   dreamed return: best {generation.best:.1f}, mean {generation.mean:.1f}")
result = evaluate(ControlledAgent(agent, controller, evolution.mean), learner.source, episodes=20, seed=0)
print(f"mean return {result.mean:.1f} ± {result.standard_deviation:.1f} in the real environment")
