import pytest
import torch

from reverie.ops.balance import balanced_kl
from reverie.ops.distributions import categorical_kl


def logits(seed: int) -> torch.Tensor:
    return torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def test_both_halves_have_the_value_of_the_kl():
    # p = (0.5, 0.5), q = (0.25, 0.75): KL 0.143841 nats.
    p, q = torch.tensor([[[[0.5, 0.5]]]]).log(), torch.tensor([[[[0.25, 0.75]]]]).log()
    dynamics, representation = balanced_kl(p, q, categorical_kl, 0.0)
    assert dynamics.shape == representation.shape == (1, 1)
    assert dynamics.item() == pytest.approx(0.143841, abs=1e-6)
    assert representation.item() == pytest.approx(0.143841, abs=1e-6)


def test_the_halves_together_have_the_gradient_of_the_plain_kl():
    posterior, prior = logits(0), logits(1)
    p, q = posterior.log_softmax(-1), prior.log_softmax(-1)
    plain = torch.autograd.grad(categorical_kl(p, q).mean(), (posterior, prior), retain_graph=True)
    dynamics, representation = balanced_kl(p, q, categorical_kl, 0.0)
    ours = torch.autograd.grad((dynamics + representation).mean(), (posterior, prior))
    for gradient, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-6)


def test_each_half_trains_one_side():
    posterior, prior = logits(0), logits(1)
    p, q = posterior.log_softmax(-1), prior.log_softmax(-1)
    dynamics, representation = balanced_kl(p, q, categorical_kl, 0.0)
    none, some = torch.autograd.grad(dynamics.sum(), (posterior, prior), retain_graph=True, allow_unused=True)
    assert none is None
    assert some.abs().max() > 0
    some, none = torch.autograd.grad(representation.sum(), (posterior, prior), allow_unused=True)
    assert none is None
    assert some.abs().max() > 0


def test_free_nats_clip_every_step_on_its_own_and_leave_no_gradient_there():
    # Step 0 has almost no divergence, step 1 much: clipping a mean over steps would mix them.
    prior = torch.zeros(1, 2, 4, 5, requires_grad=True)
    posterior = torch.zeros(1, 2, 4, 5)
    posterior[0, 0, :, 0] = 0.1
    posterior[0, 1, :, 0] = 5.0
    posterior.requires_grad_()
    p, q = posterior.log_softmax(-1), prior.log_softmax(-1)
    kl = categorical_kl(p, q)
    assert kl[0, 0] < 1 < kl[0, 1]
    dynamics, representation = balanced_kl(p, q, categorical_kl, 1.0)
    for half, side in ((dynamics, prior), (representation, posterior)):
        assert half[0, 0].item() == 1.0
        assert half[0, 1].item() == pytest.approx(kl[0, 1].item())
        (gradient,) = torch.autograd.grad(half.sum(), side, retain_graph=True)
        assert (gradient[0, 0] == 0).all()
        assert gradient[0, 1].abs().max() > 0


def test_free_nats_bound_the_sum_over_variables():
    # Each of four variables has 0.143841 nats: 0.575 in all, below a bound of 0.6 and above one of 0.5.
    p = torch.tensor([0.5, 0.5]).log().expand(1, 1, 4, 2)
    q = torch.tensor([0.25, 0.75]).log().expand(1, 1, 4, 2)
    assert balanced_kl(p, q, categorical_kl, 0.6)[0].item() == pytest.approx(0.6)
    assert balanced_kl(p, q, categorical_kl, 0.5)[0].item() == pytest.approx(0.575364, abs=1e-5)
