import pytest
import torch

from reverie.behaviors.exploration import HOLDS, Exploration, held_action, random_action
from reverie.spaces import ActionPart

TOOL = (ActionPart("tool", "discrete", 2, (4, 2)),)


def test_epsilon_falls_linearly_with_the_updates():
    exploration = Exploration(TOOL, 0.3, 0.4, 0.1, decay=4)
    seen = []
    for _ in range(6):
        seen.append(round(exploration.epsilon.item(), 4))
        exploration.after_update()
    assert seen == [0.4, 0.325, 0.25, 0.175, 0.1, 0.1]
    assert exploration.metrics()["policy/epsilon"].item() == pytest.approx(0.1)
    assert Exploration(TOOL, epsilon=0.2).epsilon.item() == pytest.approx(0.2)


def test_the_count_of_updates_is_saved():
    one, two = Exploration(TOOL, 0.3, 0.4, 0.1, 4), Exploration(TOOL, 0.3, 0.4, 0.1, 4)
    one.after_update()
    two.load_state_dict(one.state_dict())
    assert two.epsilon.item() == pytest.approx(0.325)


def test_each_variable_is_redrawn_with_that_probability():
    torch.manual_seed(0)
    exploration = Exploration(TOOL, epsilon=0.4)
    action = torch.tensor([[1.0, 0, 0, 0, 0, 1]]).expand(20_000, 6)
    noisy = exploration(action)
    assert (noisy[:, :4].sum(-1) == 1).all() and (noisy[:, 4:].sum(-1) == 1).all()
    # A redrawn variable keeps its class with one over the number of classes.
    assert noisy[:, 0].mean().item() == pytest.approx(1 - 0.4 * 3 / 4, abs=0.01)
    assert noisy[:, 5].mean().item() == pytest.approx(1 - 0.4 / 2, abs=0.01)
    both = ((noisy[:, 0] == 0) & (noisy[:, 5] == 0)).float().mean().item()
    assert both == pytest.approx(0.3 * 0.2, abs=0.01)  # variables are redrawn one by one


def test_continuous_actions_only_have_no_epsilon():
    move = (ActionPart("move", "continuous", 3),)
    assert Exploration(move).metrics() == {}
    assert torch.equal(Exploration(move, noise=0.0)(torch.tensor([[0.5, -1.0, 1.0]])), torch.tensor([[0.5, -1.0, 1.0]]))


def test_random_actions_are_uniform():
    torch.manual_seed(0)
    parts = (ActionPart("move", "continuous", 1), *TOOL)
    action = random_action(parts, 20_000, torch.device("cpu"))
    assert action.shape == (20_000, 7)
    assert action[:, 0].min() < -0.99 and action[:, 0].max() > 0.99 and abs(action[:, 0].mean()) < 0.02
    assert action[:, 1:].mean(0).tolist() == pytest.approx([0.25] * 4 + [0.5] * 2, abs=0.015)


def test_random_actions_last_as_long_as_their_environment_holds_them():
    torch.manual_seed(0)
    count, steps = 2 * len(HOLDS), 4000
    action, again = random_action(TOOL, count, torch.device("cpu")), torch.zeros(count)
    for _ in range(steps):
        drawn = torch.rand_like(action)
        after = held_action(drawn, action, torch.zeros(count, dtype=torch.bool))
        held = (after == action).all(1)
        assert torch.equal(after[~held], drawn[~held])
        again, action = again + held, after
    # A geometric time with mean m goes on with probability 1 - 1 / m; its deviation over 4,000 steps is below 0.008.
    assert torch.allclose(again / steps, 1 - 1 / torch.tensor(HOLDS * 2), atol=0.03)


def test_no_random_action_is_held_beyond_its_episode():
    torch.manual_seed(0)
    previous, drawn = torch.zeros(8, 6), torch.ones(8, 6)
    for _ in range(20):
        assert torch.equal(held_action(drawn, previous, torch.ones(8, dtype=torch.bool)), drawn)
