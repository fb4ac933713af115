"""Densities and entropies of the policies against numerical integration."""

import math

import pytest
import torch

from reverie.nn.policies import BoundedNormal, TanhNormal, TruncatedNormal
from reverie.ops import distributions

FAMILIES = {"bounded": BoundedNormal(), "tanh": TanhNormal(), "truncated": TruncatedNormal()}
# Mean and deviation of the underlying normal.
CASES = [(0.0, 0.5), (0.4, 0.3), (-0.9, 1.1), (0.99, 0.1), (2.0, 1.0), (0.0, 5.0), (-4.0, 2.0)]


def integrate(family, mean, deviation, points=400_001):
    """Mass and entropy of a one-dimensional policy: sums over a fine grid of actions."""
    mean, deviation = torch.tensor([mean]).double(), torch.tensor([deviation]).double()
    if isinstance(family, TanhNormal):
        # The grid is even before tanh, so that it is dense where the density is steep.
        inside = torch.linspace(-14, 14, points, dtype=torch.double)
        action, width = torch.tanh(inside), (1 - torch.tanh(inside).square()) * (inside[1] - inside[0])
    else:
        edge = 1.0 if isinstance(family, TruncatedNormal) else 12.0
        action = torch.linspace(-edge, edge, points, dtype=torch.double)
        width = torch.full_like(action, (action[1] - action[0]).item())
    keep = action.abs() <= 1 - 1e-6 if isinstance(family, TanhNormal) else torch.ones_like(action).bool()
    log_p = family.log_probability(action[keep, None], mean, deviation)
    mass = log_p.exp() * width[keep]
    return mass.sum().item(), -(mass * log_p).sum().item()


@pytest.mark.parametrize(("mean", "deviation"), CASES)
@pytest.mark.parametrize("name", ["tanh", "truncated"])
def test_density_and_entropy_by_numerical_integration(name, mean, deviation):
    if name == "truncated" and abs(mean) > 1:
        mean = math.tanh(mean)
    family = FAMILIES[name]
    mass, entropy = integrate(family, mean, deviation)
    # What tanh presses into the last millionth before -1 and 1 is left out of the sum.
    beyond = 0.0
    if name == "tanh":
        normal = torch.distributions.Normal(mean, deviation)
        edge = torch.atanh(torch.tensor(1 - 1e-6).double())
        beyond = (1 - normal.cdf(edge) + normal.cdf(-edge)).item()
    assert mass == pytest.approx(1 - beyond, abs=2e-3)
    ours = family.entropy(torch.tensor([mean]), torch.tensor([deviation])).item()
    if beyond < 1e-3:
        assert ours == pytest.approx(entropy, abs=1e-2)


def test_entropy_of_a_wide_tanh_normal_is_the_mean_of_minus_the_log_density():
    # Beside -1 and 1 a grid of actions is too coarse; a grid of what goes into tanh is not.
    mean, deviation = torch.tensor([1.0]).double(), torch.tensor([5.0]).double()
    u = torch.linspace(-60, 60, 200_001, dtype=torch.double)[:, None]
    log_p = distributions.normal_log_probability(u, mean, deviation)
    weight = log_p.exp() * (u[1] - u[0])
    expected = -(weight * (log_p - distributions.tanh_log_slope(u).sum(-1))).sum().item()
    assert TanhNormal().entropy(mean.float(), deviation.float()).item() == pytest.approx(expected, abs=1e-2)


@pytest.mark.parametrize("name", FAMILIES)
def test_samples_have_the_moments_of_the_density(name):
    torch.manual_seed(0)
    family = FAMILIES[name]
    mean, deviation = torch.tensor([0.6]), torch.tensor([0.7])
    sample = family.sample(mean.expand(200_000, 1), deviation.expand(200_000, 1))
    if name != "bounded":
        assert sample.abs().max() <= 1
    if name == "tanh":
        u = torch.linspace(-5, 6, 20_001)[:, None]
        log_p = distributions.normal_log_probability(u, mean, deviation)
        action = torch.tanh(u)[:, 0]
    else:
        edge = 1.0 if name == "truncated" else 5.0
        u = torch.linspace(-edge, edge, 20_001)[:, None]
        log_p, action = family.log_probability(u, mean, deviation), u[:, 0]
    weight = log_p.softmax(0)
    center = (weight * action).sum()
    spread = (weight * (action - center).square()).sum().sqrt()
    assert sample.mean().item() == pytest.approx(center.item(), abs=5e-3)
    assert sample.std().item() == pytest.approx(spread.item(), abs=5e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_samples_pass_gradients_to_mean_and_deviation(name):
    family = FAMILIES[name]
    mean, deviation = torch.tensor([0.3, -0.8]).requires_grad_(), torch.tensor([0.5, 0.2]).requires_grad_()
    for seed in range(5):
        torch.manual_seed(seed)
        sample = family.sample(mean, deviation)
        gradients = torch.autograd.grad(sample.sum(), (mean, deviation))
        # The same random numbers at moved parameters, for a difference quotient.
        for parameter, gradient in zip((mean, deviation), gradients, strict=True):
            moved = [mean.detach().clone(), deviation.detach().clone()]
            moved[0 if parameter is mean else 1] += 1e-3
            torch.manual_seed(seed)
            slope = (family.sample(*moved) - sample.detach()) / 1e-3
            torch.testing.assert_close(gradient, slope, rtol=0.05, atol=0.02)


def test_parameters_of_the_families():
    zero, two = torch.zeros(1), torch.full((1,), 2.0)
    mean, deviation = TanhNormal().describe(two, zero)
    # 5 tanh(0.4) = 1.89974, and softplus(ln(e^5 - 1)) = 5.
    assert mean.item() == pytest.approx(1.89974, abs=1e-4)
    assert deviation.item() == pytest.approx(5.0001, abs=1e-4)
    mean, deviation = TruncatedNormal().describe(two, two)
    # tanh(2) = 0.96403, and 2 s(1) + 0.1 = 1.56212.
    assert mean.item() == pytest.approx(0.96403, abs=1e-4)
    assert deviation.item() == pytest.approx(1.56212, abs=1e-4)
    assert TruncatedNormal().describe(zero, zero)[1].item() == pytest.approx(1.1)
    assert TanhNormal().mode(torch.tensor([0.5])).item() == pytest.approx(math.tanh(0.5))
    assert TruncatedNormal().mode(torch.tensor([0.5])).item() == 0.5


def test_actions_at_the_bounds_have_finite_densities():
    edge = torch.tensor([[1.0], [-1.0]])
    for family in (TanhNormal(), TruncatedNormal()):
        assert torch.isfinite(family.log_probability(edge, torch.zeros(1), torch.ones(1))).all()
