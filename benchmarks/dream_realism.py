"""How true the dream of Take Cover is: how long players with a simple plan live in it, and in the game.

    .venv/bin/python benchmarks/dream_realism.py RUN [EPISODES] [TEMPERATURE ...]

RUN is the run folder of `reverie train world-models --env VizdoomTakeCover-v1`. The players look at nothing: they stand
still, walk to one side and stay there, or go to and fro, turning after so many tics. Prints a row for each: tics in the
game, then in the dream at each temperature (1.15 if none is given), mean and standard deviation over EPISODES (100). A
dream that is much kinder than the game to one of them can be cheated by a controller that does the same.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import reverie
from reverie.agents.world_models import WorldModelsAgent
from reverie.dream.dream import Dream
from reverie.envs import EnvironmentSource
from reverie.training.pipeline.players import Players
from reverie.training.pipeline.policies import Job

LIMIT = 2100
Plan = Callable[[int], float]


def to_and_fro(tics: int) -> Plan:
    """Turns after so many tics, the first time after half of them."""
    return lambda tic: 1.0 if (tic + tics // 2) // tics % 2 else -1.0


PLANS: dict[str, Plan] = {
    "stand still": lambda tic: 0.0,
    "left corner": lambda tic: -1.0,
    "right corner": lambda tic: 1.0,
    **{f"to and fro, {tics} tics": to_and_fro(tics) for tics in (20, 60, 120)},
}


class PlanPolicy:
    """Follows a plan in every episode."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def begin(self, jobs: Sequence[Job]) -> None:
        """New episodes take the place of the old ones."""
        self.tic, self.count = 0, len(jobs)

    def act(self, observation: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Flat actions [n, 1]."""
        self.tic += 1
        return np.full((self.count, 1), self.plan(self.tic - 1), np.float32)

    def keep(self, running: NDArray[np.int64]) -> None:
        """Only the episodes of these numbers continue."""
        self.count = len(running)

    def surprise(self) -> NDArray[np.float64]:
        """Nothing surprises a plan."""
        return np.zeros(self.count)


def tics_in_the_game(plan: Plan, episodes: int) -> NDArray[np.int64]:
    """Length of every episode in the game."""
    players = Players(EnvironmentSource("reverie/TakeCover-v0"), 0, 8)
    jobs = [Job(1000 + number) for number in range(episodes)]
    lengths = [episode.length for episode in players.play(PlanPolicy(plan), jobs, longest=LIMIT)]
    players.close()
    return np.array(lengths)


def tics_in_the_dream(agent: WorldModelsAgent, plan: Plan, episodes: int, temperature: float) -> NDArray[np.int64]:
    """Length of every dream, each from the first frame of a random episode."""
    generator = np.random.default_rng(0)
    starts = agent.first_states(agent.first_latents.shape[1], generator)
    dream = Dream(agent.world_model, starts, 1, temperature, draw_ends=False)
    dream.random = generator
    dream.begin_at(generator.integers(starts.count, size=episodes))
    lengths, running = np.full(episodes, LIMIT), np.arange(episodes)
    for tic in range(LIMIT):
        _, ended, _ = dream.step(np.full((len(running), 1), plan(tic), np.float32))
        lengths[running[ended]] = tic + 1
        running = running[~ended]
        if not len(running):
            break
        dream.keep(~ended)
    return lengths


def main() -> None:
    """Plays and prints."""
    run, episodes = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100
    temperatures = [float(word) for word in sys.argv[3:]] or [1.15]
    agent = reverie.load(run).agent
    print("| player | game |", *(f"dream, temperature {temperature} |" for temperature in temperatures))
    for name, plan in PLANS.items():
        lengths = [tics_in_the_game(plan, episodes)]
        lengths += [tics_in_the_dream(agent, plan, episodes, temperature) for temperature in temperatures]
        print(f"| {name} |", *(f"{tics.mean():.0f} ± {tics.std():.0f} |" for tics in lengths), flush=True)


if __name__ == "__main__":
    main()
