import math

import pytest
import torch

from reverie.ops import distributions


def test_mixing_by_hand():
    # softmax(ln 1, ln 3) = (0.25, 0.75); with 10 % of uniform: 0.9 * 0.25 + 0.05 = 0.275 and 0.725.
    logits = torch.tensor([1.0, 3.0]).log()
    torch.testing.assert_close(distributions.mixed_log_probabilities(logits, 0.1).exp(), torch.tensor([0.275, 0.725]))


def test_without_mixing_it_is_log_softmax():
    logits = torch.randn(3, 5)
    torch.testing.assert_close(distributions.mixed_log_probabilities(logits, 0.0), logits.log_softmax(-1))


def test_mixing_bounds_the_probabilities():
    # 1 % over 5 classes: never below 0.002, never above 0.99 + 0.002.
    log_p = distributions.mixed_log_probabilities(torch.tensor([1000.0, 0.0, -1000.0, 0.0, 0.0]), 0.01)
    torch.testing.assert_close(log_p.exp(), torch.tensor([0.992, 0.002, 0.002, 0.002, 0.002]))
    assert log_p.exp().sum().item() == pytest.approx(1)


def test_mixing_computes_in_float32():
    assert distributions.mixed_log_probabilities(torch.randn(2, 3, dtype=torch.bfloat16), 0.01).dtype == torch.float32


def test_gradient_of_mixing_is_finite_for_huge_logits():
    logits = torch.tensor([1000.0, -1000.0], requires_grad=True)
    distributions.mixed_log_probabilities(logits, 0.01).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_sample_frequencies():
    torch.manual_seed(0)
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4])
    count = 40_000
    index = distributions.sample_index(probabilities.expand(count, 4))
    frequency = torch.bincount(index, minlength=4) / count
    # Five standard deviations of a frequency: 5 sqrt(0.4 * 0.6 / 40000) = 0.012.
    torch.testing.assert_close(frequency, probabilities, rtol=0, atol=0.012)


def test_impossible_classes_are_never_drawn():
    torch.manual_seed(0)
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0])
    index = distributions.sample_index(probabilities.expand(100_000, 5))
    assert set(index.tolist()) == {1, 3}


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_impossible_classes_are_not_drawn_at_the_ends_of_the_uniform_numbers(uniform, monkeypatch):
    # torch.rand gives 0 exactly and at most 1 - 2^-24 in float32.
    monkeypatch.setattr(torch, "rand_like", lambda x: torch.full_like(x, uniform))
    probabilities = torch.tensor([0.0, 0.5, 0.5, 0.0])
    assert distributions.sample_index(probabilities).item() == (1 if uniform == 0 else 2)


def test_samples_of_many_variables_are_independent():
    torch.manual_seed(0)
    index = distributions.sample_index(torch.full((20_000, 2, 2), 0.5))
    assert index.shape == (20_000, 2)
    both = (index[:, 0] == index[:, 1]).float().mean().item()
    # Five standard deviations: 5 sqrt(0.25 / 20000) = 0.018.
    assert both == pytest.approx(0.5, abs=0.018)


def test_sampling_repeats_with_the_seed():
    probabilities = torch.rand(50, 4).softmax(-1)
    torch.manual_seed(3)
    first = distributions.sample_index(probabilities)
    torch.manual_seed(3)
    assert torch.equal(distributions.sample_index(probabilities), first)


def test_one_hot():
    index = torch.tensor([[0, 2], [1, 1]])
    expected = torch.tensor([[[1.0, 0, 0], [0, 0, 1]], [[0, 1, 0], [0, 1, 0]]])
    assert torch.equal(distributions.one_hot(index, 3), expected)
    assert distributions.one_hot(index, 3, torch.bfloat16).dtype == torch.bfloat16
    assert torch.equal(distributions.one_hot(index.to(torch.uint8), 3), expected)


def test_straight_through_is_one_hot_forward_and_probabilities_backward():
    torch.manual_seed(0)
    logits = torch.randn(4, 3, 5, requires_grad=True)
    weight = torch.randn(4, 3, 5)
    index = torch.randint(0, 5, (4, 3))
    sample = distributions.straight_through(index, logits.softmax(-1))
    torch.testing.assert_close(sample, torch.nn.functional.one_hot(index, 5).float())
    (gradient,) = torch.autograd.grad((sample * weight).sum(), logits)
    (expected,) = torch.autograd.grad((logits.softmax(-1) * weight).sum(), logits)
    torch.testing.assert_close(gradient, expected)


def test_kl_by_hand():
    # p = (0.5, 0.5), q = (0.25, 0.75): 0.5 ln 2 + 0.5 ln(2/3) = 0.346574 - 0.202733 = 0.143841.
    # A second variable with p = q = (0.9, 0.1) adds nothing; the sum runs over variables.
    log_p = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()
    log_q = torch.tensor([[0.25, 0.75], [0.9, 0.1]]).log()
    assert distributions.categorical_kl(log_p, log_q).item() == pytest.approx(0.143841, abs=1e-6)
    # The other direction: 0.25 ln 0.5 + 0.75 ln 1.5 = -0.173287 + 0.304099 = 0.130812.
    assert distributions.categorical_kl(log_q, log_p).item() == pytest.approx(0.130812, abs=1e-6)
    both = torch.stack([log_p[0], log_p[0]]), torch.stack([log_q[0], log_q[0]])
    assert distributions.categorical_kl(*both).item() == pytest.approx(2 * 0.143841, abs=2e-6)


def test_kl_against_torch():
    torch.manual_seed(0)
    p, q = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=p), torch.distributions.Categorical(logits=q)
    ).sum(-1)
    torch.testing.assert_close(distributions.categorical_kl(p.log_softmax(-1), q.log_softmax(-1)), expected)


def test_entropy_by_hand():
    # Uniform over 4: ln 4 = 1.386294; (0.5, 0.5, 0, 0) with 0 written as e^-100: ln 2 = 0.693147. Together 2.079442.
    log_p = torch.tensor([[0.25] * 4, [0.5, 0.5, math.exp(-80), math.exp(-80)]]).log()
    assert distributions.categorical_entropy(log_p).item() == pytest.approx(2.079442, abs=1e-5)


def test_log_probability_of_one_hots_by_hand():
    # ln 0.2 + ln 0.5 = ln 0.1 = -2.302585.
    log_p = torch.tensor([[0.2, 0.8], [0.5, 0.5]]).log()
    one_hots = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert distributions.categorical_log_probability(log_p, one_hots).item() == pytest.approx(-2.302585, abs=1e-6)


def test_log_probability_ignores_impossible_classes_that_were_not_drawn():
    # 0 * -inf would be NaN.
    log_p = torch.tensor([[0.0, -math.inf]], requires_grad=True)
    value = distributions.categorical_log_probability(log_p, torch.tensor([[1.0, 0.0]]))
    value.backward()
    assert value.item() == 0.0
    assert torch.isfinite(log_p.grad).all()


def test_normal_by_hand():
    # At the mean of a unit normal: -0.5 ln(2 pi) = -0.918939; one deviation away 0.5 less. Two dimensions are summed.
    zero, one = torch.zeros(2), torch.ones(2)
    assert distributions.normal_log_probability(zero, zero, one).item() == pytest.approx(-1.837877, abs=1e-6)
    assert distributions.normal_log_probability(one, zero, one).item() == pytest.approx(-2.837877, abs=1e-6)
    # Entropy of a unit normal: 0.5 ln(2 pi e) = 1.418939.
    assert distributions.normal_entropy(one).item() == pytest.approx(2.837877, abs=1e-6)
    assert distributions.normal_entropy(torch.tensor([math.e])).item() == pytest.approx(2.418939, abs=1e-6)


def test_normal_against_torch():
    torch.manual_seed(0)
    value, mean, deviation = torch.randn(5, 3), torch.randn(5, 3), torch.rand(5, 3) + 0.1
    normal = torch.distributions.Normal(mean, deviation)
    log_probability = distributions.normal_log_probability(value, mean, deviation)
    torch.testing.assert_close(log_probability, normal.log_prob(value).sum(-1))
    torch.testing.assert_close(distributions.normal_entropy(deviation), normal.entropy().sum(-1))
