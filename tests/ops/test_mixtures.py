import math

import pytest
import torch

from reverie.ops.mixtures import gaussian_kl_to_standard, mixture_log_probability, sample_mixture


def test_one_standard_normal_by_hand():
    # log N(1.5; 0, 1) = -1.5^2 / 2 - log(2 pi) / 2 = -1.125 - 0.918939 = -2.043939.
    zero = torch.zeros(1, 1)
    result = mixture_log_probability(torch.tensor([1.5]), zero, zero, zero)
    torch.testing.assert_close(result, torch.tensor([-2.043939]), rtol=0, atol=1e-6)


def test_two_components_by_hand():
    # Weights 1/4 and 3/4, means 0 and 1, deviations 1 and 2, at 0.5:
    #   N(0.5; 0, 1) = 0.398942 e^-0.125          = 0.352065
    #   N(0.5; 1, 2) = 0.398942 / 2 e^(-0.25 / 8) = 0.193334
    #   log(0.25 * 0.352065 + 0.75 * 0.193334) = log(0.233017) = -1.456645.
    log_weights = torch.tensor([[0.25, 0.75]]).log()
    means, log_deviations = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 2.0]]).log()
    result = mixture_log_probability(torch.tensor([0.5]), log_weights, means, log_deviations)
    torch.testing.assert_close(result, torch.tensor([-1.456645]), rtol=0, atol=2e-6)


def test_weights_are_normalized():
    torch.manual_seed(0)
    value, means, log_deviations = torch.randn(4, 3), torch.randn(4, 3, 5), torch.randn(4, 3, 5)
    log_weights, shift = torch.randn(4, 3, 5), 10 * torch.randn(4, 3, 1)
    torch.testing.assert_close(
        mixture_log_probability(value, log_weights + shift, means, log_deviations),
        mixture_log_probability(value, log_weights, means, log_deviations),
        rtol=1e-4,
        atol=1e-4,
    )


def test_dimensions_are_independent():
    # Changing the second dimension leaves the first alone.
    torch.manual_seed(0)
    value, log_weights, means, log_deviations = torch.randn(2), *torch.randn(3, 2, 5).unbind(0)
    before = mixture_log_probability(value, log_weights, means, log_deviations)
    means[1] += 1
    after = mixture_log_probability(value, log_weights, means, log_deviations)
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_the_density_integrates_to_one():
    torch.manual_seed(1)
    grid = torch.linspace(-30, 30, 60001, dtype=torch.float64)[:, None]
    log_weights, means, log_deviations = torch.randn(3, 1, 5, dtype=torch.float64).unbind(0)
    density = mixture_log_probability(grid, log_weights, means, log_deviations).exp()
    assert density.sum().item() * 0.001 == pytest.approx(1, abs=1e-6)


def test_far_values_do_not_underflow():
    # (1000 - 0)^2 / 2 = 500000; a plain density would be zero and its logarithm infinite.
    zero = torch.zeros(1, 2)
    result = mixture_log_probability(torch.tensor([1000.0]), zero, zero, zero)
    torch.testing.assert_close(result, torch.tensor([-500000.918939]))


def test_gradients():
    torch.manual_seed(0)
    inputs = [torch.randn(2, dtype=torch.float64, requires_grad=True)]
    inputs += [torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(mixture_log_probability, inputs)


def repeat(values, count=200_000):
    """[K] -> [count, 1, K]: many independent dimensions with the same mixture."""
    return torch.tensor(values).expand(count, 1, len(values))


@pytest.mark.parametrize("temperature", [0.25, 1.0, 2.0])
def test_the_temperature_multiplies_the_variance(temperature):
    # One component with mean 3 and deviation 2: the deviation of samples is 2 sqrt(t). The standard error of the mean
    # is 2 sqrt(t) / sqrt(200000) < 0.0064, that of the deviation 2 sqrt(t) / sqrt(400000) < 0.0045.
    torch.manual_seed(0)
    sample = sample_mixture(repeat([0.7]), repeat([3.0]), repeat([math.log(2)]), temperature)
    assert sample.shape == (200_000, 1)
    assert sample.mean().item() == pytest.approx(3, abs=0.03)
    assert sample.std().item() == pytest.approx(2 * math.sqrt(temperature), abs=0.025)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_temperature_divides_the_logarithms_of_weights(temperature):
    # Weights 0.2 and 0.8 become 0.2^(1/t) and 0.8^(1/t), normalized: 0.0588 and 0.9412 at t = 1/2, since
    # 0.04 / (0.04 + 0.64) = 0.0588; 1/3 and 2/3 at t = 2, since sqrt(0.8 / 0.2) = 2. Samples around +-100 with a tiny
    # deviation tell the component. The standard error of a share is below 0.0011.
    torch.manual_seed(0)
    log_weights = repeat([math.log(0.2), math.log(0.8)])
    sample = sample_mixture(log_weights, repeat([-100.0, 100.0]), repeat([-5.0, -5.0]), temperature)
    share = (sample < 0).float().mean().item()
    assert share == pytest.approx({0.5: 0.0588235, 1.0: 0.2, 2.0: 1 / 3}[temperature], abs=0.005)


def test_samples_follow_the_mixture():
    # Mean 0.3 * -1 + 0.7 * 2 = 1.1; variance 0.3 (0.5^2 + 1) + 0.7 (1.5^2 + 4) - 1.1^2 = 0.375 + 4.375 - 1.21 = 3.54.
    torch.manual_seed(0)
    log_weights, log_deviations = repeat([math.log(0.3), math.log(0.7)]), repeat([math.log(0.5), math.log(1.5)])
    sample = sample_mixture(log_weights, repeat([-1.0, 2.0]), log_deviations, 1.0)
    assert sample.mean().item() == pytest.approx(1.1, abs=0.02)
    assert sample.var().item() == pytest.approx(3.54, abs=0.05)


def test_most_likely_is_the_mean_of_the_heaviest_component():
    log_weights = torch.tensor([[0.1, 2.0, -1.0], [5.0, 4.0, 3.0]])
    means = torch.tensor([[10.0, 20.0, 30.0], [40.0, 50.0, 60.0]])
    sample = sample_mixture(log_weights, means, torch.zeros(2, 3), 1.0, most_likely=True)
    assert sample.tolist() == [20.0, 40.0]


def test_a_low_temperature_approaches_the_most_likely_value():
    torch.manual_seed(0)
    log_weights, means, log_deviations = torch.randn(3, 100, 5).unbind(0)
    log_weights = log_weights + 3 * (log_weights == log_weights.amax(-1, keepdim=True))
    cold = sample_mixture(log_weights, means, log_deviations, 1e-8)
    best = sample_mixture(log_weights, means, log_deviations, 1.0, most_likely=True)
    torch.testing.assert_close(cold, best, rtol=0, atol=5e-3)


def test_samples_are_repeatable():
    values = torch.randn(3, 4, 2, 5).unbind(0)
    torch.manual_seed(7)
    first = sample_mixture(*values, temperature=1.15)
    torch.manual_seed(7)
    assert torch.equal(sample_mixture(*values, temperature=1.15), first)


def test_kl_by_hand():
    # mean 1, variance 1:  1/2.   mean 0, variance e^2 = 7.389056:  -(1 + 2 - 7.389056) / 2 = 2.194528.   Sum 2.694528.
    kl = gaussian_kl_to_standard(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 2.0], [0.0, 0.0]]))
    torch.testing.assert_close(kl, torch.tensor([2.694528, 0.0]))


def test_kl_against_torch():
    torch.manual_seed(0)
    mean, log_variance = torch.randn(2, 5, 8)
    ours = torch.distributions.Normal(mean, torch.exp(0.5 * log_variance))
    standard = torch.distributions.Normal(torch.zeros(5, 8), torch.ones(5, 8))
    expected = torch.distributions.kl_divergence(ours, standard).sum(-1)
    torch.testing.assert_close(gaussian_kl_to_standard(mean, log_variance), expected)
