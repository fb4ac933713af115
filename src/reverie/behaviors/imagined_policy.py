"""A policy that is rolled out in a world model, and how it learns where there is no critic (Dreamer v1, section 3)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from reverie.behaviors.behavior import PHASE, Behavior, Rollout
from reverie.errors import ConfigError
from reverie.models.rssm import LatentState
from reverie.models.world_model import WorldModel
from reverie.nn.heads import PolicyHead
from reverie.ops.returns import lambda_return


@dataclass(frozen=True)
class ActorCriticSettings:
    """The joints at which the versions of the actor-critic differ.

    Attributes:
        horizon: H, imagined transitions from every replayed state.
        discount: gamma in imagination; 1 where the continue head has learned the discount itself.
        replay_discount: gamma of the critic's loss on replayed rewards.
        mix: lambda of the lambda-return.
        entropy: weight of the policy entropy.
        estimator: `reinforce`, `dynamics` for gradients through the world model, or `both`.
        dynamics_share: weight of the second in `both`; the first has the rest.
        reward_of: `next` or `state`, see above.
        keep_start: whether the replayed state itself is learned from, or only the imagined ones behind it.
        baseline: with `dynamics`, subtract the value of the state that the action was taken in.
        normalize: divide advantages by the range of returns.
        slow: what the slow critic is for: `regularizer` of the critic, `target` that gives all values, or `none`.
        start_continue: continuation of the first imagined state, `predicted` or `true` (from the replay).
        continue_value: predicted continuation enters as `probability` or as `mode` (0 or 1).
        slow_rate: step of the slow critic toward the critic.
        slow_every: updates between two such steps.
        slow_weight: weight of the cross entropy to the slow critic's mean.
        replay_value: weight of the critic's loss on replayed rewards; 0 switches it off.
        evaluate_mode: evaluate with the most likely actions instead of samples.
    """

    horizon: int = 15
    discount: float = 1.0
    replay_discount: float = 1 - 1 / 333
    mix: float = 0.95
    entropy: float = 3e-4
    estimator: Literal["reinforce", "dynamics", "both"] = "reinforce"
    dynamics_share: float = 0.1
    reward_of: Literal["next", "state"] = "next"
    keep_start: bool = True
    baseline: bool = True
    normalize: bool = True
    slow: Literal["regularizer", "target", "none"] = "regularizer"
    start_continue: Literal["predicted", "true"] = "predicted"
    continue_value: Literal["probability", "mode"] = "probability"
    slow_rate: float = 0.02
    slow_every: int = 1
    slow_weight: float = 1.0
    replay_value: float = 0.3
    evaluate_mode: bool = False


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Within the block the parameters of `modules` are constants: gradients pass through them, not into them."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


class ImaginedPolicy(Behavior):
    """Base of the behaviors that learn a policy in rollouts of a world model.

    Args:
        actor: policy head.
        settings: see `ActorCriticSettings`.

    Raises:
        ConfigError: a horizon that leaves no decision to judge.
    """

    def __init__(self, actor: PolicyHead, settings: ActorCriticSettings) -> None:
        super().__init__()
        if settings.reward_of == "state" and settings.horizon < 2:
            raise ConfigError(f"horizon must be at least 2 in this agent, got {settings.horizon}")
        self.actor, self.settings = actor, settings
        self.evaluates_with_mode = settings.evaluate_mode

    def learn(
        self, world_model: WorldModel, states: LatentState, batch: Mapping[str, Tensor], deterministic: bool
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """See `Behavior`: imagines from every replayed state and judges what was done there."""
        with record_function(PHASE + "imagine"):
            rollout = self.imagine(world_model, states.flatten(), deterministic)
        with record_function(PHASE + "behavior loss"):
            return self.judge(world_model, rollout, states=states, batch=batch)

    @abstractmethod
    def judge(
        self, world_model: WorldModel, rollout: Rollout, states: LatentState, batch: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Loss terms and metrics of a rollout from replayed states; arguments and results as for `learn`."""

    def choose(self, world_model: WorldModel, state: LatentState, most_likely: bool) -> Tensor:
        """See `Behavior`."""
        return self.actor.distribution(self.actor(state.feature)).sample(most_likely)

    def imagine(self, world_model: WorldModel, start: LatentState, deterministic: bool = False) -> Rollout:
        """See `Behavior`: rolls the policy out in the world model.

        With the `reinforce` estimator nothing but the policy itself is recorded for gradients, and its outputs are
        kept so that the actor's loss need not compute them again.
        """
        features: list[Tensor] = []
        parameters: list[Tensor] = []
        actions: list[Tensor] = []
        through_dynamics = self.settings.estimator != "reinforce"

        def policy(feature: Tensor, step: int) -> Tensor:
            features.append(feature)
            with torch.enable_grad():
                parameters.append(self.actor(feature.detach()))
            chosen = parameters[-1] if through_dynamics else parameters[-1].detach()
            actions.append(self.actor.distribution(chosen).sample(deterministic))
            return actions[-1]

        # s_0 is a replayed state; a_t ~ pi(a | s_t), s_{t+1} from the prior, for H steps
        with frozen(world_model), torch.set_grad_enabled(through_dynamics):
            states = world_model.rssm.imagine(
                policy, start.detach(), self.settings.horizon, deterministic=deterministic
            )
            features.append(states[-1].feature)
            imagined = torch.stack(features), torch.stack(actions)  # [H + 1, N, F], [H, N, A]
        return Rollout(*imagined, torch.stack(parameters))


class ActorOnly(ImaginedPolicy):
    """Maximizes the discounted rewards of whole rollouts, without a value at their end (Dreamer v1, "no value")."""

    def networks(self) -> dict[str, nn.Module]:
        """The actor."""
        return {"actor": self.actor}

    def judge(
        self, world_model: WorldModel, rollout: Rollout, states: LatentState, batch: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """See `ImaginedPolicy`: the mean, over imagined states, of the discounted rewards from there on."""
        going_on = (~batch["is_terminal"]).float()
        with frozen(world_model):
            reward = world_model.predict_reward(rollout.features[1:]).T
            discount = world_model.predict_continue(rollout.features[1:]).T * self.settings.discount
            returns = lambda_return(reward, discount, torch.zeros_like(reward), mix=1.0)
        terms = {"policy": -going_on * returns.mean(1).view_as(going_on)}
        with torch.no_grad():
            metrics = {
                "imagination/return": returns.mean(),
                "imagination/reward": reward.mean(),
                "policy/entropy": self.actor.distribution(rollout.parameters).entropy().mean(),
            }
        return terms, metrics
