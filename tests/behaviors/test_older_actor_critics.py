"""Actor and critic of Dreamer v1 and DreamerV2: losses against loops, gradients, the slow critic."""

from dataclasses import replace

import pytest
import torch

from reverie.agents.dreamer_v1 import DreamerV1Config
from reverie.agents.dreamer_v2 import DreamerV2Config
from reverie.behaviors.imagined_policy import ActorOnly
from reverie.errors import ConfigError
from reverie.models.rssm import LatentState
from reverie.spaces import ActionPart, Interface, ObservationPart

B, T, H = 2, 3, 5
GAMMA, LAMBDA = 0.99, 0.95
ACTIONS = {"continuous": ActionPart("a", "continuous", 2), "discrete": ActionPart("a", "discrete", 1, (4,))}
TINY = {"deterministic": 12, "hidden": 8, "variables": 4, "units": 8, "vector_units": 8, "horizon": H}


def make(config, actions="continuous", **settings):
    torch.manual_seed(0)
    agent = config.build(Interface((ObservationPart("x", "vector", (3,)),), (ACTIONS[actions],)))
    agent.behavior.settings = replace(agent.behavior.settings, **settings)
    heads = [agent.world_model.reward, agent.world_model.continuation]
    heads += [getattr(agent.behavior, name, None) for name in ("critic", "slow_critic")]
    for head in heads:
        if head is not None:
            torch.nn.init.normal_(head.output.weight, 0, 0.7)
    for layer in agent.behavior.actor.outputs.values():
        torch.nn.init.normal_(layer.weight, 0, 0.5)
    return agent


def first(**values):
    return DreamerV1Config(**{**TINY, **values})


def second(**values):
    return DreamerV2Config(**{**TINY, "classes": 4, "discount": GAMMA, "entropy": 0.1, **values})


def start(agent):
    torch.manual_seed(1)
    rssm = agent.world_model.rssm
    return LatentState(
        torch.randn(B * T, rssm.deterministic).tanh(), rssm.latent.sample(torch.randn(B * T, rssm.latent.outputs))
    )


def losses(agent, going_on=None):
    rollout = agent.imagine(start(agent))
    going_on = torch.ones(B, T) if going_on is None else going_on
    return rollout, *agent.behavior.loss(agent.world_model, rollout, going_on)


def predictions(agent, rollout, critic):
    """Reward, continuation (1 without a head) and value of all imagined states, [N, H + 1]."""
    feature = rollout.features.transpose(0, 1)
    model = agent.world_model
    ends = model.continuation
    going = torch.ones(feature.shape[:2]) if ends is None else torch.sigmoid(ends(feature))
    return feature, model.reward(feature), going, critic(feature)


# ---------------------------------------------------------------- Dreamer v1


@pytest.mark.parametrize("continuation", [False, True])
def test_losses_of_dreamer_v1_equal_the_formulas(continuation):
    agent = make(first(continuation=continuation))
    going_on = torch.ones(B, T)
    going_on[0, 1] = 0
    rollout, terms, _, _ = losses(agent, going_on)
    feature, reward, going, value = predictions(agent, rollout, agent.behavior.critic)
    discount = going if continuation else going * GAMMA
    # States 1 to H; the start itself is dropped, and there are H - 1 returns.
    policy, critic = torch.zeros(B * T), torch.zeros(B * T)
    for n in range(B * T):
        following, returns = value[n, H], {}
        for i in range(H - 1, 0, -1):
            mixed = (1 - LAMBDA) * value[n, i + 1] + LAMBDA * following
            following = returns[i] = reward[n, i] + discount[n, i] * mixed
        weight = going_on.flatten()[n]
        for i in range(1, H):
            policy[n] -= weight * returns[i] / (H - 1)
            critic[n] += weight * 0.5 * (value[n, i] - returns[i]) ** 2 / (H - 1)
            weight = weight * discount[n, i]
    torch.testing.assert_close(terms["policy"], policy.view(B, T), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(terms["value"], critic.view(B, T), rtol=1e-4, atol=1e-5)
    assert terms["policy"][0, 1] == terms["value"][0, 1] == 0  # nothing follows a terminal start
    assert terms["policy"].std() > 0.01


def test_without_a_value_whole_rollouts_are_summed_up():
    agent = make(first(value=False))
    assert isinstance(agent.behavior, ActorOnly)
    assert "critic" not in agent.count_parameters()
    states = LatentState(*(x.unflatten(0, (B, T)) for x in (start(agent).deterministic, start(agent).stochastic)))
    batch = {"is_terminal": torch.zeros(B, T, dtype=torch.bool)}
    torch.manual_seed(5)
    terms, _ = agent.behavior.learn(agent.world_model, states, batch, False)
    torch.manual_seed(5)
    rollout = agent.imagine(states.flatten())
    reward = agent.world_model.reward(rollout.features[1:])
    expected = torch.zeros(B * T)
    for n in range(B * T):
        for i in range(H):
            expected[n] -= sum(GAMMA ** (j - i) * reward[j, n] for j in range(i, H)) / H
    torch.testing.assert_close(terms["policy"], expected.view(B, T), rtol=1e-4, atol=1e-5)
    terms["policy"].mean().backward()
    assert all(p.grad is None for p in agent.world_model.parameters())
    assert all(p.grad.abs().max() > 0 for p in agent.behavior.actor.parameters())


@pytest.mark.parametrize("actions", ACTIONS)
def test_values_reach_the_actor_of_dreamer_v1_through_the_dynamics(actions):
    agent = make(first(), actions)
    rollout, terms, _, _ = losses(agent)
    terms["policy"].mean().backward(retain_graph=True)
    for name, parameter in agent.behavior.actor.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    for module in (agent.world_model, agent.behavior.critic):
        assert all(p.grad is None for p in module.parameters())
    agent.zero_grad()
    terms["value"].mean().backward()
    assert all(p.grad is None for p in agent.world_model.parameters())
    assert any(p.grad.abs().max() > 0 for p in agent.behavior.critic.parameters())
    assert all(p.grad is None or not p.grad.any() for p in agent.behavior.actor.parameters())


def test_the_gradient_of_discrete_actions_is_that_of_their_probabilities():
    """Straight-through: the sample is one-hot + p - sg(p), so its gradient is the gradient of p."""
    agent = make(first(), "discrete")
    actor = agent.behavior.actor
    feature = torch.randn(7, agent.world_model.features)
    weight = torch.randn(7, 4)
    parameters = actor(feature).detach().requires_grad_()
    sample = actor.distribution(parameters).sample()
    assert ((sample.detach() == 0) | ((sample.detach() - 1).abs() < 1e-6)).all()
    (gradient,) = torch.autograd.grad((sample * weight).sum(), parameters)
    (expected,) = torch.autograd.grad((parameters.softmax(-1) * weight).sum(), parameters)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_a_horizon_of_one_is_refused():
    for config in (first(horizon=1), second(horizon=1)):
        with pytest.raises(ConfigError, match="horizon must be at least 2"):
            make(config)


# ---------------------------------------------------------------- DreamerV2


def expected_terms(agent, rollout, going_on, continuation, objective):
    """Both losses start by start; `objective(n, t, target, baseline)` is what the decision in state t gets."""
    slow = agent.behavior.slow_critic
    feature, reward, going, target_value = predictions(agent, rollout, slow)
    value = agent.behavior.critic(feature)
    discount = going.clone() if continuation else going * GAMMA
    if continuation:
        discount[:, 0] = GAMMA * going_on.flatten()
    entropy = agent.behavior.actor.distribution(rollout.parameters).entropy().T
    policy, critic = torch.zeros(B * T), torch.zeros(B * T)
    for n in range(B * T):
        following, target = target_value[n, H], {}
        for t in range(H - 1, -1, -1):
            mixed = (1 - LAMBDA) * target_value[n, t + 1] + LAMBDA * following
            following = target[t] = reward[n, t] + discount[n, t] * mixed
        weight = 1.0
        for t in range(H):
            critic[n] += weight * 0.5 * (value[n, t] - target[t]) ** 2 / H
            if t < H - 1:
                gain = objective(n, t, target[t + 1], target_value[n, t]) + 0.1 * entropy[n, t]
                policy[n] -= weight * gain / (H - 1)
            weight = weight * discount[n, t]
    return policy.view(B, T), critic.view(B, T)


@pytest.mark.parametrize("continuation", [False, True])
@pytest.mark.parametrize("estimator", ["reinforce", "dynamics", "both"])
def test_losses_of_dreamer_v2_equal_the_formulas(estimator, continuation):
    agent = make(second(continuation=continuation, actor_gradient=estimator, dynamics_share=0.7), "discrete")
    going_on = torch.ones(B, T)
    going_on[1, 0] = 0
    rollout, terms, _, _ = losses(agent, going_on)
    policy = agent.behavior.actor.distribution(rollout.parameters)
    log_p = policy.log_probability(rollout.actions.detach()).T
    share = {"reinforce": 1.0, "dynamics": 0.0, "both": 0.3}[estimator]

    def objective(n, t, target, baseline):
        return share * log_p[n, t] * (target - baseline).detach() + (1 - share) * target

    policy_loss, value_loss = expected_terms(agent, rollout, going_on, continuation, objective)
    torch.testing.assert_close(terms["policy"], policy_loss, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(terms["value"], value_loss, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("actions", "estimator"), [("continuous", "dynamics"), ("discrete", "reinforce")])
def test_the_estimator_follows_the_actions(actions, estimator):
    agent = make(second(), actions)
    assert agent.behavior.settings.estimator == estimator
    rollout, terms, _, _ = losses(agent)
    assert rollout.features.requires_grad == (estimator == "dynamics")
    terms["policy"].mean().backward()
    for module in (agent.world_model, agent.behavior.critic, agent.behavior.slow_critic):
        assert all(p.grad is None for p in module.parameters())
    assert all(p.grad.abs().max() > 0 for p in agent.behavior.actor.parameters())


def test_the_slow_critic_is_copied_at_once_and_then_every_hundred_updates():
    agent = make(second(slow_critic_every=3))
    behavior = agent.behavior
    fast, slow = behavior.critic.output.bias, behavior.slow_critic.output.bias
    seen = []
    for update in range(8):
        fast.data.fill_(float(update))
        behavior.after_update()
        seen.append(slow.item())
    assert seen == [0, 0, 0, 3, 3, 3, 6, 6]
    assert DreamerV2Config().slow_critic_every == 100


def test_the_position_between_two_copies_is_saved(tmp_path):
    agent, other = make(second(slow_critic_every=3)), make(second(slow_critic_every=3))
    for _ in range(2):
        agent.behavior.after_update()
    agent.save(tmp_path / "agent.safetensors")
    other.load(tmp_path / "agent.safetensors")
    other.behavior.critic.output.bias.data.fill_(9.0)
    other.behavior.after_update()
    assert other.behavior.slow_critic.output.bias.item() != 9
    other.behavior.after_update()
    assert other.behavior.slow_critic.output.bias.item() == 9
