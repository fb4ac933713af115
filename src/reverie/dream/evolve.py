"""Controllers evolved in dreams (World Models, Ha and Schmidhuber, 2018), on any world model that can be dreamed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reverie.agents.imagination_agent import ImaginationAgent, PolicyState
from reverie.behaviors.controllers import Controller, flat_actions
from reverie.behaviors.evolution import Evolution
from reverie.dream.dream import Dream
from reverie.errors import ConfigError
from reverie.spaces import ActionPart


@torch.no_grad()
def dreamed_returns(
    dream: Dream,
    controller: Controller,
    parameters: Tensor,
    parts: Sequence[ActionPart],
    rollouts: int,
    horizon: int,
) -> np.ndarray:
    """Dreamed returns of every candidate; all P x R rollouts are one batch, which finished ones leave.

    Rollout r of all candidates begins in the same start, so that luck with starts is shared.

    Args:
        dream: its lanes are used up.
        controller: reads the features [F] of a state.
        parameters: [P, n].
        parts: action parts of the environment.
        rollouts: R.
        horizon: steps after which a rollout is cut off.

    Returns:
        Undiscounted returns, float64 [P, R].
    """
    population = parameters.shape[0]
    starts = dream.random.integers(dream.starts.count, size=rollouts)
    dream.begin_at(np.tile(starts, population))
    candidate = np.arange(population).repeat(rollouts)
    totals = np.zeros(population * rollouts)
    running = np.arange(population * rollouts)
    device = dream.starts.device
    for _ in range(horizon):
        own = parameters[torch.from_numpy(candidate).to(device)]
        outputs = controller(own, dream.features().unsqueeze(1))[:, 0]
        reward, ended, _ = dream.step(flat_actions(outputs, parts).cpu().numpy())
        totals[running] += reward
        if ended.any():
            candidate, running = candidate[~ended], running[~ended]
            if not len(running):
                break
            dream.keep(~ended)
    return totals.reshape(population, rollouts)


@dataclass
class Generation:
    """What one generation gave: its number from 1 on, and the best and mean dreamed return of its candidates."""

    number: int
    best: float
    mean: float


def evolve(
    dream: Dream,
    controller: Controller,
    evolution: Evolution,
    parts: Sequence[ActionPart],
    generations: int,
    *,
    rollouts: int = 16,
    horizon: int = 100,
    progress: Callable[[Generation], None] | None = None,
) -> list[Generation]:
    """Evolves a controller in dreams by CMA-ES; `evolution.mean` is the result (released code of World Models).

    Args:
        dream: where candidates are tried.
        controller: with `evolution.count` parameters.
        evolution: continues from where it is.
        parts: action parts of the environment.
        generations: how many more.
        rollouts: dreams of each candidate and generation; 16 in the paper.
        horizon: steps after which a dream is cut off.
        progress: called after every generation.

    Raises:
        ConfigError: the controller has another number of parameters, or a number is below 1.
    """
    if controller.count != evolution.count:
        raise ConfigError(
            f"the controller has {controller.count} parameters, but {evolution.count} are evolved; give the evolution "
            f"count={controller.count}"
        )
    if min(generations, rollouts, horizon) < 1:
        raise ConfigError(
            f"generations, rollouts and horizon must be at least 1, got {generations}, {rollouts} and {horizon}"
        )
    history: list[Generation] = []
    for _ in range(generations):
        candidates = evolution.ask()
        parameters = torch.from_numpy(candidates).to(dream.starts.device, torch.float32)
        returns = dreamed_returns(dream, controller, parameters, parts=parts, rollouts=rollouts, horizon=horizon).mean(
            1
        )
        evolution.tell(candidates, returns)
        history.append(Generation(evolution.generation, float(returns.max()), float(returns.mean())))
        if progress:
            progress(history[-1])
    return history


class ControlledAgent:
    """A world model that watches, and an evolved controller that acts; `reverie.training.evaluation.play` takes it.

    Args:
        agent: its world model is used, its own actor is not.
        controller: reads features [D + S C].
        parameters: of the controller, float64 [n].
    """

    def __init__(self, agent: ImaginationAgent, controller: Controller, parameters: np.ndarray) -> None:
        self.agent, self.controller = agent, controller
        self.parameters = torch.from_numpy(parameters).to(agent.device, torch.float32).unsqueeze(0)

    @property
    def device(self) -> torch.device:
        """Where the world model is."""
        return self.agent.device

    @torch.no_grad()
    def act(
        self,
        observation: Mapping[str, Tensor],
        is_first: Tensor,
        state: PolicyState | None = None,
        deterministic: bool = False,
    ) -> tuple[Tensor, PolicyState]:
        """Chooses an action for every environment, as `ImaginationAgent.act` does."""
        latent = self.agent.watch(observation, is_first, state, deterministic=deterministic)
        outputs = self.controller(self.parameters, latent.feature.float().unsqueeze(0))[0]
        action = flat_actions(outputs, self.agent.interface.actions)
        return action, PolicyState(latent, action)
