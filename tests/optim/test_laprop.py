import math

import pytest
import torch

from reverie.optim.laprop import LaProp


def step(optimizer, *gradients):
    for parameter, gradient in zip(optimizer.parameters, gradients, strict=True):
        parameter.grad = torch.as_tensor(gradient, dtype=torch.float32).expand_as(parameter).clone()
    return optimizer.step()


def scalar(value):
    return torch.tensor([value], requires_grad=True)


def test_two_steps_by_hand():
    # No warm-up, no clipping in effect; beta1 0.9, beta2 0.99, rate 0.1.
    # Step 1, g = 2: nu = 0.01 * 4 = 0.04, corrected 0.04 / 0.01 = 4, g / 2 = 1; mu = 0.1, corrected 0.1 / 0.1 = 1.
    #   p = 10 - 0.1 * 1 = 9.9
    # Step 2, g = -1: nu = 0.99 * 0.04 + 0.01 * 1 = 0.0496, corrected / (1 - 0.9801) = 2.492462, root 1.578753,
    #   scaled g = -0.633412; mu = 0.9 * 0.1 + 0.1 * -0.633412 = 0.0266588, corrected / 0.19 = 0.140309.
    #   p = 9.9 - 0.0140309 = 9.885969
    p = scalar(10.0)
    optimizer = LaProp([p], 0.1, clip=1.0, warmup=0, beta2=0.99)
    step(optimizer, 2.0)
    assert p.item() == pytest.approx(9.9, abs=1e-6)
    step(optimizer, -1.0)
    assert p.item() == pytest.approx(9.885969, abs=2e-6)


def test_clipping_by_hand():
    # |p| = 10 and clip 0.3: gradients above norm 3 are scaled to 3. Two steps with 30 and then 1:
    #   g = 3: nu = 0.001 * 9, corrected 9, scaled 1; p = 10 - 0.1 = 9.9.
    #   g = 1 (below 0.3 * 9.9): nu = 0.999 * 0.009 + 0.001 = 0.009991, corrected / 0.001999 = 4.997999, root 2.235621,
    #   scaled 0.447303; mu = 0.09 + 0.0447303 = 0.1347303, corrected / 0.19 = 0.709107; p = 9.9 - 0.0709107 = 9.829089.
    # Without clipping the first gradient would leave nu at 0.9 and the second step would be far smaller.
    p = scalar(10.0)
    optimizer = LaProp([p], 0.1, warmup=0)
    metrics = step(optimizer, 30.0)
    assert metrics["optimizer/gradient_norm"].item() == pytest.approx(30)  # before clipping
    assert metrics["optimizer/clipped"].item() == 1.0
    assert p.item() == pytest.approx(9.9, abs=1e-6)
    metrics = step(optimizer, 1.0)
    assert metrics["optimizer/clipped"].item() == 0.0
    assert p.item() == pytest.approx(9.829089, abs=3e-6)


def test_clipping_looks_at_each_whole_tensor():
    # Tensor a: norm 5, so the limit is 1.5; its gradient (3, 4) has norm 5 and shrinks to (0.9, 1.2): nu = 0.001 of
    # (0.81, 1.44). Tensor b: norm 100, limit 30: its gradient of norm 5 stays, nu = 0.001 of (9, 16).
    a = torch.tensor([3.0, 4.0], requires_grad=True)
    b = torch.tensor([60.0, 80.0], requires_grad=True)
    optimizer = LaProp([a, b], 0.1, warmup=0)
    metrics = step(optimizer, [3.0, 4.0], [3.0, 4.0])
    tensors = optimizer.state_tensors()
    torch.testing.assert_close(tensors["square.0"], torch.tensor([0.00081, 0.00144]))
    torch.testing.assert_close(tensors["square.1"], torch.tensor([0.009, 0.016]))
    assert metrics["optimizer/clipped"].item() == 0.5
    assert metrics["optimizer/gradient_norm"].item() == pytest.approx(math.sqrt(50))


def test_small_parameters_count_as_a_thousandth():
    # A bias of zeros: the limit is 0.3 * 1e-3 = 3e-4, so a gradient of 1 becomes 3e-4 and nu 0.001 * 9e-8.
    p = scalar(0.0)
    optimizer = LaProp([p], 0.1, warmup=0)
    step(optimizer, 1.0)
    assert optimizer.state_tensors()["square.0"].item() == pytest.approx(9e-11, rel=1e-5)
    assert p.item() == pytest.approx(-0.1, rel=1e-5)


def test_the_first_update_of_a_warm_up_changes_nothing():
    # Rate min(1, (t - 1) / 4): 0, 0.025, 0.05, 0.075, 0.1, 0.1. A constant gradient gives steps of exactly the rate.
    p = scalar(10.0)
    optimizer = LaProp([p], 0.1, warmup=4)
    positions = [10.0]
    for _ in range(6):
        step(optimizer, 1.0)
        positions.append(p.item())
    assert positions[1] == 10.0
    changes = [before - after for before, after in zip(positions[:-1], positions[1:], strict=True)]
    assert changes == pytest.approx([0, 0.025, 0.05, 0.075, 0.1, 0.1], abs=1e-5)


@pytest.mark.parametrize(("floor", "last"), [(0.0, 0.1 / 5), (0.03, 0.03)])
def test_the_rate_falls_to_a_half_and_a_fifth_and_not_below_its_floor(floor, last):
    # A constant gradient moves p by the rate: 0.1 / (1 + (t / 2)^2) for t = 0, 1, 2, 3, 4.
    p = scalar(10.0)
    optimizer = LaProp([p], 0.1, warmup=0, decay=2, floor=floor)
    moved = []
    for _ in range(5):
        before = p.item()
        step(optimizer, 1.0)
        moved.append(before - p.item())
    assert moved == pytest.approx([0.1, 0.1 / 1.25, 0.1 / 2, 0.1 / 3.25, last], abs=2e-6)


def test_defaults_are_those_of_the_paper():
    optimizer = LaProp([scalar(1.0)])
    assert (optimizer.rate, optimizer.clip, optimizer.warmup) == (4e-5, 0.3, 1000)
    assert (optimizer.beta1, optimizer.beta2, optimizer.epsilon) == (0.9, 0.999, 1e-20)
    assert optimizer.minimum_norm == 1e-3


def test_zero_and_missing_gradients_change_nothing():
    a, b = scalar(1.0), scalar(2.0)
    optimizer = LaProp([a, b], 0.1, warmup=0)
    a.grad = torch.zeros(1)
    metrics = optimizer.step()
    assert (a.item(), b.item()) == (1.0, 2.0)
    assert metrics["optimizer/gradient_norm"].item() == 0


def test_gradients_are_not_changed_and_zero_grad_forgets_them():
    p = scalar(0.1)
    optimizer = LaProp([p], 0.1, warmup=0)
    step(optimizer, 5.0)
    assert p.grad.item() == 5.0
    optimizer.zero_grad()
    assert p.grad is None


def test_parameters_without_gradient_are_left_out():
    frozen = torch.ones(3)
    assert len(LaProp([scalar(1.0), frozen]).parameters) == 1


def run(optimizer, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        step(optimizer, *[torch.randn(p.shape, generator=generator) for p in optimizer.parameters])


def test_state_round_trip_gives_identical_next_steps():
    def make():
        return [torch.linspace(-1, 1, 6).view(2, 3).requires_grad_(), scalar(0.5)]

    first = LaProp(make(), 0.01, warmup=5)
    run(first, 3, seed=0)
    saved = {name: tensor.clone() for name, tensor in first.state_tensors().items()}
    second = LaProp([p.detach().clone().requires_grad_() for p in first.parameters], 0.01, warmup=5)
    second.load_state_tensors(saved)
    run(first, 4, seed=1)
    run(second, 4, seed=1)
    for one, other in zip(first.parameters, second.parameters, strict=True):
        assert torch.equal(one, other)
    # What was loaded is not shared with the optimizer.
    assert saved["count"].item() == 3


def test_it_minimizes_a_quadratic():
    p = torch.tensor([3.0, -2.0], requires_grad=True)
    optimizer = LaProp([p], 0.02, warmup=10)
    for _ in range(600):
        optimizer.zero_grad()
        (p - torch.tensor([1.0, 0.5])).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(p.detach(), torch.tensor([1.0, 0.5]), rtol=0, atol=0.05)
