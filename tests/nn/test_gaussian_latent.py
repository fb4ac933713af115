import math

import pytest
import torch

from reverie.nn.latents import GaussianLatent


def test_deviation_by_hand():
    # Output 0: softplus(0) + 0.1 = ln 2 + 0.1; 2 s(0) + 0.1 = 1.1.
    outputs = torch.zeros(1, 4)
    assert GaussianLatent(2).distribution(outputs)[0, 2:].tolist() == pytest.approx([math.log(2) + 0.1] * 2)
    assert GaussianLatent(2, "sigmoid").distribution(outputs)[0, 2:].tolist() == pytest.approx([1.1, 1.1])
    assert (GaussianLatent(2).width, GaussianLatent(2).outputs) == (2, 4)


def test_divergence_by_hand():
    # KL(N(1, 2) || N(0, 1)) = (4 + 1 - 1 - ln 4) / 2 = 1.306853, once a variable.
    p, q = torch.tensor([1.0, 1.0, 2.0, 2.0]), torch.tensor([0.0, 0.0, 1.0, 1.0])
    latent = GaussianLatent(2)
    assert latent.divergence(p, q).item() == pytest.approx(2 * 1.306853, abs=1e-5)
    assert latent.divergence(p, p).item() == 0
    assert torch.equal(latent.standard(p), q)


def test_divergence_and_entropy_agree_with_torch():
    torch.manual_seed(0)
    latent = GaussianLatent(5)
    p, q = latent.distribution(torch.randn(3, 10)), latent.distribution(torch.randn(3, 10))
    one, two = (torch.distributions.Normal(*x.chunk(2, -1)) for x in (p, q))
    torch.testing.assert_close(latent.divergence(p, q), torch.distributions.kl_divergence(one, two).sum(-1))
    torch.testing.assert_close(latent.entropy(p), one.entropy().sum(-1))


def test_samples_are_reparameterized():
    latent = GaussianLatent(1)
    outputs = torch.tensor([[0.7, 0.3]], requires_grad=True)
    torch.manual_seed(0)
    noise = torch.randn(1, 1)
    torch.manual_seed(0)
    sample = latent.sample(outputs)
    deviation = math.log1p(math.exp(0.3)) + 0.1
    assert sample.item() == pytest.approx(0.7 + deviation * noise.item(), abs=1e-5)
    sample.sum().backward()
    # d deviation / d output is the logistic function of 0.3.
    assert outputs.grad[0].tolist() == pytest.approx([1.0, noise.item() / (1 + math.exp(-0.3))], abs=1e-5)


def test_temperature_multiplies_the_variance():
    latent, outputs = GaussianLatent(1), torch.zeros(100_000, 2)
    torch.manual_seed(0)
    assert latent.sample(outputs, temperature=4.0).std().item() == pytest.approx(2 * (math.log(2) + 0.1), rel=0.02)


def test_the_mean_without_chance():
    outputs = torch.randn(3, 4)
    assert torch.equal(GaussianLatent(2).sample(outputs, deterministic=True), outputs[:, :2])
    assert torch.equal(GaussianLatent(2, mean_only=True).sample(outputs), outputs[:, :2])
    assert not torch.equal(GaussianLatent(2).sample(outputs), outputs[:, :2])
