import pytest
import torch

from reverie.nn.latents import GaussianLatent
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


def test_the_gradient_identity_holds_for_normals_too():
    # The plain KL of PlaNet and Dreamer v1 is both halves with the weight one, for every group of parameters.
    latent = GaussianLatent(4)
    posterior, prior = (torch.randn(3, 5, 8, requires_grad=True) for _ in range(2))
    p, q = latent.distribution(posterior), latent.distribution(prior)
    plain = torch.autograd.grad(latent.divergence(p, q).mean(), (posterior, prior), retain_graph=True)
    halves = balanced_kl(p, q, latent.divergence, 0.0)
    for gradient, expected in zip(torch.autograd.grad(sum(halves).mean(), (posterior, prior)), plain, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("average", [False, True])
def test_free_nats_bound_every_step_or_the_mean(average):
    # Two steps with KL 1 and 4 and a bound of 2. Step by step: 2 and 4, and only the second has a gradient.
    # As a mean, 2.5 is above the bound, so both have one, each by its half of the mean.
    mean = torch.tensor([[[2.0**0.5], [8.0**0.5]]], requires_grad=True)
    posterior = torch.cat([mean, torch.ones_like(mean)], -1)
    prior = torch.tensor([0.0, 1.0]).expand(1, 2, 2)
    _, representation = balanced_kl(posterior, prior, GaussianLatent(1).divergence, 2.0, average)
    expected = [2.5, 2.5] if average else [2.0, 4.0]
    torch.testing.assert_close(representation[0], torch.tensor(expected))
    (gradient,) = torch.autograd.grad(representation.mean(), mean)
    slope = mean.detach() / 2  # the gradient of mean^2 / 2, averaged over two steps
    torch.testing.assert_close(gradient, slope * torch.tensor([[[float(average)], [1.0]]]))


def test_a_mean_below_the_bound_has_no_gradient_at_all():
    mean = torch.tensor([[[1.0], [2.0]]], requires_grad=True)  # KL 0.5 and 2: the mean 1.25 is below 3
    posterior = torch.cat([mean, torch.ones_like(mean)], -1)
    prior = torch.tensor([0.0, 1.0]).expand(1, 2, 2)
    dynamics, representation = balanced_kl(posterior, prior, GaussianLatent(1).divergence, 3.0, average=True)
    assert (dynamics == 3).all() and (representation == 3).all()
    (gradient,) = torch.autograd.grad(representation.sum(), mean)
    assert (gradient == 0).all()
