"""Who plays whole episodes of World Models: random play, and a controller on V and M."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from reverie.agents.world_models import WorldModelsAgent, WorldModelsConfig
from reverie.behaviors.controllers import flat_actions
from reverie.models.vision_memory import MemoryState
from reverie.spaces import ActionPart, Interface


@dataclass(frozen=True)
class Job:
    """An episode to play.

    Attributes:
        seed: of the environment and of the player's own random numbers.
        parameters: of the controller, float64 [n]; None where the policy has no controller.
    """

    seed: int
    parameters: NDArray[np.float64] | None = None


class Policy(Protocol):
    """Chooses actions in n episodes that began together."""

    def begin(self, jobs: Sequence[Job]) -> None:
        """New episodes take the place of the old ones."""

    def act(self, observation: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Flat actions [n, A] for observations [n, ...]."""
        ...

    def keep(self, running: NDArray[np.int64]) -> None:
        """Only the episodes of these numbers continue."""

    def surprise(self) -> NDArray[np.float64]:
        """How much each observation surprised since the last action, float64 [n]."""
        ...


class RandomPolicy:
    """Random play, with which World Models collects its first frames.

    Args:
        parts: action parts.
        hold: steps that an action lasts.
        kind: `held` holds a uniformly random action for 1 to `hold` steps (released code for Take Cover). `varied` does
            the same with a longest time that is drawn from 1 to `hold` for each episode, evenly on a logarithmic
            scale: some episodes twitch, others stay or go one way for long. `wandering` lets every entry wander around
            zero: an Ornstein-Uhlenbeck process with a correlation time of `hold` steps, whose standard deviation is
            drawn from 0 to 0.5 for each episode. It resembles the authors' random controllers for CarRacing, which
            drive roughly straight on with a twitching wheel.
    """

    def __init__(self, parts: Sequence[ActionPart], hold: int, kind: Literal["held", "varied", "wandering"]) -> None:
        self.parts, self.hold, self.kind = tuple(parts), hold, kind
        self.width = sum(part.width for part in parts)

    def begin(self, jobs: Sequence[Job]) -> None:
        """New episodes take the place of the old ones."""
        self.random = [np.random.default_rng(job.seed) for job in jobs]
        drawn = np.array([generator.uniform() for generator in self.random])
        self.deviation = 0.5 * drawn
        self.longest = np.full(len(jobs), self.hold)
        if self.kind == "varied":
            self.longest = ((self.hold + 1) ** drawn).astype(np.int64)
        self.entries = np.zeros((len(jobs), self.width))
        self.left = np.zeros(len(jobs), np.int64)

    def act(self, observation: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Flat actions [n, A]; observations are not looked at."""
        if self.kind == "wandering":
            noise = np.stack([generator.standard_normal(self.width) for generator in self.random])
            kept = np.exp(-1 / self.hold)
            self.entries = kept * self.entries + np.sqrt(1 - kept**2) * self.deviation[:, None] * noise
        else:
            for e in np.flatnonzero(self.left == 0):
                self.entries[e] = self.random[e].uniform(-1, 1, self.width)
                self.left[e] = self.random[e].integers(1, self.longest[e] + 1)
            self.left -= 1
        return flat_actions(torch.from_numpy(self.entries.clip(-1, 1)), self.parts).numpy()

    def keep(self, running: NDArray[np.int64]) -> None:
        """Only the episodes of these numbers continue."""
        self.random = [self.random[e] for e in running]
        self.deviation, self.longest = self.deviation[running], self.longest[running]
        self.entries, self.left = self.entries[running], self.left[running]

    def surprise(self) -> NDArray[np.float64]:
        """Nothing surprises random play."""
        return np.zeros(len(self.random))


class ControllerPolicy:
    """World Models' agent: V sees with sampled latents, M remembers, and each episode has a controller of its own.

    With `curiosity` it also measures M's surprise: its loss on the latents, that is the negative log-density in nats,
    mean over their dimensions (World Models, section "Iterative Training Procedure").

    Args:
        config: of the agent.
        agent: V, M and C, on the CPU.
        precision: in which V sees.
    """

    def __init__(
        self, config: WorldModelsConfig, agent: WorldModelsAgent, precision: torch.dtype = torch.float32
    ) -> None:
        self.config, self.agent, self.precision = config, agent.eval(), precision
        self.model, self.controller, self.parts = agent.world_model, agent.controller, agent.interface.actions

    def __reduce__(self) -> tuple[Any, ...]:
        """What is sent to a process: weights as arrays, since tensors would be shared memory with a life of its own."""
        weights = {name: value.numpy() for name, value in self.agent.state_dict().items()}
        return _rebuild, (self.config, self.agent.interface, weights, self.precision)

    def begin(self, jobs: Sequence[Job]) -> None:
        """New episodes take the place of the old ones."""
        self.random = [np.random.default_rng(job.seed) for job in jobs]
        self.parameters = torch.from_numpy(np.stack([np.asarray(job.parameters, np.float32) for job in jobs]))
        self.state: MemoryState | None = None
        self.action = torch.zeros(len(jobs), sum(part.width for part in self.parts))
        self.novelty = np.zeros(len(jobs))

    @torch.no_grad()
    def act(self, observation: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Flat actions [n, A] for observations [n, ...]."""
        model = self.model
        image = torch.from_numpy(observation[model.name]).float() / 255
        with torch.autocast("cpu", self.precision, enabled=self.precision != torch.float32):
            mean, log_variance = model.vision.encode(image)
        noise = np.stack([generator.standard_normal(mean.shape[1], np.float32) for generator in self.random])
        latent = mean + torch.exp(0.5 * log_variance) * torch.from_numpy(noise)
        if self.state is None or self.config.controller_reads == "z":  # M is left out where C does not read it
            self.state = model.begin(latent)
        else:
            if self.config.curiosity:
                self.novelty = model.surprise(self.state, self.action, latent).double().numpy()
            self.state = model.remember(self.state, self.action, latent)
        outputs = self.controller(self.parameters, model.feature(self.state).unsqueeze(1))[:, 0]
        self.action = flat_actions(outputs, self.parts)
        return self.action.numpy()

    def keep(self, running: NDArray[np.int64]) -> None:
        """Only the episodes of these numbers continue."""
        assert self.state is not None
        chosen = torch.from_numpy(running)
        self.random = [self.random[e] for e in running]
        self.parameters, self.action = self.parameters[chosen], self.action[chosen]
        self.state, self.novelty = self.state.select(chosen), self.novelty[running]

    def surprise(self) -> NDArray[np.float64]:
        """How much each observation surprised M since the last action, float64 [n]."""
        return self.novelty


def _rebuild(
    config: WorldModelsConfig, interface: Interface, weights: dict[str, NDArray[Any]], precision: torch.dtype
) -> ControllerPolicy:
    """The policy of `ControllerPolicy.__reduce__`, in another process."""
    agent = config.build(interface)
    agent.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
    return ControllerPolicy(config, agent, precision)
