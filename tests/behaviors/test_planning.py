import pytest
import torch

from reverie.agents.planet import PlaNetConfig
from reverie.agents.registry import make_config
from reverie.behaviors.cem import CrossEntropyPlanner
from reverie.behaviors.planning import Planning, imagined_return
from reverie.models.rssm import LatentState
from reverie.models.vision_memory import VisionMemory
from reverie.nn.mdn_rnn import MixtureRNN
from reverie.nn.vae import ConvVAE
from reverie.spaces import ActionPart, Interface, ObservationPart

MOVE, TOOL = ActionPart("move", "continuous", 2), ActionPart("tool", "discrete", 2, (3, 2))
SMALL = {"deterministic": 12, "hidden": 8, "variables": 4, "reward_units": 8, "vector_units": 8}
SMALL |= {"horizon": 4, "candidates": 60, "iterations": 4, "elites": 6}


def make(*parts, **values):
    torch.manual_seed(0)
    config = PlaNetConfig(**{**SMALL, **values})
    return config.build(Interface((ObservationPart("x", "vector", (3,)),), parts))


def start(agent, count=3):
    rssm = agent.world_model.rssm
    torch.manual_seed(1)
    return LatentState(torch.randn(count, rssm.deterministic).tanh(), torch.randn(count, rssm.latent.width))


class Remembering:
    """Stands in for the RSSM: h holds the last action, so that rewards can be functions of actions."""

    def __init__(self, rssm):
        self.rssm, self.seen = rssm, []

    def __call__(self, state, action, kernels, deterministic=False, temperature=1.0):
        h = torch.zeros_like(state.deterministic)
        h[:, : action.shape[1]] = action
        self.seen.append(action)
        return LatentState(h, state.stochastic)


def rewarding(agent, reward):
    """Lets the model's reward be a function of the action that led to a state."""
    width = agent.interface.action_width
    agent.world_model.rssm.imagine_step = Remembering(agent.world_model.rssm)
    agent.world_model.predict_reward = lambda feature: reward(feature[:, :width])
    return agent.world_model.rssm.imagine_step


def test_it_finds_the_action_with_the_greatest_reward():
    agent = make(MOVE, candidates=400, iterations=8, elites=40)
    best = torch.tensor([0.5, -0.25])
    rewarding(agent, lambda action: -(action - best).square().sum(-1))
    action = agent.behavior.choose(agent.world_model, start(agent), False)
    assert action.shape == (3, 2)
    assert (action - best).abs().max() < 0.05


def test_discrete_variables_are_planned_as_one_hot_actions():
    agent = make(MOVE, TOOL)
    # The third class of the first variable and the first of the second are best.
    step = rewarding(agent, lambda action: action[:, 4] + action[:, 5] - action[:, :2].square().sum(-1))
    action = agent.behavior.choose(agent.world_model, start(agent), False)
    assert (action[:, 2:] == torch.tensor([0.0, 0, 1, 1, 0])).all()
    for tried in step.seen:
        for variable in (tried[:, 2:5], tried[:, 5:7]):
            assert ((variable == 0) | (variable == 1)).all()
            assert (variable.sum(-1) == 1).all()
        assert tried[:, :2].abs().max() <= 1


def test_the_score_is_the_sum_of_the_rewards_that_are_reached():
    agent = make(MOVE)
    model, begin = agent.world_model, start(agent)
    actions = torch.rand(3, 4, 2) * 2 - 1
    states = model.rssm.imagine(lambda feature, step: actions[:, step], begin, 4, deterministic=True)
    expected = sum(model.reward(state.feature) for state in states[1:])
    torch.testing.assert_close(imagined_return(model, begin, actions, True), expected)


def test_rewards_behind_a_predicted_end_do_not_count():
    agent = make(MOVE, continuation=True)
    model, begin = agent.world_model, start(agent)
    actions = torch.rand(3, 4, 2) * 2 - 1
    states = model.rssm.imagine(lambda feature, step: actions[:, step], begin, 4, deterministic=True)
    expected, going = torch.zeros(3), torch.ones(3)
    for state in states[1:]:
        expected = expected + going * model.reward(state.feature)
        going = going * torch.sigmoid(model.continuation(state.feature))
    torch.testing.assert_close(imagined_return(model, begin, actions, True), expected)
    # A head that is sure of the end leaves the first reward alone.
    model.continuation.output.bias.data.fill_(-100.0)
    first = model.reward(states[1].feature)
    torch.testing.assert_close(imagined_return(model, begin, actions, True), first)


@pytest.mark.parametrize(
    ("name", "preset", "values"),
    [
        ("planet", "quick", {}),
        ("dreamer-v1", "quick", {"continuation": False}),
        ("dreamer-v1", "quick", {}),
        ("dreamer-v2", "quick", {}),
        ("dreamer-v3-2023", "paper", {"size": "nano"}),
        ("dreamer-v3", "quick", {}),
    ],
)
def test_it_plans_in_the_model_of_any_agent(name, preset, values):
    torch.manual_seed(0)
    config = make_config(name, values, preset)
    agent = config.build(Interface((ObservationPart("x", "vector", (3,)),), (MOVE, TOOL)))
    model, state = agent.world_model, start(agent, 2)
    planning = Planning((MOVE, TOOL), CrossEntropyPlanner(3, 40, 3, 4))
    action = planning.choose(model, state, True)
    assert action.shape == (2, 7) and (action[:, 2:].sum(-1) == 2).all()
    # Returns are sums of rewards, without the discount that some continue heads have learned.
    actions = planning.executable(torch.randn(2, 3, 7).clamp(-1, 1))
    total, going = torch.zeros(2), torch.ones(2)
    with torch.no_grad():
        for reached in model.rssm.imagine(lambda feature, step: actions[:, step], state, 3, True)[1:]:
            total = total + going * model.predict_reward(reached.feature)
            going = going * (model.predict_continue(reached.feature) / model.scales.continue_discount).clamp(max=1)
        torch.testing.assert_close(imagined_return(model, state, actions, True), total)


def test_it_plans_in_a_vision_memory():
    torch.manual_seed(0)
    model = VisionMemory(ConvVAE(3), MixtureRNN(3, 2, 8, 2, reward_head=True), reads="zh")

    def dream(state, action, temperature=1.0, most_likely=False):
        following, _, going_on = VisionMemory.dream(model, state, action, temperature, most_likely)
        return following, -(action - state.latent[:, :2]).square().sum(-1), going_on

    model.dream = dream
    latent = torch.tensor([[0.5, -0.25, 0.0], [-0.3, 0.8, 0.0]])
    action = Planning((MOVE,), CrossEntropyPlanner(2, 400, 8, 40)).choose(model, model.begin(latent), True)
    assert (action - latent[:, :2]).abs().max() < 0.05


def test_environments_do_not_influence_each_other():
    agent = make(MOVE, candidates=300, iterations=6, elites=30)
    # The best action is the sign of the state's own sample, which differs between environments.
    rewarding(agent, lambda action: torch.zeros(action.shape[0]))
    begin = start(agent, 2)
    begin.stochastic[:] = torch.tensor([[1.0], [-1.0]])
    model = agent.world_model
    model.predict_reward = lambda feature: feature[:, 0] * feature[:, -1]
    action = agent.behavior.choose(model, begin, False)
    assert action[0, 0] > 0.7
    assert action[1, 0] < -0.7


def test_the_plan_can_be_imagined():
    agent = make(MOVE, TOOL)
    rollout = agent.imagine(start(agent))
    assert rollout.features.shape == (5, 3, agent.world_model.features)
    assert rollout.actions.shape == (4, 3, 7)
    assert rollout.parameters.shape == (4, 3, 0)
    assert not rollout.features.requires_grad


def test_planning_learns_nothing_and_has_the_papers_numbers():
    agent = make(MOVE)
    assert agent.behavior.learn(agent.world_model, start(agent), {}, False) == ({}, {})
    assert not list(agent.behavior.parameters())
    assert not agent.behavior.evaluates_with_mode
    paper = PlaNetConfig()
    assert CrossEntropyPlanner() == CrossEntropyPlanner(paper.horizon, paper.candidates, paper.iterations, paper.elites)


@pytest.mark.parametrize("purpose", ["evaluation", "experience", "random"])
def test_noise_is_for_experience_only(purpose):
    agent = make(MOVE, TOOL)
    plain = torch.tensor([[0.9, -0.2, 1, 0, 0, 0, 1]]).expand(500, 7)
    agent.behavior.choose = lambda model, state, most_likely: plain
    observation = {"x": torch.zeros(500, 3)}
    torch.manual_seed(0)
    action, state = agent.act(observation, torch.ones(500, dtype=torch.bool), None, purpose=purpose)
    assert torch.equal(state.action, action)  # what was done is what the model will see next
    assert action.abs().max() <= 1
    if purpose == "evaluation":
        assert torch.equal(action, plain)
    elif purpose == "experience":
        assert (action[:, 1] + 0.2).std().item() == pytest.approx(0.3, rel=0.1)
        assert (action[:, 0] == 1).float().mean().item() == pytest.approx(0.37, abs=0.07)  # P(0.3 n > 0.1)
        assert (action[:, 2] == 1).float().mean().item() == pytest.approx(1 - 0.1 * 2 / 3, abs=0.04)
    else:
        assert action[:, :2].std().item() == pytest.approx(3**-0.5, rel=0.1)
        assert action[:, 2].mean().item() == pytest.approx(1 / 3, abs=0.07)
