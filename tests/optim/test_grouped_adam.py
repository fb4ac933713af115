import math

import pytest
import torch

from reverie.optim.grouped_adam import AdamGroup, GroupedAdam


def scalar(value):
    return torch.tensor([value], requires_grad=True)


def make(model=None, actor=None, clip=100.0, epsilon=1e-5, early=False):
    model = model or [torch.linspace(-1, 1, 6).view(2, 3).requires_grad_(), scalar(0.5)]
    actor = actor or [scalar(2.0)]
    second = AdamGroup(0.01, epsilon, clip, epsilon_before_correction=early)
    return GroupedAdam({"model": (model, AdamGroup(0.1, 1e-8, 1000.0)), "actor": (actor, second)})


def set_gradients(optimizer, seed):
    generator = torch.Generator().manual_seed(seed)
    for members in optimizer.parameters.values():
        for parameter in members:
            parameter.grad = torch.randn(parameter.shape, generator=generator)


def parameters(optimizer):
    return [p for members in optimizer.parameters.values() for p in members]


def test_groups_have_their_own_rate():
    # The first step of Adam is rate * g / (|g| + epsilon): the rate itself, against the gradient.
    model, actor = scalar(1.0), scalar(1.0)
    optimizer = make([model], [actor])
    model.grad, actor.grad = torch.tensor([3.0]), torch.tensor([-2.0])
    optimizer.step()
    assert model.item() == pytest.approx(0.9, abs=1e-6)
    assert actor.item() == pytest.approx(1.01, abs=1e-6)


def test_second_step_by_hand():
    # Gradients 1 and then 3 with rate 0.1: m = 0.9 * 0.1 + 0.1 * 3 = 0.39, corrected / 0.19 = 2.052632;
    # v = 0.999 * 0.001 + 0.001 * 9 = 0.009999, corrected / 0.001999 = 5.002001, root 2.236516.
    # p = 1 - 0.1 - 0.1 * 2.052632 / 2.236516 = 0.9 - 0.0917781 = 0.8082219.
    model = scalar(1.0)
    optimizer = make([model])
    for gradient in (1.0, 3.0):
        model.grad = torch.tensor([gradient])
        optimizer.step()
    assert model.item() == pytest.approx(0.8082219, abs=2e-6)


def test_groups_have_their_own_clip_over_all_their_gradients():
    # Actor: gradients 3 and 4, global norm 5, clipped to 1: 0.6 and 0.8. Model: norm 500 is below its 1000.
    model, actor = scalar(1.0), [scalar(1.0), scalar(1.0)]
    optimizer = make([model], actor, clip=1.0)
    model.grad = torch.tensor([500.0])
    actor[0].grad, actor[1].grad = torch.tensor([3.0]), torch.tensor([4.0])
    metrics = optimizer.step()
    state = optimizer.state_tensors()
    # exp_avg after one step is 0.1 g.
    assert state["actor.0.exp_avg"].item() == pytest.approx(0.06, rel=1e-5)
    assert state["actor.1.exp_avg"].item() == pytest.approx(0.08, rel=1e-5)
    assert state["model.0.exp_avg"].item() == pytest.approx(50)
    # The metric is the norm of everything before clipping: sqrt(500^2 + 3^2 + 4^2).
    assert metrics["optimizer/gradient_norm"].item() == pytest.approx(math.sqrt(250_025))


def test_epsilon_of_the_group():
    # With |g| equal to the epsilon of 1e-5 the first step is half the rate.
    actor = scalar(1.0)
    optimizer = make(actor=[actor])
    actor.grad = torch.tensor([1e-5])
    for p in optimizer.parameters["model"]:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert 1 - actor.item() == pytest.approx(0.005, rel=1e-3)


def test_epsilon_before_the_bias_correction_by_hand():
    # Gradients 1 and then 3 with rate 0.01 and epsilon 0.05. TensorFlow subtracts
    # rate sqrt(1 - 0.999^t) / (1 - 0.9^t) m / (sqrt(v) + epsilon).
    # t = 1: m = 0.1, sqrt(v) = sqrt(0.001) = 0.03162278; rate 0.01 * 0.03162278 / 0.1 = 0.003162278;
    # 0.003162278 * 0.1 / (0.03162278 + 0.05) = 0.003874259.
    # t = 2: m = 0.39, sqrt(v) = sqrt(0.009999) = 0.09999500; rate 0.01 * sqrt(0.001999) / 0.19 = 0.002353167;
    # 0.002353167 * 0.39 / (0.09999500 + 0.05) = 0.006118439.
    # In PyTorch's place the first step would be 0.01 * 1 / (1 + 0.05) = 0.009523810.
    model, actor = scalar(1.0), scalar(1.0)
    optimizer = make([model], [actor], epsilon=0.05, early=True)
    for gradient, expected in ((1.0, 1 - 0.003874259), (3.0, 1 - 0.003874259 - 0.006118439)):
        model.grad, actor.grad = torch.tensor([gradient]), torch.tensor([gradient])
        optimizer.step()
        assert actor.item() == pytest.approx(expected, abs=1e-6)
    # The other group keeps its own place: the numbers of `test_second_step_by_hand`.
    assert model.item() == pytest.approx(0.8082219, abs=2e-6)


def test_state_does_not_tell_where_epsilon_is():
    """Checkpoints of both kinds have the same tensors; the step that was reached decides the correction."""
    plain, early, resumed = make(epsilon=0.05), make(epsilon=0.05, early=True), make(epsilon=0.05, early=True)
    for optimizer in (plain, early):
        for seed in range(3):
            set_gradients(optimizer, seed)
            optimizer.step()
    assert plain.state_tensors().keys() == early.state_tensors().keys()
    # Moments do not depend on epsilon, so the state of one is that of the other.
    resumed.load_state_tensors(plain.state_tensors())
    with torch.no_grad():
        for target, source in zip(parameters(resumed), parameters(early), strict=True):
            target.copy_(source)
    for optimizer in (early, resumed):
        set_gradients(optimizer, 3)
        optimizer.step()
    for one, other in zip(parameters(early), parameters(resumed), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("early", [False, True])
def test_state_round_trip_gives_identical_next_steps(early):
    first = make(early=early)
    for seed in range(3):
        set_gradients(first, seed)
        first.step()
    saved = {name: tensor.clone() for name, tensor in first.state_tensors().items()}
    copies = [[p.detach().clone().requires_grad_() for p in members] for members in first.parameters.values()]
    second = make(*copies, early=early)
    second.load_state_tensors(saved)
    for seed in range(3, 6):
        for optimizer in (first, second):
            set_gradients(optimizer, seed)
            optimizer.step()
    for one, other in zip(parameters(first), parameters(second), strict=True):
        assert torch.equal(one, other)


def test_loaded_state_is_not_shared():
    """Two optimizers with one state must not move each other's moments."""
    first = make()
    set_gradients(first, 0)
    first.step()
    second = make()
    second.load_state_tensors(first.state_tensors())
    before = {name: tensor.clone() for name, tensor in first.state_tensors().items()}
    set_gradients(second, 1)
    second.step()
    for name, tensor in first.state_tensors().items():
        assert torch.equal(tensor, before[name]), name


def test_state_is_named_tensors():
    optimizer = make()
    set_gradients(optimizer, 0)
    optimizer.step()
    state = optimizer.state_tensors()
    assert {name.split(".")[0] for name in state} == {"model", "actor"}
    assert {"model.1.exp_avg", "model.1.exp_avg_sq", "model.1.step"} <= state.keys()
    assert all(isinstance(value, torch.Tensor) for value in state.values())


def test_zero_grad_forgets_gradients_and_frozen_parameters_are_left_out():
    frozen = torch.ones(3)
    optimizer = make([scalar(1.0), frozen])
    assert len(optimizer.parameters["model"]) == 1
    set_gradients(optimizer, 0)
    optimizer.zero_grad()
    assert all(p.grad is None for p in parameters(optimizer))
