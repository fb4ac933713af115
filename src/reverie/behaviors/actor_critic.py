"""Actor and critic that learn from imagined rollouts (DreamerV3, Nature 2025, "Critic learning", "Actor learning")."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from reverie.behaviors.return_normalizer import ReturnNormalizer
from reverie.models.rssm import LatentState
from reverie.models.world_model import WorldModel
from reverie.nn.heads import PolicyHead, TwoHotHead
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
        estimator: `reinforce`, or `dynamics` for gradients through the world model.
        start_continue: continuation of the first imagined state, `predicted` or `true` (from the replay).
        continue_value: predicted continuation enters as `probability` or as `mode` (0 or 1).
        slow_rate: step of the slow critic towards the critic, every update.
        slow_weight: weight of the cross entropy to the slow critic's mean.
        replay_value: weight of the critic's loss on replayed rewards; 0 switches it off.
    """

    horizon: int = 15
    discount: float = 1.0
    replay_discount: float = 1 - 1 / 333
    mix: float = 0.95
    entropy: float = 3e-4
    estimator: Literal["reinforce", "dynamics"] = "reinforce"
    start_continue: Literal["predicted", "true"] = "predicted"
    continue_value: Literal["probability", "mode"] = "probability"
    slow_rate: float = 0.02
    slow_weight: float = 1.0
    replay_value: float = 0.3


@dataclass
class Rollout:
    """What was imagined from N = B T starts, time first, so that a range of steps is one piece of memory.

    Attributes:
        features: h and z of every state, [H + 1, N, F].
        actions: [H, N, A].
        parameters: of the policy's distributions, with gradient, [H, N, P].
    """

    features: Tensor
    actions: Tensor
    parameters: Tensor


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


class ActorCritic(nn.Module):
    """Policy and value function trained on rollouts of a world model.

    Args:
        actor: policy head.
        critic: value head; the slow critic begins as its copy.
        settings: see `ActorCriticSettings`.
    """

    def __init__(self, actor: PolicyHead, critic: TwoHotHead, settings: ActorCriticSettings) -> None:
        super().__init__()
        self.actor, self.critic, self.settings = actor, critic, settings
        self.slow_critic = copy.deepcopy(critic).requires_grad_(False)
        self.normalizer = ReturnNormalizer()

    def imagine(self, world_model: WorldModel, start: LatentState, deterministic: bool = False) -> Rollout:
        """Rolls the policy out in the world model.

        With the `reinforce` estimator nothing but the policy itself is recorded for gradients, and its outputs are
        kept so that the actor's loss need not compute them again.

        Args:
            world_model: its `rssm` makes the transitions.
            start: N states, [N, ...].
            deterministic: most likely latents and actions instead of samples.
        """
        features: list[Tensor] = []
        parameters: list[Tensor] = []
        actions: list[Tensor] = []
        through_dynamics = self.settings.estimator == "dynamics"

        def policy(feature: Tensor, step: int) -> Tensor:
            features.append(feature)
            with torch.enable_grad():
                parameters.append(self.actor(feature.detach()))
            chosen = parameters[-1] if through_dynamics else parameters[-1].detach()
            actions.append(self.actor.distribution(chosen).sample(deterministic))
            return actions[-1]

        with frozen(world_model), torch.set_grad_enabled(through_dynamics):
            states = world_model.rssm.imagine(policy, start.detach(), self.settings.horizon, deterministic)
            features.append(states[-1].feature)
            imagined = torch.stack(features), torch.stack(actions)
        return Rollout(*imagined, torch.stack(parameters))

    def loss(
        self, world_model: WorldModel, rollout: Rollout, going_on: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Actor and critic losses of a rollout from replayed states.

        Args:
            world_model: gives rewards and continuation; its parameters get no gradient.
            rollout: from `imagine`, begun in the B T replayed states.
            going_on: float [B, T], one minus `is_terminal`.

        Returns:
            Terms `policy` and `value`, each [B, T] (mean over imagined steps); scalar metrics; and the returns of the
            start states [B, T].
        """
        batch_shape, settings = going_on.shape, self.settings
        through_dynamics = settings.estimator == "dynamics"
        feature = rollout.features
        with frozen(world_model), torch.set_grad_enabled(through_dynamics):
            reward = world_model.predict_reward(feature[1:]).T
            continuation = self._continuation(world_model, feature, going_on)
        value_logits = self.critic(feature[:-1].detach())
        slow_value = self.slow_critic.mean(self.slow_critic(feature[:-1].detach()))
        if through_dynamics:
            with frozen(self.critic):
                value = self.critic.mean(self.critic(feature)).T
        else:
            with torch.no_grad():
                last = self.critic.mean(self.critic(feature[-1:]))
                value = torch.cat([self.critic.mean(value_logits), last]).T
        discount = continuation * settings.discount
        weight = (discount.cumprod(1) / settings.discount)[:, :-1].detach()
        returns = lambda_return(reward, discount[:, 1:], value[:, 1:], settings.mix)
        self.normalizer.update(returns)
        advantage = (returns - value[:, :-1]) / self.normalizer.scale
        policy = self.actor.distribution(rollout.parameters)
        entropy = policy.entropy().T
        if through_dynamics:
            objective = advantage
        else:
            objective = policy.log_probability(rollout.actions.detach()).T * advantage.detach()
        policy_loss = -weight * (objective + settings.entropy * entropy)
        value_loss = weight * self._value_loss(value_logits, returns.T, slow_value).T
        terms = {"policy": policy_loss.mean(1).view(batch_shape), "value": value_loss.mean(1).view(batch_shape)}
        with torch.no_grad():
            metrics = {
                "imagination/return": returns.mean(),
                "imagination/reward": reward.mean(),
                "imagination/value": value.mean(),
                "imagination/continue": continuation.mean(),
                "imagination/weight": weight.mean(),
                "imagination/return_scale": self.normalizer.scale.clone(),
                "imagination/advantage_magnitude": advantage.abs().mean(),
                "policy/entropy": entropy.mean(),
            }
        return terms, metrics, returns[:, 0].detach().view(batch_shape)

    def _continuation(self, world_model: WorldModel, feature: Tensor, going_on: Tensor) -> Tensor:
        """Continuation of all H + 1 imagined states: [N, H + 1]."""
        probability = world_model.predict_continue(feature).T
        if self.settings.continue_value == "mode":
            probability = (probability > 0.5).float()
        if self.settings.start_continue == "true":
            probability = torch.cat([going_on.reshape(-1, 1), probability[:, 1:]], 1)
        return probability

    def _value_loss(self, logits: Tensor, returns: Tensor, slow_value: Tensor) -> Tensor:
        """Cross entropy to the return, plus the weighted one to the slow critic's mean."""
        weight = self.settings.slow_weight
        if weight == 1:
            return self.critic.loss(logits, returns, slow_value)
        return self.critic.loss(logits, returns) + weight * self.critic.loss(logits, slow_value)

    def replay_value_loss(self, feature: Tensor, batch: Mapping[str, Tensor], start_returns: Tensor) -> Tensor:
        """Critic loss on replayed rewards, whose gradient also reaches the world model.

        The lambda-return uses true rewards and bootstraps from the imagined return of each next state, fully so where
        an episode was cut off.

        Args:
            feature: [B, T, D + S C], with gradient.
            batch: `reward`, `is_last`, `is_terminal`, each [B, T].
            start_returns: imagined return from each state, [B, T].

        Returns:
            [B, T - 1], zero where the step ends an episode.
        """
        last, terminal = batch["is_last"][:, 1:].float(), batch["is_terminal"][:, 1:].float()
        discount = self.settings.replay_discount * (1 - terminal)
        mix = self.settings.mix * (1 - last)
        returns = lambda_return(batch["reward"][:, 1:], discount, start_returns[:, 1:], mix)
        logits = self.critic(feature[:, :-1])
        slow_value = self.slow_critic.mean(self.slow_critic(feature[:, :-1].detach()))
        return (~batch["is_last"][:, :-1]).float() * self._value_loss(logits, returns, slow_value)

    @torch.no_grad()
    def update_slow_critic(self) -> None:
        """Moves the slow critic towards the critic; call after the optimiser's step."""
        slow: list[Tensor] = list(self.slow_critic.parameters())
        fast: list[Tensor] = list(self.critic.parameters())
        torch._foreach_lerp_(slow, fast, self.settings.slow_rate)
