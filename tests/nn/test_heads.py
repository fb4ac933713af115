import math
from dataclasses import replace

import pytest
import torch

from reverie.nn.heads import ActionDistribution, ContinueHead, NormalHead, PolicyHead, TwoHotHead
from reverie.nn.layers import Initializer, NetworkStyle, plain_style
from reverie.nn.policies import BoundedNormal, TanhNormal, TruncatedNormal
from reverie.ops.transforms import symexp
from reverie.spaces import ActionPart

NORMAL = Initializer("truncated_normal", "in")
RMS = NetworkStyle(norm="rms", activation="silu", kernel=NORMAL, output_kernel=NORMAL)
RANGE = (0.1, 1.0)
STEER, BUTTONS = ActionPart("steer", "continuous", 2), ActionPart("buttons", "discrete", 3, (3, 3, 2))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def distribution(parameters, *parts, mix=0.01):
    return ActionDistribution(parameters, parts, uniform_mix=mix, continuous=BoundedNormal(*RANGE))


# ---------------------------------------------------------------- policy


def test_continuous_mean_and_deviation_by_hand():
    # mean tanh(0.5) = 0.462117; deviation 0.9 sigmoid(0 + 2) + 0.1 = 0.9 * 0.880797 + 0.1 = 0.892717.
    part = ActionPart("a", "continuous", 1)
    policy = distribution(torch.tensor([[0.5, 0.0]]), part)
    assert policy.sample(deterministic=True).item() == pytest.approx(0.462117, abs=1e-6)
    # Entropy 0.5 ln(2 pi e) + ln 0.892717 = 1.418939 - 0.113486.
    assert policy.entropy().item() == pytest.approx(1.305453, abs=1e-5)
    # Density at the mean: -0.918939 + 0.113486.
    assert policy.log_probability(torch.tensor([[math.tanh(0.5)]])).item() == pytest.approx(-0.805453, abs=1e-5)


def test_deviation_stays_between_a_tenth_and_one():
    part = ActionPart("a", "continuous", 1)
    for raw, deviation in ((-1e4, 0.1), (1e4, 1.0)):
        entropy = distribution(torch.tensor([[0.0, raw]]), part).entropy().item()
        assert entropy == pytest.approx(1.418939 + math.log(deviation), abs=1e-5)
    raw = torch.linspace(-20, 20, 101)
    entropy = distribution(torch.stack([torch.zeros(101), raw], -1), part).entropy()
    deviation = (entropy - 1.4189385).exp()
    assert (deviation >= 0.1 - 1e-6).all()
    assert (deviation <= 1.0 + 1e-6).all()
    assert (deviation.diff() >= -1e-7).all()


def test_continuous_samples_are_neither_squashed_nor_clipped():
    part = ActionPart("a", "continuous", 1)
    policy = distribution(torch.tensor([[100.0, 100.0]]).expand(20_000, 2), part)  # mean 1, deviation 1
    sample = policy.sample()
    assert sample.max() > 3
    # Five standard deviations of the mean and of the deviation: 5 / sqrt(20000) = 0.035.
    assert sample.mean().item() == pytest.approx(1, abs=0.035)
    assert sample.std().item() == pytest.approx(1, abs=0.035)


def test_continuous_samples_are_reparameterized():
    parameters = torch.zeros(50, 2, requires_grad=True)
    sample = distribution(parameters, ActionPart("a", "continuous", 1)).sample()
    (gradient,) = torch.autograd.grad(sample.sum(), parameters)
    # d sample / d mean parameter = 1 - tanh(0)^2 = 1; d sample / d raw = noise * 0.9 sigmoid'(2) = noise * 0.094495.
    torch.testing.assert_close(gradient[:, 0], torch.ones(50))
    noise = sample.detach()[:, 0] / 0.892717
    torch.testing.assert_close(gradient[:, 1], noise * 0.094495, rtol=1e-4, atol=1e-5)


def test_least_probability_of_a_discrete_action():
    # 1 % over 5 actions: 0.002, and 0.992 for the favorite, however large the logits.
    part = ActionPart("a", "discrete", 1, (5,))
    parameters = torch.tensor([[1e4, 0, 0, 0, -1e4]])
    each = [distribution(parameters, part).log_probability(torch.eye(5)[k : k + 1]).exp().item() for k in range(5)]
    assert each == pytest.approx([0.992, 0.002, 0.002, 0.002, 0.002], abs=1e-6)
    # Without the mix, as in the official code of 2025, the others are impossible.
    plain = distribution(parameters, part, mix=0.0)
    assert plain.log_probability(torch.eye(5)[1:2]).exp().item() == 0.0


def test_discrete_samples_are_one_hot_with_straight_through_gradient():
    parameters = torch.randn(200, 8, requires_grad=True)
    sample = distribution(parameters, BUTTONS).sample()
    assert sample.shape == (200, 8)
    for piece in sample.split([3, 3, 2], -1):
        torch.testing.assert_close(piece.detach().max(-1).values, torch.ones(200))
        torch.testing.assert_close(piece.detach().sum(-1), torch.ones(200))
    (gradient,) = torch.autograd.grad(sample[:, 0].sum(), parameters)
    probability = 0.99 * parameters[:, :3].softmax(-1) + 0.01 / 3
    (expected,) = torch.autograd.grad(probability[:, 0].sum(), parameters)
    torch.testing.assert_close(gradient, expected)


def test_discrete_sample_frequencies():
    parameters = torch.tensor([[0.0, math.log(3)]]).expand(40_000, 2)
    frequency = distribution(parameters, ActionPart("a", "discrete", 1, (2,)), mix=0.0).sample().mean(0)
    # Five standard deviations: 5 sqrt(0.25 * 0.75 / 40000) = 0.011.
    torch.testing.assert_close(frequency, torch.tensor([0.25, 0.75]), rtol=0, atol=0.011)


def test_deterministic_discrete_action_is_the_most_likely():
    parameters = torch.tensor([[0.0, 2.0, 1.0, 5.0, 0.0, 0.0, -1.0, -2.0]])
    action = distribution(parameters, BUTTONS).sample(deterministic=True)
    assert action.tolist() == [[0, 1, 0, 1, 0, 0, 1, 0]]


def test_log_probability_and_entropy_sum_over_the_parts():
    parameters, action = torch.randn(4, 7, 12), torch.zeros(4, 7, 10)
    continuous, discrete = parameters[..., :4], parameters[..., 4:]
    action[..., :2] = torch.randn(4, 7, 2)
    action[..., [3, 5, 9]] = 1  # classes 1, 0 and 1
    together = distribution(parameters, STEER, BUTTONS)
    alone = distribution(continuous, STEER), distribution(discrete, BUTTONS)
    expected = alone[0].log_probability(action[..., :2]) + alone[1].log_probability(action[..., 2:])
    assert together.log_probability(action).shape == (4, 7)
    torch.testing.assert_close(together.log_probability(action), expected)
    torch.testing.assert_close(together.entropy(), alone[0].entropy() + alone[1].entropy())
    # And within the discrete part over its variables, whether or not they have equally many classes.
    log_p = [(0.99 * x.softmax(-1) + 0.01 / x.shape[-1]).log() for x in discrete.split([3, 3, 2], -1)]
    by_hand = log_p[0][..., 1] + log_p[1][..., 0] + log_p[2][..., 1]
    torch.testing.assert_close(alone[1].log_probability(action[..., 2:]), by_hand)
    entropy = sum(-(p.exp() * p).sum(-1) for p in log_p)
    torch.testing.assert_close(alone[1].entropy(), entropy)


def test_parts_in_any_order_with_their_own_parameters():
    parts = (ActionPart("a", "discrete", 1, (2,)), STEER, ActionPart("z", "discrete", 1, (3,)))
    parameters = torch.zeros(1, 9)
    parameters[0, 1] = 50.0  # part a: class 1
    parameters[0, 2:4] = torch.tensor([50.0, -50.0])  # means of steer
    parameters[0, 6] = 50.0  # part z: class 0
    action = distribution(parameters, *parts).sample(deterministic=True)
    torch.testing.assert_close(action, torch.tensor([[0.0, 1, 1, -1, 1, 0, 0]]))


def test_policy_head_shapes_and_near_uniform_beginning():
    parts = (STEER, BUTTONS)
    head = PolicyHead(6, parts, units=64, layers=3, style=RMS.with_output(0.01))
    parameters = head(torch.randn(5, 7, 6))
    assert parameters.shape == (5, 7, 12)
    assert parameters.dtype == torch.float32
    # Activations of size one times weights of 0.01: the outputs are about 0.01.
    assert parameters.abs().max() < 0.1
    policy = head.distribution(parameters)
    assert policy.sample().shape == (5, 7, 10)
    # Nearly the greatest entropy: 2 ln 3 + ln 2 for the buttons and 1.418939 + ln 0.892717 for each of two numbers.
    entropy = 2 * math.log(3) + math.log(2) + 2 * 1.305453
    torch.testing.assert_close(policy.entropy(), torch.full((5, 7), entropy), rtol=0, atol=0.05)


def test_policy_head_with_dots_and_slashes_in_names():
    parts = (ActionPart("arm.left", "continuous", 1), ActionPart("arm/right", "discrete", 1, (2,)))
    head = PolicyHead(6, parts, units=8, layers=1, style=RMS)
    parameters = head(torch.randn(3, 6))
    assert parameters.shape == (3, 4)
    assert head.distribution(parameters).sample().shape == (3, 3)


def test_policy_head_keeps_parts_apart_whose_names_differ_in_a_dot():
    parts = (ActionPart("arm.left", "continuous", 1), ActionPart("arm_left", "continuous", 1))
    parameters = PolicyHead(6, parts, units=8, layers=1, style=RMS)(torch.randn(3, 6))
    assert parameters.shape == (3, 4)


# ---------------------------------------------------------------- continuation


def test_continue_loss_by_hand():
    # Target 0.9, logit 2: 0.9 ln(1 + e^-2) + 0.1 ln(1 + e^2) = 0.9 * 0.126928 + 0.1 * 2.126928 = 0.326928.
    # Target 0, logit 0: ln 2 = 0.693147.
    head = ContinueHead(6, units=8, layers=1, style=RMS)
    loss = head.loss(torch.tensor([2.0, 0.0]), torch.tensor([0.9, 0.0]))
    torch.testing.assert_close(loss, torch.tensor([0.326928, 0.693147]), rtol=0, atol=1e-5)
    assert head(torch.randn(2, 3, 6)).shape == (2, 3)


def test_continue_loss_is_least_where_the_probability_is_the_target():
    head = ContinueHead(6, units=8, layers=1, style=RMS)
    target = torch.tensor(1 - 1 / 333)
    logit = torch.logit(target).requires_grad_()
    (gradient,) = torch.autograd.grad(head.loss(logit, target), logit)
    assert gradient.abs() < 1e-6


# ---------------------------------------------------------------- reward and value


@pytest.mark.parametrize("spacing", ["symexp", "symlog"])
def test_new_two_hot_heads_predict_zero(spacing):
    head = TwoHotHead(6, units=8, layers=1, spacing=spacing, style=RMS.with_output(0))
    logits = head(torch.randn(2, 3, 6))
    assert logits.shape == (2, 3, 255)
    # Exactly zero with symexp bins, whose ends are 4.85e8; symlog bins reach to 20 only and may round.
    assert head.mean(logits).abs().max() <= (0 if spacing == "symexp" else 1e-6)
    # Uniform over 255 bins: ln 255 = 5.541264 whatever the target, and twice that for two targets.
    loss = head.loss(logits, torch.randn(2, 3))
    torch.testing.assert_close(loss, torch.full((2, 3), 5.541264))
    loss = head.loss(logits, torch.randn(2, 3), torch.randn(2, 3))
    torch.testing.assert_close(loss, torch.full((2, 3), 11.082527))


def test_symexp_mean_is_in_raw_space_and_symlog_mean_is_transformed():
    # Half of the probability on each of two bins. symexp: the mean of their raw positions; symlog: symexp of the mean
    # of their positions in symlog space.
    raw = TwoHotHead(6, units=8, layers=1, spacing="symexp", style=RMS)
    logarithmic = TwoHotHead(6, units=8, layers=1, spacing="symlog", style=replace(RMS, norm="layer"))
    logits = torch.full((255,), -1e4)
    logits[[147, 167]] = 0.0  # 20 and 40 bins above zero: 3.149606 and 6.299213 in symlog space
    low, high = math.expm1(3.149606), math.expm1(6.299213)
    assert raw.mean(logits).item() == pytest.approx((low + high) / 2, rel=1e-4)
    assert logarithmic.mean(logits).item() == pytest.approx(math.expm1((3.149606 + 6.299213) / 2), rel=1e-4)


@pytest.mark.parametrize("spacing", ["symexp", "symlog"])
def test_the_mean_of_the_code_of_a_target_is_the_target(spacing):
    """What minimizes the loss predicts the target: the gradient there vanishes."""
    head = TwoHotHead(6, units=8, layers=1, spacing=spacing, style=RMS)
    for target in (-1234.5, -0.3, 0.0, 0.01, 1.0, 77.0, 1e6):
        logits = torch.zeros(255, requires_grad=True)
        (gradient,) = torch.autograd.grad(head.loss(logits, torch.tensor(target)), logits)
        code = 1 / 255 - gradient  # the gradient is softmax - code
        mean = head.mean((code + 1e-30).clamp(min=1e-30).log())
        assert mean.item() == pytest.approx(target, rel=2e-3, abs=1e-4)


def test_symlog_targets_are_transformed():
    # The 2023 head codes symlog(target): e^3.149606 - 1 lies on bin 147.
    head = TwoHotHead(6, units=8, layers=1, spacing="symlog", style=RMS)
    logits = torch.zeros(255)
    logits[147] = 100.0
    assert head.loss(logits, symexp(torch.tensor(40 / 254 * 20))).item() == pytest.approx(0, abs=1e-2)


# ---------------------------------------------------------------- older agents


def test_a_normal_head_by_its_definition():
    head = NormalHead(5, units=8, layers=2, style=plain_style("elu"))
    feature = torch.randn(3, 4, 5)
    hidden = feature
    for linear in head.network.linears:
        hidden = torch.nn.functional.elu(hidden @ linear.weight.T + linear.bias)
    output = head(feature)
    torch.testing.assert_close(output, (hidden @ head.output.weight.T + head.output.bias)[..., 0])
    assert head.mean(output) is output
    one, two = torch.randn(3, 4), torch.randn(3, 4)
    torch.testing.assert_close(head.loss(output, one), 0.5 * (output - one).square())
    torch.testing.assert_close(head.loss(output, one, two), head.loss(output, one) + head.loss(output, two))
    # Minus the log-density of N(output, 1), but for ln sqrt(2 pi).
    density = -torch.distributions.Normal(output, 1.0).log_prob(one)
    torch.testing.assert_close(head.loss(output, one), density - 0.5 * math.log(2 * math.pi))


@pytest.mark.parametrize("family", [TanhNormal(), TruncatedNormal()])
def test_policies_of_older_agents_stay_within_the_bounds(family):
    head = PolicyHead(
        4, (STEER, BUTTONS), units=8, layers=1, style=plain_style("elu"), uniform_mix=0.0, continuous=family
    )
    policy = head.distribution(head(torch.randn(500, 4) * 3))
    for deterministic in (False, True):
        action = policy.sample(deterministic)
        assert action.shape == (500, 2 + 8)
        assert action[:, :2].abs().max() <= 1
        assert (action[:, 2:5].sum(-1) - 1).abs().max() < 1e-5
    assert torch.isfinite(policy.log_probability(policy.sample())).all()
    assert torch.isfinite(policy.entropy()).all() and policy.entropy().shape == (500,)
