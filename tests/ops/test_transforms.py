import math

import pytest
import torch

from reverie.ops.transforms import symexp, symlog


def test_symlog_by_hand():
    # ln(1 + e - 1) = 1, ln(1 + 1) = 0.693147, and the same with the sign turned.
    x = torch.tensor([0.0, 1.0, -1.0, math.e - 1, 1 - math.e])
    torch.testing.assert_close(symlog(x), torch.tensor([0.0, 0.693147, -0.693147, 1.0, -1.0]))


def test_symexp_by_hand():
    # e^1 - 1 = 1.718282, e^2 - 1 = 6.389056.
    x = torch.tensor([0.0, 1.0, -1.0, 2.0])
    torch.testing.assert_close(symexp(x), torch.tensor([0.0, 1.718282, -1.718282, 6.389056]))


def test_each_is_the_inverse_of_the_other():
    x = torch.linspace(-1000, 1000, 101, dtype=torch.float64)
    torch.testing.assert_close(symexp(symlog(x)), x)
    y = torch.linspace(-20, 20, 101, dtype=torch.float64)
    torch.testing.assert_close(symlog(symexp(y)), y)


def test_close_to_zero_both_are_the_identity():
    # log1p and expm1 keep small numbers; log(1 + 1e-9) in float32 would be exactly 0.
    x = torch.tensor([1e-9, -1e-9])
    torch.testing.assert_close(symlog(x), x, rtol=1e-6, atol=0)
    torch.testing.assert_close(symexp(x), x, rtol=1e-6, atol=0)


def test_large_values_stay_finite():
    assert symlog(torch.tensor(3e38)).item() == pytest.approx(math.log(3e38), rel=1e-6)
    assert symlog(torch.tensor(-3e38)).item() == pytest.approx(-math.log(3e38), rel=1e-6)


def test_gradient_of_symlog():
    # d symlog / dx = 1 / (1 + |x|): 1/2 at 1, 1/4 at -3.
    x = torch.tensor([1.0, -3.0], requires_grad=True)
    symlog(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([0.5, 0.25]))
