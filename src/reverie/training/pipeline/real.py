"""Controllers tried in the real environment, where World Models evolves them for CarRacing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from reverie.behaviors.controllers import Controller
from reverie.dream.evolve import flat_actions
from reverie.envs import EnvironmentPool
from reverie.models.vision_memory import MemoryState, VisionMemory
from reverie.training.evaluation import to_tensors


@torch.no_grad()
def real_returns(
    pool: EnvironmentPool,
    model: VisionMemory,
    controller: Controller,
    candidates: np.ndarray,
    rollouts: int,
    first_episode: int,
    stop: Callable[[], bool],
) -> np.ndarray | None:
    """Mean real return of every candidate; the environments of the pool play whole episodes, one after the other.

    Candidates play different episodes: which one depends on the environment that is free.

    Args:
        pool: E real environments.
        model: V and M, which watch every episode.
        controller: C.
        candidates: [P, n].
        rollouts: R, episodes of each candidate.
        first_episode: number of the first episode of every environment, which seeds it.
        stop: asked before every step; true gives up.

    Returns:
        Undiscounted returns, float64 [P], or None if `stop` gave up.
    """
    device = next(model.parameters()).device
    parameters = torch.from_numpy(candidates).to(device, torch.float32)
    jobs = list(np.arange(len(candidates)).repeat(rollouts))
    playing = np.array([jobs.pop(0) if jobs else -1 for _ in range(pool.num_envs)])
    totals = np.zeros(len(candidates))
    episodes = np.full(pool.num_envs, first_episode)
    steps = pool.start_new_episodes(episodes)
    state: MemoryState | None = None
    action = torch.zeros(pool.num_envs, model.memory.action, device=device)
    while (playing >= 0).any():
        if stop():
            return None
        tensors = to_tensors(steps.observation, device)
        latent = model.encode(tensors[model.name])
        opening = model.begin(latent)
        first = torch.from_numpy(steps.is_first).to(device)
        state = opening if state is None else model.remember(state, action, latent).replace_where(first, opening)
        np.add.at(totals, playing[playing >= 0], np.where(steps.is_first, 0, steps.reward)[playing >= 0])
        own = parameters[torch.from_numpy(np.maximum(playing, 0)).to(device)]
        action = flat_actions(controller(own, model.feature(state).unsqueeze(1))[:, 0], pool.interface.actions)
        for e in np.flatnonzero(steps.is_last & (playing >= 0)):
            playing[e] = jobs.pop(0) if jobs else -1
        steps = pool.step(action.cpu().numpy())
    return totals / rollouts
