from dataclasses import replace

import pytest
import torch

from reverie.agents.dreamer_v3 import DreamerV3Config
from reverie.agents.dreamer_v3_2023 import DreamerV3In2023Config
from reverie.behaviors.actor_critic import frozen
from reverie.behaviors.return_normalizer import ReturnNormalizer
from reverie.models.rssm import LatentState
from reverie.spaces import ActionPart, Interface, ObservationPart

OBSERVATION = ObservationPart("x", "vector", (3,))
ACTIONS = {
    "continuous": (ActionPart("a", "continuous", 2),),
    "discrete": (ActionPart("a", "discrete", 1, (4,)),),
    "both": (ActionPart("a", "continuous", 2), ActionPart("b", "discrete", 2, (3, 2))),
}
B, T, H = 2, 3, 5


def make(actions="discrete", year=2025, **settings):
    """A small agent whose reward, value and policy outputs are far from constant."""
    torch.manual_seed(0)
    interface = Interface((OBSERVATION,), ACTIONS[actions])
    if year == 2025:
        config = DreamerV3Config(deterministic=16, hidden=8, classes=4, units=8, variables=4, blocks=4, horizon=H)
    else:
        config = DreamerV3In2023Config(size="nano", deterministic=16, units=8, variables=4, classes=4, horizon=H)
    agent = config.build(interface)
    agent.behavior.settings = replace(agent.behavior.settings, **settings)
    heads = [agent.world_model.reward, agent.behavior.critic, agent.behavior.slow_critic]
    for head in heads:
        torch.nn.init.normal_(head.output.weight, 0, 0.5)
        # Bins beyond +-7 almost impossible, so that values have an everyday size.
        position = torch.linspace(-20, 20, 255)
        head.output.bias.data.copy_(-0.3 * position.square())
    for layer in agent.behavior.actor.outputs.values():
        torch.nn.init.normal_(layer.weight, 0, 0.5)
    torch.nn.init.normal_(agent.world_model.continuation.output.weight, 0, 0.5)
    return agent


def start(agent):
    torch.manual_seed(1)
    rssm = agent.world_model.rssm
    n = B * T
    return LatentState(torch.randn(n, rssm.deterministic).tanh(), rssm.latent.sample(torch.randn(n, rssm.latent.width)))


def losses(agent, going_on=None):
    rollout = agent.imagine(start(agent))
    going_on = torch.ones(B, T) if going_on is None else going_on
    return rollout, *agent.behavior.loss(agent.world_model, rollout, going_on)


def gradients(module):
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def touched(module):
    return any(gradient.abs().max() > 0 for gradient in gradients(module).values())


# ---------------------------------------------------------------- the formulas


def reference_terms(agent, rollout, going_on, gamma, mode, true_start):
    """Returns, weights and both losses, start by start and step by step, as the papers write them."""
    model, behavior, settings = agent.world_model, agent.behavior, agent.behavior.settings
    feature = rollout.features.transpose(0, 1)  # [N, H + 1, F]
    reward = model.reward.mean(model.reward(feature))
    going = torch.sigmoid(model.continuation(feature))
    if mode:
        going = (going > 0.5).float()
    if true_start:
        going[:, 0] = going_on.flatten()
    value = behavior.critic.mean(behavior.critic(feature))
    slow = behavior.slow_critic.mean(behavior.slow_critic(feature))
    n = feature.shape[0]
    returns, weight = torch.zeros(n, H), torch.zeros(n, H)
    for i in range(n):
        following = value[i, H]
        for t in reversed(range(H)):
            mixed = (1 - settings.mix) * value[i, t + 1] + settings.mix * following
            following = reward[i, t + 1] + gamma * going[i, t + 1] * mixed
            returns[i, t] = following
        product = 1 / gamma
        for t in range(H):
            product = product * gamma * going[i, t]
            weight[i, t] = product
    # The averages start at zero and have seen these returns once: scale max(1, 0.01 (P95 - P5)).
    spread = torch.quantile(returns.flatten(), 0.95) - torch.quantile(returns.flatten(), 0.05)
    advantage = (returns - value[:, :-1]) / max(1.0, 0.01 * spread.item())
    policy = behavior.actor.distribution(behavior.actor(feature[:, :-1]))
    log_probability = policy.log_probability(rollout.actions.transpose(0, 1))
    policy_loss = -weight * (log_probability * advantage + settings.entropy * policy.entropy())
    logits = behavior.critic(feature[:, :-1])
    value_loss = behavior.critic.loss(logits, returns)
    value_loss = weight * (value_loss + settings.slow_weight * behavior.critic.loss(logits, slow[:, :-1]))
    return policy_loss.mean(1).view(B, T), value_loss.mean(1).view(B, T), returns[:, 0].view(B, T)


@pytest.mark.parametrize("actions", ACTIONS)
def test_losses_of_2025_equal_the_formulas(actions):
    agent = make(actions)
    rollout, terms, metrics, returns = losses(agent)
    policy, value, expected = reference_terms(agent, rollout, None, 1.0, mode=False, true_start=False)
    torch.testing.assert_close(terms["policy"], policy, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(terms["value"], value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(returns, expected, rtol=1e-4, atol=1e-4)
    assert returns.std() > 0.01
    assert not returns.requires_grad


@pytest.mark.parametrize("slow_weight", [1.0, 0.5])
def test_losses_of_2023_equal_the_formulas(slow_weight):
    agent = make(year=2023, slow_weight=slow_weight)
    going_on = torch.ones(B, T)
    going_on[0, 1] = 0
    rollout, terms, _, returns = losses(agent, going_on)
    policy, value, expected = reference_terms(agent, rollout, going_on, 1 - 1 / 333, mode=True, true_start=True)
    torch.testing.assert_close(terms["policy"], policy, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(terms["value"], value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(returns, expected, rtol=1e-4, atol=1e-4)
    # Nothing is learned from a start that is terminal.
    assert terms["policy"][0, 1] == 0
    assert terms["value"][0, 1] == 0
    assert terms["value"][0, 0] != 0


def test_policy_loss_of_the_dynamics_estimator():
    # One step, no entropy bonus, a start that goes on: the loss is minus the advantage, v_0 - R_0 (scale 1), and the
    # critic's loss is that of the other estimator.
    agent = make("continuous", year=2023, horizon=1, entropy=0.0)
    assert agent.behavior.settings.estimator == "dynamics"
    rollout, terms, metrics, returns = losses(agent)
    assert metrics["imagination/return_scale"] == 1
    critic = agent.behavior.critic
    value = critic.mean(critic(rollout.features[0])).view(B, T)
    torch.testing.assert_close(terms["policy"], value - returns, rtol=1e-4, atol=1e-5)
    slow = agent.behavior.slow_critic.mean(agent.behavior.slow_critic(rollout.features[0])).view(B, T)
    logits = critic(rollout.features[0]).view(B, T, -1)
    torch.testing.assert_close(terms["value"], critic.loss(logits, returns, slow), rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- where gradients go


@pytest.mark.parametrize("estimator", ["reinforce", "dynamics"])
@pytest.mark.parametrize("actions", ACTIONS)
def test_imagination_leaves_no_gradient_in_the_world_model(actions, estimator):
    agent = make(actions, estimator=estimator)
    _, terms, _, _ = losses(agent)
    (terms["policy"].mean() + terms["value"].mean()).backward()
    assert not gradients(agent.world_model)
    assert not gradients(agent.behavior.slow_critic)
    assert touched(agent.behavior.actor)
    assert touched(agent.behavior.critic)
    # The world model learns on: freezing was for the moment only.
    assert all(p.requires_grad for p in agent.world_model.parameters())
    assert all(p.requires_grad for p in agent.behavior.critic.parameters())
    assert not any(p.requires_grad for p in agent.behavior.slow_critic.parameters())


@pytest.mark.parametrize("estimator", ["reinforce", "dynamics"])
@pytest.mark.parametrize("actions", ACTIONS)
def test_each_term_trains_its_own_network(actions, estimator):
    agent = make(actions, estimator=estimator)
    _, terms, _, _ = losses(agent)
    terms["policy"].mean().backward(retain_graph=True)
    assert touched(agent.behavior.actor)
    assert not gradients(agent.behavior.critic)
    agent.zero_grad()
    terms["value"].mean().backward()
    assert touched(agent.behavior.critic)
    assert not touched(agent.behavior.actor)


@pytest.mark.parametrize("actions", ACTIONS)
def test_reinforce_records_nothing_of_the_dynamics(actions):
    agent = make(actions)
    rollout = agent.imagine(start(agent))
    assert not rollout.features.requires_grad
    assert not rollout.actions.requires_grad
    assert rollout.parameters.requires_grad


@pytest.mark.parametrize("actions", ACTIONS)
def test_dynamics_gives_the_actor_gradients_through_states_and_actions(actions):
    agent = make(actions, estimator="dynamics", entropy=0.0)
    rollout, terms, _, _ = losses(agent)
    assert rollout.features.requires_grad
    assert rollout.actions.requires_grad
    # With no entropy bonus the objective is the advantage alone, so all gradient has come through the dynamics.
    terms["policy"].mean().backward()
    for name, parameter in agent.behavior.actor.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_the_actor_does_not_learn_through_its_own_input():
    """Its input is outside the graph, in both estimators: the last action's gradient reaches step H - 1 only."""
    agent = make("continuous", estimator="dynamics")
    rollout = agent.imagine(start(agent))
    gradient = torch.autograd.grad(rollout.parameters[-1].sum(), rollout.actions, allow_unused=True)[0]
    assert gradient is None


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_reinforce_raises_the_probability_of_what_was_better_than_expected(advantage):
    agent = make("discrete", entropy=0.0)
    rollout = agent.imagine(start(agent))
    policy = agent.behavior.actor.distribution(rollout.parameters)
    (expected,) = torch.autograd.grad(
        -advantage * policy.log_probability(rollout.actions).mean(), rollout.parameters, retain_graph=True
    )
    # A critic that expects 0, rewards of exactly `advantage`, lambda 0 and episodes that go on: R_t - v_t = advantage.
    model, critic = agent.world_model, agent.behavior.critic
    critic.output.weight.data.zero_()
    critic.output.bias.data.zero_()
    model.reward.mean = lambda logits: torch.full(logits.shape[:-1], advantage)
    model.continuation.output.bias.data.fill_(100.0)
    agent.behavior.settings = replace(agent.behavior.settings, mix=0.0)
    terms, _, _ = agent.behavior.loss(model, rollout, torch.ones(B, T))
    (gradient,) = torch.autograd.grad(terms["policy"].mean(), rollout.parameters)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)


# ---------------------------------------------------------------- rollouts


def test_rollout_begins_in_the_start_states_and_follows_the_world_model():
    agent = make("both")
    begin = start(agent)
    rollout = agent.imagine(begin, deterministic=True)
    assert rollout.features.shape == (H + 1, B * T, agent.world_model.rssm.features)
    assert rollout.actions.shape == (H, B * T, 2 + 5)
    assert torch.equal(rollout.features[0], begin.feature)
    rssm, actor = agent.world_model.rssm, agent.behavior.actor
    kernels, state = rssm.cell.prepare(torch.float32), begin
    for t in range(H):
        action = actor.distribution(actor(state.feature)).sample(deterministic=True)
        torch.testing.assert_close(rollout.actions[t], action)
        torch.testing.assert_close(rollout.parameters[t], actor(state.feature))
        state = rssm.imagine_step(state, action, kernels, deterministic=True)
        torch.testing.assert_close(rollout.features[t + 1], state.feature)


def test_frozen_restores_what_was_trainable_even_after_an_error():
    module = torch.nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    with pytest.raises(RuntimeError), frozen(module):
        assert not module.weight.requires_grad
        raise RuntimeError
    assert module.weight.requires_grad
    assert not module.bias.requires_grad


# ---------------------------------------------------------------- replayed rewards


def replayed():
    torch.manual_seed(2)
    batch = {"reward": torch.randn(B, 6), "is_last": torch.zeros(B, 6).bool(), "is_terminal": torch.zeros(B, 6).bool()}
    batch["is_last"][0, 2] = batch["is_terminal"][0, 2] = True  # terminated
    batch["is_last"][1, 3] = True  # cut off
    return batch


def test_replay_value_loss_equals_the_formula():
    agent = make()
    behavior, batch = agent.behavior, replayed()
    feature = torch.randn(B, 6, agent.world_model.rssm.features)
    boot = torch.randn(B, 6)
    gamma, mix = 1 - 1 / 333, 0.95
    returns = torch.zeros(B, 5)
    for b in range(B):
        following = boot[b, 5]
        for t in reversed(range(5)):
            last, terminal = float(batch["is_last"][b, t + 1]), float(batch["is_terminal"][b, t + 1])
            carried = (1 - mix * (1 - last)) * boot[b, t + 1] + mix * (1 - last) * following
            following = batch["reward"][b, t + 1] + gamma * (1 - terminal) * carried
            returns[b, t] = following
    # What ends in termination is the reward alone; what was cut off bootstraps with the imagined return alone.
    assert returns[0, 1] == batch["reward"][0, 2]
    assert returns[1, 2].item() == pytest.approx((batch["reward"][1, 3] + gamma * boot[1, 3]).item())
    logits = behavior.critic(feature[:, :-1])
    slow = behavior.slow_critic.mean(behavior.slow_critic(feature[:, :-1]))
    expected = behavior.critic.loss(logits, returns) + behavior.critic.loss(logits, slow)
    expected = torch.where(batch["is_last"][:, :-1], 0.0, expected)
    loss = behavior.replay_value_loss(feature, batch, boot)
    assert loss.shape == (B, 5)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


def test_replay_value_loss_ignores_steps_that_end_an_episode():
    agent, batch = make(), replayed()
    feature = torch.randn(B, 6, agent.world_model.rssm.features, requires_grad=True)
    loss = agent.behavior.replay_value_loss(feature, batch, torch.randn(B, 6))
    assert (loss[0, 2], loss[1, 3]) == (0, 0)
    assert (loss > 0).sum() == 8
    loss.sum().backward()
    # Its gradient reaches the features, and so the world model, but not where an episode ends, nor the last step.
    assert (feature.grad[0, 2] == 0).all()
    assert (feature.grad[1, 3] == 0).all()
    assert (feature.grad[:, 5] == 0).all()
    assert feature.grad[0, 0].abs().max() > 0
    assert touched(agent.behavior.critic)
    assert not gradients(agent.behavior.slow_critic)


# ---------------------------------------------------------------- slow critic and scale


def test_slow_critic_begins_as_a_copy_and_moves_by_two_hundredths():
    agent = make()
    interface = Interface((OBSERVATION,), ACTIONS["discrete"])
    fresh = DreamerV3Config(size="100k").build(interface).behavior
    for fast, slow in zip(fresh.critic.parameters(), fresh.slow_critic.parameters(), strict=True):
        assert torch.equal(fast, slow)
        assert fast is not slow
    behavior = agent.behavior
    for fast, slow in zip(behavior.critic.parameters(), behavior.slow_critic.parameters(), strict=True):
        fast.data.fill_(3.0)
        slow.data.fill_(1.0)
    # 1 + 0.02 (3 - 1) = 1.04; then 1.04 + 0.02 * 1.96 = 1.0792.
    for expected in (1.04, 1.0792):
        behavior.update_slow_critic()
        for fast, slow in zip(behavior.critic.parameters(), behavior.slow_critic.parameters(), strict=True):
            torch.testing.assert_close(slow, torch.full_like(slow, expected))
            assert (fast == 3).all()


def test_return_scale_by_hand():
    # Percentiles of 0..100 are 5 and 95; the averages start at zero and move by a hundredth: 0.05 and 0.95. Their
    # difference of 0.9 is below the least scale of 1. After two updates: 0.05 * 1.99 = 0.0995 and 1.8905: 1.791.
    normalizer = ReturnNormalizer()
    returns = torch.arange(101.0)[torch.randperm(101)]
    normalizer.update(returns)
    assert normalizer.low.item() == pytest.approx(0.05, rel=1e-5)
    assert normalizer.high.item() == pytest.approx(0.95, rel=1e-5)
    assert normalizer.scale.item() == 1.0
    normalizer.update(returns.view(1, 101))
    assert normalizer.low.item() == pytest.approx(0.0995, rel=1e-5)
    assert normalizer.high.item() == pytest.approx(1.8905, rel=1e-5)
    assert normalizer.scale.item() == pytest.approx(1.791, rel=1e-5)


def test_return_scale_converges_to_the_spread():
    normalizer = ReturnNormalizer()
    for _ in range(1500):
        normalizer.update(torch.arange(101.0))
    assert normalizer.scale.item() == pytest.approx(90, rel=1e-3)


def test_the_scale_is_updated_before_it_is_used():
    agent = make(entropy=0.0)
    agent.behavior.normalizer.high.fill_(-1e6)
    rollout, _, metrics, _ = losses(agent)
    assert metrics["imagination/return_scale"].item() == 1.0
    agent.behavior.normalizer.low.zero_()
    agent.behavior.normalizer.high.fill_(1000.0)
    _, _, metrics, _ = losses(agent)
    # 990 and a hundredth of the newest percentile.
    assert metrics["imagination/return_scale"].item() == pytest.approx(990, abs=5)


def test_the_scale_is_saved():
    assert {"low", "high"} == set(ReturnNormalizer().state_dict())
