"""Dreams: several rollouts side by side in a trained world model, a step at a time."""

from __future__ import annotations

import numpy as np
import torch

from reverie.agents.imagination_agent import ImaginationAgent
from reverie.envs import EnvironmentPool, EnvironmentSource, Vectorization, make_pool
from reverie.errors import ConfigError
from reverie.models.rssm import LatentState
from reverie.models.world_model import WorldModel

MOST_ENVIRONMENTS = 16
"""Real environments that are played at once to find starts."""


class Dream:
    """E lanes that dream in one world model; every step is `RSSM.imagine`, which agents also learn from.

    Args:
        world_model: makes the transitions.
        starts: states from which dreams begin, [N, ...]; see `collect_starts`.
        lanes: E.
        temperature: of the latents' distributions; 1 is the model's own.
        most_likely: take the most likely latents, and end an episode where it more likely ends than goes on, instead
            of drawing both.

    Attributes:
        state: where every lane is, [E, ...].
        random: draws starts, and seeds the sampling of every step.

    Raises:
        ConfigError: there is no start, or a number is out of range.
    """

    def __init__(
        self,
        world_model: WorldModel,
        starts: LatentState,
        lanes: int,
        temperature: float = 1.0,
        most_likely: bool = False,
    ) -> None:
        count = starts.deterministic.shape[0]
        if count < 1 or lanes < 1:
            raise ConfigError(f"a dream needs at least one start and one lane, got {count} and {lanes}")
        if not 0 < temperature < float("inf"):
            raise ConfigError(
                f"temperature must be above 0, got {temperature}; for the limit at 0 take the most likely latents"
            )
        self.world_model, self.starts, self.lanes = world_model, starts, lanes
        self.temperature, self.most_likely = temperature, most_likely
        self.random = np.random.default_rng(0)
        self._devices = [starts.deterministic.device] if starts.deterministic.is_cuda else []
        self.state = self._pick(np.zeros(lanes, np.int64))

    def _pick(self, index: np.ndarray) -> LatentState:
        where = torch.from_numpy(index).to(self.starts.deterministic.device)
        return LatentState(self.starts.deterministic[where], self.starts.stochastic[where])

    def begin_at(self, index: np.ndarray) -> None:
        """Puts as many lanes as there are entries to the starts of these numbers, int [E]."""
        self.lanes = len(index)
        self.state = self._pick(index)

    def keep(self, mask: np.ndarray) -> None:
        """Only the lanes where `mask` [E] is true dream on."""
        chosen = torch.from_numpy(np.flatnonzero(mask)).to(self.state.deterministic.device)
        self.state = LatentState(self.state.deterministic[chosen], self.state.stochastic[chosen])
        self.lanes = len(chosen)

    def begin(self, mask: np.ndarray) -> None:
        """Puts the lanes where `mask` [E] is true to starts drawn at random."""
        fresh = self._pick(self.random.integers(self.starts.deterministic.shape[0], size=self.lanes))
        chosen = torch.from_numpy(mask).to(fresh.deterministic.device).unsqueeze(-1)
        self.state = LatentState(
            torch.where(chosen, fresh.deterministic, self.state.deterministic),
            torch.where(chosen, fresh.stochastic, self.state.stochastic),
        )

    @torch.no_grad()
    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Moves every lane by one step.

        Args:
            action: flat actions, float32 [E, A].

        Returns:
            Expected rewards float32 [E]; whether the episode ended, bool [E]; and the probability with which it went
            on, float32 [E].
        """
        device = self.state.deterministic.device
        chosen = torch.from_numpy(np.ascontiguousarray(action, np.float32)).to(device)
        with torch.random.fork_rng(self._devices):
            torch.manual_seed(int(self.random.integers(2**63 - 1)))
            states = self.world_model.rssm.imagine(
                lambda feature, step: chosen, self.state, 1, self.most_likely, self.temperature
            )
        self.state = states[-1]
        feature = self.state.feature
        reward = self.world_model.predict_reward(feature).float().cpu().numpy()
        going_on = self.world_model.predict_continue(feature) / self.world_model.scales.continue_discount
        probability = going_on.float().clamp(max=1).cpu().numpy()
        drawn = np.full(self.lanes, 0.5) if self.most_likely else self.random.random(self.lanes)
        return reward, probability < drawn, probability

    @torch.no_grad()
    def decode(self) -> dict[str, np.ndarray]:
        """What every lane would observe: part name -> [E, *shape], in the dtype of the part."""
        decoder = self.world_model.decoder
        parts = decoder.predictions(decoder(self.state.feature.unsqueeze(1)))
        images = {part.name for group in decoder.image_groups for part in group}
        return {
            name: ((value.clamp(0, 1) * 255).round().to(torch.uint8) if name in images else value)[:, 0].cpu().numpy()
            for name, value in parts.items()
        }

    def features(self) -> np.ndarray:
        """The latent state of every lane, float32 [E, D + S C]."""
        return self.state.feature.float().cpu().numpy()


@torch.no_grad()
def collect_starts(
    agent: ImaginationAgent,
    source: EnvironmentSource,
    count: int,
    context: int,
    seed: int,
    vectorization: Vectorization = "auto",
) -> LatentState:
    """States of the world model after the first real steps of episodes, from which dreams can begin.

    Args:
        agent: observes and acts, with samples.
        source: the real environment.
        count: N, number of starts.
        context: observations of each episode that the model sees; 1 is the first alone.
        seed: of the episodes and of sampling.
        vectorization: see `make_pool`.

    Returns:
        States [N, ...]; less than `count` where most episodes are shorter than `context`.

    Raises:
        ConfigError: a number is below 1, or no episode goes on after `context` observations.
    """
    if count < 1 or context < 1:
        raise ConfigError(f"starts and context must be at least 1, got {count} and {context}")
    devices = [agent.device] if agent.device.type == "cuda" else []
    lanes = 1 if source.kind == "object" else min(count, MOST_ENVIRONMENTS)
    found: list[LatentState] = []
    with torch.random.fork_rng(devices), make_pool(source, lanes, seed, vectorization) as pool:
        torch.manual_seed(seed)
        for number in range(count + 10):
            found += _begin_episodes(agent, pool, number, context)
            if len(found) >= count:
                break
    if not found:
        raise ConfigError(
            f"none of {lanes * (count + 10)} episodes of {source.name} went on after {context} observations; give a "
            f"smaller context"
        )
    return LatentState(
        torch.stack([state.deterministic for state in found[:count]]),
        torch.stack([state.stochastic for state in found[:count]]),
    )


def _begin_episodes(agent: ImaginationAgent, pool: EnvironmentPool, number: int, context: int) -> list[LatentState]:
    """The states after `context` observations of episode `number` in every environment where it goes on after them."""
    steps = pool.start_new_episodes(np.full(pool.num_envs, number))
    state = agent.initial_state(pool.num_envs)
    goes_on = np.ones(pool.num_envs, np.bool_)
    for step in range(context):
        if step:
            steps = pool.step(state.action.float().cpu().numpy())
        goes_on &= ~steps.is_last
        observation = {name: torch.from_numpy(value).to(agent.device) for name, value in steps.observation.items()}
        _, state = agent.act(observation, torch.from_numpy(steps.is_first).to(agent.device), state)
    latent = state.latent
    return [LatentState(latent.deterministic[e], latent.stochastic[e]) for e in np.flatnonzero(goes_on)]
