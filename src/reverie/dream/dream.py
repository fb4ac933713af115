"""Dreams: several rollouts side by side in a trained world model, a step at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Protocol

import numpy as np
import torch
from torch import Tensor

from reverie.envs import EnvironmentPool, EnvironmentSource, Vectorization, make_pool
from reverie.errors import ConfigError
from reverie.models.dream_model import DreamModel, State

MOST_ENVIRONMENTS = 16
"""Real environments that are played at once to find starts."""
MOST_LANES = 1_000_000
"""Dreams side by side, and states to begin them in."""


class Dream(Generic[State]):
    """E lanes that dream in one world model.

    Args:
        world_model: makes the transitions.
        starts: states from which dreams begin, [N, ...]; see `collect_starts`.
        lanes: E.
        temperature: of the latents' distributions; 1 is the model's own.
        most_likely: take the most likely latents instead of samples.
        draw_ends: draw the ends of episodes with the model's probability; otherwise an episode ends where that is
            above the model's `end_threshold`. By default they are drawn unless `most_likely`.

    Attributes:
        state: where every lane is, [E, ...].
        random: draws starts and ends, and seeds the sampling of every step.

    Raises:
        ConfigError: there is no start, or a number is out of range.
    """

    def __init__(
        self,
        world_model: DreamModel[State],
        starts: State,
        lanes: int,
        temperature: float = 1.0,
        most_likely: bool = False,
        draw_ends: bool | None = None,
    ) -> None:
        if starts.count < 1 or not 1 <= lanes <= MOST_LANES:
            raise ConfigError(
                f"a dream needs at least one start and one lane, and at most {MOST_LANES:,} lanes, got {starts.count} "
                f"and {lanes}"
            )
        if not 0 < temperature < float("inf"):
            raise ConfigError(
                f"temperature must be above 0, got {temperature}; for the limit at 0 take the most likely latents"
            )
        self.world_model, self.starts, self.lanes = world_model, starts, lanes
        self.temperature, self.most_likely = temperature, most_likely
        self.draw_ends = not most_likely if draw_ends is None else draw_ends
        self._least = 1 - world_model.end_threshold
        self.random = np.random.default_rng(0)
        self._devices = [starts.device] if starts.device.type == "cuda" else []
        self.begin_at(np.zeros(lanes, np.int64))

    def begin_at(self, index: np.ndarray) -> None:
        """Puts as many lanes as there are entries to the starts of these numbers, int [E]."""
        self.lanes = len(index)
        self.state = self.starts.select(torch.from_numpy(index).to(self.starts.device))

    def begin(self, mask: np.ndarray) -> None:
        """Puts the lanes where `mask` [E] is true to starts drawn at random."""
        index = self.random.integers(self.starts.count, size=self.lanes)
        fresh = self.starts.select(torch.from_numpy(index).to(self.starts.device))
        self.state = self.state.replace_where(torch.from_numpy(mask).to(self.starts.device), fresh)

    def keep(self, mask: np.ndarray) -> None:
        """Only the lanes where `mask` [E] is true dream on."""
        self.state = self.state.select(torch.from_numpy(np.flatnonzero(mask)).to(self.starts.device))
        self.lanes = self.state.count

    @torch.no_grad()
    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Moves every lane by one step.

        Args:
            action: flat actions, float32 [E, A].

        Returns:
            Expected rewards float32 [E]; whether the episode ended, bool [E]; and the probability with which it
            continued, float32 [E].
        """
        chosen = torch.from_numpy(np.ascontiguousarray(action, np.float32)).to(self.starts.device)
        with torch.random.fork_rng(self._devices):
            torch.manual_seed(int(self.random.integers(2**63 - 1)))
            self.state, reward, going_on = self.world_model.dream(
                self.state, chosen, self.temperature, most_likely=self.most_likely
            )
        probability = going_on.float().cpu().numpy()
        drawn = self.random.random(self.lanes) if self.draw_ends else np.full(self.lanes, self._least)
        return reward.float().cpu().numpy(), probability < drawn, probability

    @torch.no_grad()
    def decode(self) -> dict[str, np.ndarray]:
        """What every lane would observe: part name -> [E, *shape], in the dtype of the part."""
        return {name: value.cpu().numpy() for name, value in self.world_model.draw(self.state).items()}

    def features(self) -> Tensor:
        """What controllers read of every lane, float32 [E, F]."""
        return self.world_model.feature(self.state).float()


class Watcher(Protocol):
    """An agent whose `act` returns what it carries on, with the state of the world model as `latent`."""

    @property
    def device(self) -> torch.device:
        """Where its networks are."""
        ...

    def act(self, observation: Mapping[str, Tensor], is_first: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Flat actions [E, A] for observations [E, ...], and what to pass as `state` next time."""
        ...


@torch.no_grad()
def collect_starts(
    agent: Watcher,
    source: EnvironmentSource,
    count: int,
    context: int,
    seed: int,
    vectorization: Vectorization = "auto",
) -> Any:
    """States of the world model after the first real steps of episodes, from which dreams can begin.

    Args:
        agent: observes and acts, with samples; an `ImaginationAgent` or a `WorldModelsAgent`.
        source: the real environment.
        count: N, number of starts.
        context: observations of each episode that the model sees; 1 is the first alone.
        seed: of the episodes and of sampling.
        vectorization: see `make_pool`.

    Returns:
        States [N, ...]; less than `count` where most episodes are shorter than `context`.

    Raises:
        ConfigError: a number is out of range, or no episode continues after `context` observations.
    """
    if not 1 <= count <= MOST_LANES or context < 1:
        raise ConfigError(f"starts must be 1 to {MOST_LANES:,} and context at least 1, got {count} and {context}")
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed must be between 0 and 4294967295, got {seed}")
    devices = [agent.device] if agent.device.type == "cuda" else []
    lanes = 1 if source.kind == "object" else min(count, MOST_ENVIRONMENTS)
    found: list[Any] = []
    with torch.random.fork_rng(devices), make_pool(source, lanes, seed, vectorization=vectorization) as pool:
        torch.manual_seed(seed)
        for number in range(count + 10):
            found.append(_begin_episodes(agent, pool, number, context=context))
            if sum(state.count for state in found) >= count:
                break
    if not any(state.count for state in found):
        raise ConfigError(
            f"none of {lanes * (count + 10)} episodes of {source.name} continued after {context} observations; give a "
            f"smaller context"
        )
    return type(found[0]).join(found).select(torch.arange(min(count, sum(state.count for state in found))))


def _begin_episodes(agent: Watcher, pool: EnvironmentPool, number: int, context: int) -> Any:
    """The states after `context` observations of episode `number` in every environment where it continues."""
    steps = pool.start_new_episodes(np.full(pool.num_envs, number))
    state = None
    goes_on = np.ones(pool.num_envs, np.bool_)
    for _ in range(context):
        if state is not None:
            steps = pool.step(state.action.float().cpu().numpy())
        goes_on &= ~steps.is_last
        if state is not None and not goes_on.any():
            break
        observation = {name: torch.from_numpy(value).to(agent.device) for name, value in steps.observation.items()}
        _, state = agent.act(observation, torch.from_numpy(steps.is_first).to(agent.device), state)
    assert state is not None
    return state.latent.select(torch.from_numpy(np.flatnonzero(goes_on)).to(agent.device))
