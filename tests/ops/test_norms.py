import pytest
import torch

from reverie.ops.norms import rms_norm_silu


def naive(x: torch.Tensor, scale: torch.Tensor, epsilon: float) -> torch.Tensor:
    return torch.nn.functional.silu(x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon) * scale)


def test_forward_by_hand():
    # x = (3, 4): mean square 12.5, root 3.535534, so (0.848528, 1.131371); with the scale (1, 2): (0.848528, 2.262742).
    # silu(v) = v / (1 + e^-v): 0.848528 / 1.428045 = 0.594189, 2.262742 / 1.104064 = 2.049465.
    y = rms_norm_silu(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0]), 0.0)
    torch.testing.assert_close(y, torch.tensor([0.594189, 2.049465]), rtol=1e-5, atol=1e-6)


def test_epsilon_is_inside_the_root():
    # x = (0.01): mean square 1e-4, plus 1e-4 gives 2e-4, root 0.01414214; 0.01 / 0.01414214 = 0.707107, silu 0.473645.
    y = rms_norm_silu(torch.tensor([0.01]), torch.ones(1), 1e-4)
    assert y.item() == pytest.approx(0.707107 / (1 + 2.718281828**-0.707107), abs=1e-5)


def test_zeros_stay_zero_with_finite_gradients():
    x, scale = torch.zeros(2, 4, requires_grad=True), torch.ones(4, requires_grad=True)
    y = rms_norm_silu(x, scale, 1e-4)
    y.sum().backward()
    assert (y == 0).all()
    # At zero silu has slope 1/2 and the norm the factor 1 / sqrt(1e-4) = 100.
    torch.testing.assert_close(x.grad, torch.full((2, 4), 50.0))
    assert (scale.grad == 0).all()


@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 3, 7), (2, 4, 4, 7)])
def test_backward_equals_autograd_of_the_naive_formula(shape):
    torch.manual_seed(0)
    x = torch.randn(shape, requires_grad=True)
    scale = (torch.randn(7) + 1).requires_grad_()
    weight = torch.randn(shape)
    ours = torch.autograd.grad((rms_norm_silu(x, scale, 1e-4) * weight).sum(), (x, scale))
    expected = torch.autograd.grad((naive(x.double(), scale.double(), 1e-4) * weight).sum(), (x, scale))
    for gradient, reference in zip(ours, expected, strict=True):
        assert gradient.shape == reference.shape
        # 1e-6 relative to the largest entry.
        assert (gradient - reference).abs().max() < 1e-6 * max(1.0, reference.abs().max().item())


def test_backward_of_a_view_with_other_strides():
    torch.manual_seed(0)
    base = torch.randn(3, 6, 4, requires_grad=True)
    scale = torch.ones(6, requires_grad=True)
    weight = torch.randn(3, 4, 6)
    ours = torch.autograd.grad((rms_norm_silu(base.transpose(1, 2), scale, 1e-4) * weight).sum(), (base, scale))
    expected = torch.autograd.grad((naive(base.transpose(1, 2), scale, 1e-4) * weight).sum(), (base, scale))
    for gradient, reference in zip(ours, expected, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-5, atol=1e-6)


def test_backward_twice_through_the_same_graph():
    """Saved tensors are not changed by the first pass."""
    torch.manual_seed(0)
    x, scale = torch.randn(5, 7, requires_grad=True), torch.rand(7, requires_grad=True)
    y = rms_norm_silu(x, scale, 1e-4).square().sum()
    first = torch.autograd.grad(y, (x, scale), retain_graph=True)
    second = torch.autograd.grad(y, (x, scale))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


def test_bfloat16_in_and_out_with_float32_inside():
    torch.manual_seed(0)
    wide, scale = torch.randn(4, 64), (torch.rand(64) + 0.5).requires_grad_()
    x = wide.bfloat16().requires_grad_()
    y = rms_norm_silu(x, scale, 1e-4)
    assert y.dtype == torch.bfloat16
    # Only the rounding of the result: 8 bits, so half a step is 2^-9 of the value.
    torch.testing.assert_close(y.float(), naive(x.float(), scale, 1e-4), rtol=2**-8, atol=1e-6)
    y.float().sum().backward()
    assert x.grad.dtype == torch.bfloat16
    assert scale.grad.dtype == torch.float32
    reference = x.detach().float().requires_grad_()
    naive(reference, scale.detach(), 1e-4).sum().backward()
    torch.testing.assert_close(x.grad.float(), reference.grad, rtol=2**-7, atol=2e-3)
