"""The learning half of training: decides when to update, feeds batches, and gathers the metrics of updates."""

from __future__ import annotations

from typing import Any

import torch

from reverie.agents.imagination_agent import ImaginationAgent
from reverie.agents.registry import AgentConfig
from reverie.agents.schedule import whole
from reverie.errors import CheckpointError, NumericalError
from reverie.replay import SequenceReplay
from reverie.training.evaluation import to_tensors

MOST_DUE = 10_000
"""Updates that a checkpoint may leave over."""


class Updater:
    """Makes the updates that the agent's schedule asks for.

    Metrics stay on the device and are summed there; the host waits only when they are logged.

    Args:
        agent: learns.
        replay: gives batches and takes fresh latents back.
        config: batch size and schedule.

    Attributes:
        updates: how many were made.
        begun: the warm-up is over.
        diverged: `check` has found a loss or a weight that is not finite.
    """

    def __init__(self, agent: ImaginationAgent, replay: SequenceReplay, config: AgentConfig) -> None:
        self.agent, self.replay = agent, replay
        self.batch_size, self.schedule = config.batch_size, config.schedule()
        self.credit, self.updates, self.begun, self.diverged = 0.0, 0, False, False
        self.names: list[str] = []
        self.sums: torch.Tensor | None = None
        self.count = 0
        self._latents: tuple[Any, dict[str, torch.Tensor]] | None = None

    def warming_up(self, env_steps: int, episodes: int) -> bool:
        """Whether updates are still to wait, after so many environment steps and finished episodes."""
        schedule = self.schedule
        waits = env_steps < schedule.warmup_steps or episodes < schedule.warmup_episodes
        return not self.begun and (waits or self.replay.num_windows == 0)

    def learn(self, env_steps: int, new_steps: int, episodes: int = 0, new_episodes: int = 0) -> int:
        """Makes the updates that are due after more experience and returns how many.

        Args:
            env_steps: environment steps of the run.
            new_steps: those since the last call.
            episodes: finished episodes of the run.
            new_episodes: those since the last call.
        """
        if self.warming_up(env_steps, episodes):
            return 0
        schedule, burst = self.schedule, self.schedule.burst
        if self.begun:
            self.credit += new_steps * schedule.per_step + new_episodes * schedule.per_episode
            due = whole(self.credit) // burst * burst
        else:
            self.begun, due = True, schedule.first
            self.credit = float(due)
        self.credit -= due
        for _ in range(due):
            self.update()
        return due

    def update(self) -> None:
        """One update on a fresh batch."""
        batch = self.replay.sample(self.batch_size)
        # The latents of the update before are written back only now: on a GPU they have arrived in the meantime.
        self.write_latents()
        metrics, latents = self.agent.update(to_tensors(batch.data, self.agent.device))
        if latents:
            fetched = {name: value.to("cpu", non_blocking=True) for name, value in latents.items()}
            self._latents = (batch.index, fetched)
        values = torch.stack([value.float() for value in metrics.values()])
        self.names = list(metrics)
        self.sums = values if self.sums is None else self.sums + values
        self.count += 1
        self.updates += 1

    def write_latents(self) -> None:
        """Writes the latents of the last update into the replay, if that is not done yet."""
        if self._latents is None:
            return
        self._wait_for_latents()
        index, latents = self._latents
        values = {name: value.numpy() for name, value in latents.items()}
        self.replay.update_latents(index, self.agent.replay_context, values)
        self._latents = None

    def _wait_for_latents(self) -> None:
        if self.agent.device.type == "cuda":
            torch.cuda.current_stream().synchronize()

    def check(self) -> None:
        """Refuses to continue after a loss or a weight that is not finite.

        Raises:
            NumericalError: names the first term or weight that is not finite.
        """
        if self.sums is None or torch.isfinite(self.sums).all():
            self._check_weights()
            return
        self.diverged = True
        values = dict(zip(self.names, self.sums.tolist(), strict=True))
        finite = {name: value == value and abs(value) != float("inf") for name, value in values.items()}
        losses = [name for name, good in finite.items() if not good and name.startswith("loss/")]
        bad = (losses or [name for name, good in finite.items() if not good])[0]
        raise NumericalError(
            f"{bad} is no longer finite within the {self.count} updates before update {self.updates}; the run was "
            f"stopped before another checkpoint was written: look at the rewards and observations of the environment, "
            f"or begin another run (--run) with a lower learning rate"
        )

    def _check_weights(self) -> None:
        weights = self.agent.state_dict()
        finite = torch.stack([torch.isfinite(value).all() for value in weights.values()])
        if finite.all():
            return
        self.diverged = True
        bad = next(name for name, good in zip(weights, finite.tolist(), strict=True) if not good)
        raise NumericalError(
            f"the weights {bad} are no longer finite at update {self.updates}; the run was stopped before another "
            f"checkpoint was written: look at the rewards and observations of the environment, or begin another run "
            f"(--run) with a lower learning rate"
        )

    def take_metrics(self) -> dict[str, float]:
        """Means over the updates since the last call; empty if there was none."""
        if self.sums is None:
            return {}
        means = (self.sums / self.count).tolist()
        self.sums, self.count = None, 0
        return dict(zip(self.names, means, strict=True))

    def state(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Everything that a checkpoint must keep: plain JSON data, and tensors."""
        data = {
            "credit": self.credit,
            "updates": self.updates,
            "begun": self.begun,
            "names": self.names,
            "count": self.count,
        }
        tensors = {} if self.sums is None else {"sums": self.sums}
        if self._latents is not None:
            self._wait_for_latents()
            index, latents = self._latents
            tensors |= {"latents_index": torch.from_numpy(index)}
            tensors |= {f"latents.{name}": value for name, value in latents.items()}
        return data, tensors

    def restore(self, data: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Inverse of `state`.

        Raises:
            CheckpointError: more updates are due than any step can leave over.
        """
        if not -1 <= data["credit"] <= MOST_DUE:
            raise CheckpointError(
                f"the checkpoint is damaged: {data['credit']:g} updates are due in it, expected at most {MOST_DUE:,}; "
                f"restore it from a copy"
            )
        # Fewer than a burst are left over, unless the run had other settings then.
        self.credit, self.updates = min(data["credit"], float(self.schedule.burst)), data["updates"]
        self.begun = data.get("begun", self.updates > 0)  # older checkpoints lack the entry
        self.names, self.count = data["names"], data["count"]
        self.sums = tensors["sums"].to(self.agent.device) if "sums" in tensors else None
        latents = {name[8:]: value for name, value in tensors.items() if name.startswith("latents.")}
        self._latents = (tensors["latents_index"].numpy(), latents) if latents else None
        if any(value.shape[1] != self.replay.length - self.agent.replay_context for value in latents.values()):
            self._latents = None  # the windows had another length; these latents have no rows to go to
