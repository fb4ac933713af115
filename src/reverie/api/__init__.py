"""The Python interface: an agent bound to an environment.

>>> agent = reverie.DreamerV3("CartPole-v1", seed=0)
>>> agent.learn(20_000)
>>> agent.save("cartpole")
>>> agent = reverie.load("cartpole")
>>> action, state = agent.predict(observation, state)
"""

from reverie.agents.registry import register_agent
from reverie.api.checking import check
from reverie.api.learner import Learner
from reverie.api.learners import LEARNERS, DreamerV1, DreamerV2, DreamerV3, DreamerV3In2023, PlaNet, WorldModels
from reverie.api.loading import load
from reverie.training.environment_check import EnvironmentReport
from reverie.training.evaluation import Evaluation

__all__ = [
    "LEARNERS",
    "DreamerV1",
    "DreamerV2",
    "DreamerV3",
    "DreamerV3In2023",
    "EnvironmentReport",
    "Evaluation",
    "Learner",
    "PlaNet",
    "WorldModels",
    "check",
    "load",
    "register_agent",
]
