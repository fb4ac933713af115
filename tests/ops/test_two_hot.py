import math

import pytest
import torch

from reverie.ops.two_hot import symexp_bins, symlog_bins, two_hot_cross_entropy, two_hot_mean, two_hot_weights

BINS = torch.tensor([-4.0, -1.0, 0.0, 1.0, 4.0])


def dense_code(value: torch.Tensor, bins: torch.Tensor) -> torch.Tensor:
    """The two-hot code with one column a bin, written one value at a time: [...] -> [..., K]."""
    positions = bins.tolist()
    rows = []
    for x in value.flatten().tolist():
        row = [0.0] * len(positions)
        if x <= positions[0]:
            row[0] = 1.0
        elif x >= positions[-1]:
            row[-1] = 1.0
        else:
            k = max(i for i, b in enumerate(positions) if b <= x)
            row[k] = (positions[k + 1] - x) / (positions[k + 1] - positions[k])
            row[k + 1] = 1 - row[k]
        rows.append(row)
    return torch.tensor(rows, dtype=bins.dtype).view(*value.shape, len(positions))


def code_of(value: float, bins: torch.Tensor = BINS) -> list[float]:
    """The weights of `two_hot_weights`, added up into one column a bin."""
    below, above, low, high = two_hot_weights(torch.tensor([value]), bins)
    code = torch.zeros(len(bins))
    code[below] += low
    code[above] += high
    return code.tolist()


def naive_loss(logits: torch.Tensor, values: list[torch.Tensor], bins: torch.Tensor) -> torch.Tensor:
    """The soft cross entropy as the paper writes it."""
    log_p = logits.log_softmax(-1)
    return sum(-(dense_code(value, bins).to(log_p.dtype) * log_p).sum(-1) for value in values)


def test_symexp_bins_follow_the_paper():
    # symexp(-20) = 1 - e^20 = -485165194; the spacing in symlog space is 40 / 254 = 0.15748, so the first bin above
    # zero is e^0.15748 - 1 = 0.170556.
    bins = symexp_bins(255)
    assert bins.shape == (255,)
    assert bins.dtype == torch.float32
    assert bins[0].item() == pytest.approx(-485165194, rel=1e-6)
    assert bins[128].item() == pytest.approx(0.170556, rel=1e-4)
    assert bins[127].item() == 0.0
    assert torch.equal(bins, -bins.flip(0))
    assert (bins.diff() > 0).all()


def test_symlog_bins_follow_the_2023_version():
    # 255 bins from -20 to 20 in steps of 40 / 254 = 0.15748.
    bins = symlog_bins(255)
    assert bins.shape == (255,)
    assert (bins[0].item(), bins[254].item()) == (-20.0, 20.0)
    assert abs(bins[127].item()) < 1e-6
    torch.testing.assert_close(bins.diff(), torch.full((254,), 40 / 254), rtol=1e-4, atol=0)


def test_an_even_number_of_bins_is_refused():
    with pytest.raises(ValueError, match="odd number of bins.*got 254"):
        symexp_bins(254)


def test_weights_by_hand():
    # 2.5 lies between the bins 1 and 4: distance 1.5 to both, so half each.
    assert code_of(2.5) == pytest.approx([0, 0, 0, 0.5, 0.5])
    # 1.75 is 0.75 above bin 1 and 2.25 below bin 4: weights 2.25 / 3 and 0.75 / 3.
    assert code_of(1.75) == pytest.approx([0, 0, 0, 0.75, 0.25])
    # -3.7 is 0.3 above bin -4 and 2.7 below bin -1: weights 2.7 / 3 and 0.3 / 3.
    assert code_of(-3.7) == pytest.approx([0.9, 0.1, 0, 0, 0])


@pytest.mark.parametrize("k", range(5))
def test_a_value_on_a_bin_puts_all_weight_there(k):
    code = code_of(BINS[k].item())
    assert code[k] == 1.0
    assert sum(code) == 1.0


@pytest.mark.parametrize(("value", "k"), [(-4.1, 0), (-1e30, 0), (4.1, 4), (1e30, 4), (-math.inf, 0), (math.inf, 4)])
def test_a_value_beyond_the_ends_counts_as_the_end(value, k):
    code = code_of(value)
    assert code[k] == 1.0
    assert sum(code) == 1.0


def test_the_weighted_bins_give_the_value_back():
    bins = symexp_bins(255)
    value = torch.cat([torch.linspace(-50, 50, 201), torch.tensor([1e4, -1e6, 3e8, 1e-3, -1e-5])])
    below, above, low, high = two_hot_weights(value, bins)
    torch.testing.assert_close(low + high, torch.ones_like(value))
    assert (low >= 0).all()
    assert (high >= 0).all()
    torch.testing.assert_close(bins[below] * low + bins[above] * high, value, rtol=1e-4, atol=1e-5)


def test_weights_take_any_shape_and_strides():
    value = torch.randn(4, 3, 2).transpose(0, 2)
    below, above, low, high = two_hot_weights(value, BINS)
    assert below.shape == above.shape == low.shape == high.shape == (2, 3, 4)


def test_cross_entropy_by_hand():
    # Three bins -1, 0, 1 with logits ln 1, ln 2, ln 5: probabilities 1/8, 2/8, 5/8. The value 0.25 has the code
    # (0, 0.75, 0.25), so the loss is -(0.75 ln 0.25 + 0.25 ln 0.625) = 1.039721 + 0.117501 = 1.157222.
    logits = torch.tensor([[1.0, 2.0, 5.0]]).log()
    bins = torch.tensor([-1.0, 0.0, 1.0])
    loss = two_hot_cross_entropy(logits, [torch.tensor([0.25])], bins)
    assert loss.item() == pytest.approx(1.157222, abs=1e-6)
    # A constant added to all logits changes nothing.
    assert two_hot_cross_entropy(logits + 100, [torch.tensor([0.25])], bins).item() == pytest.approx(1.157222, abs=1e-4)


def test_gradient_by_hand():
    # softmax - code = (1/8, 2/8, 5/8) - (0, 0.75, 0.25) = (0.125, -0.5, 0.375).
    logits = torch.tensor([[1.0, 2.0, 5.0]]).log().requires_grad_()
    two_hot_cross_entropy(logits, [torch.tensor([0.25])], torch.tensor([-1.0, 0.0, 1.0])).sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[0.125, -0.5, 0.375]]))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("bins", [BINS, symexp_bins(255), symlog_bins(255)], ids=["five", "symexp", "symlog"])
def test_loss_and_gradient_equal_those_of_the_naive_formula(count, bins):
    torch.manual_seed(0)
    logits = torch.randn(3, 4, len(bins), requires_grad=True)
    values = [10 * torch.randn(3, 4) for _ in range(count)]
    values[0][0, 0], values[0][0, 1], values[0][0, 2] = 0.0, 1e9, bins[1]
    weight = torch.randn(3, 4)
    ours = two_hot_cross_entropy(logits, values, bins)
    naive = naive_loss(logits, values, bins)
    torch.testing.assert_close(ours, naive, rtol=1e-5, atol=1e-5)
    (ours_gradient,) = torch.autograd.grad((ours * weight).sum(), logits)
    (naive_gradient,) = torch.autograd.grad((naive * weight).sum(), logits)
    torch.testing.assert_close(ours_gradient, naive_gradient, rtol=1e-5, atol=1e-6)


def test_gradcheck_in_float64():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    values = [3 * torch.randn(2, 3, dtype=torch.float64) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda x: two_hot_cross_entropy(x, values, BINS.double()), logits)


def test_no_gradient_reaches_the_targets():
    value = torch.tensor([0.5], requires_grad=True)
    logits = torch.zeros(1, 5, requires_grad=True)
    two_hot_cross_entropy(logits, [value], BINS).sum().backward()
    assert value.grad is None
    assert logits.grad is not None


def test_the_loss_does_not_change_its_inputs():
    torch.manual_seed(0)
    logits, value = torch.randn(4, 5, requires_grad=True), torch.randn(4)
    before = logits.detach().clone(), value.clone()
    two_hot_cross_entropy(logits, [value], BINS).sum().backward()
    assert torch.equal(logits, before[0])
    assert torch.equal(value, before[1])


def test_mean_by_hand():
    # Probabilities (1, 2, 5, 1, 1) / 10 on -4, -1, 0, 1, 4: (-4 - 2 + 0 + 1 + 4) / 10 = -0.1.
    logits = torch.tensor([1.0, 2.0, 5.0, 1.0, 1.0]).log()
    assert two_hot_mean(logits, BINS).item() == pytest.approx(-0.1)


def test_mean_of_uniform_probabilities_is_exactly_zero():
    # The outer bins are 4.85e8; a plain float32 sum over them leaves an error.
    bins = symexp_bins(255)
    for level in (0.0, 3.7, -12.0):
        assert (two_hot_mean(torch.full((2, 3, 255), level), bins) == 0).all()


def test_mean_of_symmetric_probabilities_is_exactly_zero():
    torch.manual_seed(0)
    half = torch.randn(127)
    logits = torch.cat([half, torch.randn(1), half.flip(0)])
    assert two_hot_mean(logits, symexp_bins(255)).item() == 0.0


def test_mean_of_a_certain_bin_is_the_bin():
    bins = symexp_bins(255)
    for k in (0, 100, 127, 128, 254):
        logits = torch.full((255,), -1e4)
        logits[k] = 0.0
        assert two_hot_mean(logits, bins).item() == bins[k].item()


def test_mean_agrees_with_the_plain_sum_in_float64():
    torch.manual_seed(0)
    logits = torch.randn(7, 255, dtype=torch.float64) - symlog_bins(255).double().square()
    bins = symexp_bins(255).double()
    torch.testing.assert_close(two_hot_mean(logits, bins), (logits.softmax(-1) * bins).sum(-1))
