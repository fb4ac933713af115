"""Actor and critic that learn from imagined rollouts (Dreamer v1, DreamerV2, DreamerV3).

The versions differ in a few joints, which `ActorCriticSettings` names. One is which reward belongs to a state. With
`reward_of` = `next` (DreamerV3) the value of a state holds the rewards that follow, and the return of step t begins
with the reward of state t + 1. With `state` (Dreamer v1, DreamerV2) it also holds the state's own reward; the decision
in state t is then judged by the return of state t + 1.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from reverie.behaviors.behavior import Rollout
from reverie.behaviors.imagined_policy import ActorCriticSettings, ImaginedPolicy, frozen
from reverie.behaviors.return_normalizer import ReturnNormalizer
from reverie.models.rssm import LatentState
from reverie.models.world_model import WorldModel
from reverie.nn.heads import PolicyHead, ScalarHead
from reverie.ops.returns import lambda_return, state_returns


class ActorCritic(ImaginedPolicy):
    """Policy and value function trained on rollouts of a world model.

    Args:
        actor: policy head.
        critic: value head; the slow critic begins as its copy.
        settings: see `ActorCriticSettings`.
    """

    def __init__(self, actor: PolicyHead, critic: ScalarHead, settings: ActorCriticSettings) -> None:
        super().__init__(actor, settings)
        self.critic = critic
        self.slow_critic = None if settings.slow == "none" else copy.deepcopy(critic).requires_grad_(False)
        self.normalizer = ReturnNormalizer() if settings.normalize else None
        if settings.slow_every > 1:
            self.register_buffer("updates", torch.zeros(()))

    def networks(self) -> dict[str, nn.Module]:
        """Actor and critic."""
        return {"actor": self.actor, "critic": self.critic}

    def judge(
        self, world_model: WorldModel, rollout: Rollout, states: LatentState, batch: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """See `ImaginedPolicy`; the critic may also learn from replayed rewards."""
        terms, metrics, returns = self.loss(world_model, rollout, (~batch["is_terminal"]).float())
        if self.settings.replay_value:
            loss = self.replay_value_loss(states.feature, batch, returns)
            terms["replay_value"] = self.settings.replay_value * loss
        return terms, metrics

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
        batch_shape, settings, feature = going_on.shape, self.settings, rollout.features
        first = 0 if settings.keep_start else 1
        # predicted rewards r and continuations c of the imagined trajectories: [N, H (+ 1)], [N, H + 1]
        with frozen(world_model), torch.set_grad_enabled(settings.estimator != "reinforce"):
            reward = world_model.predict_reward(feature[1 if settings.reward_of == "next" else first :]).T
            continuation = self._continuation(world_model, feature, going_on)
        # values v(s) of the same states: [N, H + 1]
        value_logits = self.critic(feature[first:-1].detach())
        value = self._values(feature, value_logits)
        discount = continuation * settings.discount  # gamma c: [N, H + 1]
        # lambda-returns R, and the probability w that a state is reached before the episode ends: [N, H]
        if settings.reward_of == "next":
            weight = (discount.cumprod(1) / settings.discount)[:, :-1].detach()
            returns = lambda_return(reward, discount[:, 1:], value[:, 1:], mix=settings.mix)
            judged, judged_weight = returns, weight
        else:
            start = torch.ones_like(discount[:, :1]) if settings.keep_start else going_on.view(-1, 1)
            weight = torch.cat([start, discount[:, first:-2]], 1).cumprod(1).detach()
            returns = state_returns(reward, discount[:, first:], value[:, first:], mix=settings.mix)
            judged, judged_weight = (returns[:, 1:], weight[:, :-1]) if settings.keep_start else (returns, weight)
        # actor: each decision is judged by the return that follows it; critic: its distribution fits R
        policy_loss, metrics = self._policy_loss(
            rollout, judged=judged, weight=judged_weight, value=value, returns=returns
        )
        value_loss = weight * self._value_loss(value_logits, returns.T, feature[first:-1]).T
        terms = {"policy": policy_loss.mean(1).view(batch_shape), "value": value_loss.mean(1).view(batch_shape)}
        with torch.no_grad():
            metrics |= {
                "imagination/return": returns.mean(),
                "imagination/reward": reward.mean(),
                "imagination/value": value.mean(),
                "imagination/continue": continuation.mean(),
                "imagination/weight": weight.mean(),
            }
        return terms, metrics, returns[:, 0].detach().view(batch_shape)

    def _values(self, feature: Tensor, value_logits: Tensor) -> Tensor:
        """Values of all imagined states by the critic that gives targets: [H + 1, N, F] -> [N, H + 1]."""
        target = self.slow_critic if self.settings.slow == "target" else self.critic
        assert target is not None
        if self.settings.estimator != "reinforce":
            with frozen(target):
                return target.mean(target(feature)).T
        with torch.no_grad():
            if target is not self.critic or not self.settings.keep_start:
                return target.mean(target(feature)).T
            last = target.mean(target(feature[-1:]))
            return torch.cat([target.mean(value_logits), last]).T

    def _policy_loss(
        self, rollout: Rollout, judged: Tensor, weight: Tensor, value: Tensor, returns: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The actor's loss on the first M decisions of each rollout.

        Args:
            rollout: from `imagine`.
            judged: return by which each decision is judged, [N, M].
            weight: of each decision, [N, M].
            value: of all imagined states, [N, H + 1].
            returns: of all states, for the scale.

        Returns:
            Loss [N, M] and scalar metrics.
        """
        settings, count = self.settings, judged.shape[1]
        # advantage R - v(s), divided by the range of returns max(1, S) where the agent has it: [N, M]
        advantage, metrics = judged - value[:, :count], {}
        if self.normalizer is not None:
            self.normalizer.update(returns)
            judged, advantage = judged / self.normalizer.scale, advantage / self.normalizer.scale
            metrics["imagination/return_scale"] = self.normalizer.scale.clone()
        policy = self.actor.distribution(rollout.parameters[:count])  # [M, N, ...]
        entropy = policy.entropy().T  # [N, M]
        # maximized: R through the dynamics, log pi(a | s) sg(advantage), or a share of both; and the entropy
        objective = advantage if settings.baseline else judged
        if settings.estimator != "dynamics":
            scored = policy.log_probability(rollout.actions[:count].detach()).T * advantage.detach()
            share = settings.dynamics_share
            objective = scored if settings.estimator == "reinforce" else share * objective + (1 - share) * scored
        if settings.baseline or settings.estimator != "dynamics":
            metrics["imagination/advantage_magnitude"] = advantage.detach().abs().mean()
        metrics["policy/entropy"] = entropy.detach().mean()
        return -weight * (objective + settings.entropy * entropy), metrics

    def _continuation(self, world_model: WorldModel, feature: Tensor, going_on: Tensor) -> Tensor:
        """Continuation of all H + 1 imagined states: [N, H + 1]."""
        probability = world_model.predict_continue(feature).T
        if self.settings.continue_value == "mode":
            probability = (probability > 0.5).float()
        if self.settings.start_continue == "true":
            known = going_on.reshape(-1, 1) * world_model.scales.continue_discount
            probability = torch.cat([known, probability[:, 1:]], 1)
        return probability

    def _value_loss(self, logits: Tensor, returns: Tensor, feature: Tensor) -> Tensor:
        """The critic's loss on the returns, plus the weighted one on the slow critic's mean if it is a regularizer."""
        returns, weight = returns.detach(), self.settings.slow_weight
        if self.slow_critic is None or self.settings.slow != "regularizer":
            return self.critic.loss(logits, returns)
        slow_value = self.slow_critic.mean(self.slow_critic(feature.detach()))
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
        # R_t = r_{t+1} + gamma c_{t+1} ((1 - lambda) V_{t+1} + lambda R_{t+1}), V the imagined return: [B, T - 1]
        last, terminal = batch["is_last"][:, 1:].float(), batch["is_terminal"][:, 1:].float()
        discount = self.settings.replay_discount * (1 - terminal)
        mix = self.settings.mix * (1 - last)
        returns = lambda_return(batch["reward"][:, 1:], discount, start_returns[:, 1:], mix=mix)
        logits = self.critic(feature[:, :-1])  # [B, T - 1, bins]
        return (~batch["is_last"][:, :-1]).float() * self._value_loss(logits, returns, feature[:, :-1])

    def after_update(self) -> None:
        """See `Behavior`."""
        self.update_slow_critic()

    @torch.no_grad()
    def update_slow_critic(self) -> None:
        """Moves the slow critic toward the critic, the first time at once; call after the optimizer's step."""
        if self.slow_critic is None:
            return
        slow: list[Tensor] = list(self.slow_critic.parameters())
        fast: list[Tensor] = list(self.critic.parameters())
        if self.settings.slow_every == 1:
            torch._foreach_lerp_(slow, fast, self.settings.slow_rate)
            return
        count = self.get_buffer("updates")
        rate = self.settings.slow_rate * (count % self.settings.slow_every == 0)
        torch._foreach_lerp_(slow, fast, [rate.to(tensor.dtype).expand_as(tensor) for tensor in slow])
        count += 1
