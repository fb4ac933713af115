import pytest
import torch
import torch.nn.functional as functional

from reverie.errors import ConfigError
from reverie.nn.vae import ConvVAE, StridedConvolution


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return ConvVAE(32)


@pytest.mark.parametrize(("latent", "count"), [(32, 4_348_547), (64, 4_446_915)])
def test_parameter_counts_of_the_paper(latent, count):
    # Z = 32. Encoder 3 32 4^2 + 32 = 1568, 32832, 131200, 524544; two linear layers 1024 32 + 32 = 32800 each.
    # Decoder 32 1024 + 1024 = 33792, then 1024 128 5^2 + 128 = 3276928, 204864, 73760, 3459. Sum 4348547.
    assert sum(parameter.numel() for parameter in ConvVAE(latent).parameters()) == count


def test_sides_of_the_layers(vae):
    sides: dict[str, list[tuple[int, ...]]] = {"encoder": [], "decoder": []}
    hooks = []
    for part, shapes in sides.items():
        for layer in getattr(vae, part):
            hooks.append(layer.register_forward_hook(lambda *call, shapes=shapes: shapes.append(tuple(call[2].shape))))
    mean, log_variance = vae.encode(torch.rand(2, 64, 64, 3))
    image = vae.decode(vae.sample(mean, log_variance))
    for hook in hooks:
        hook.remove()
    assert sides["encoder"] == [(2, 31, 31, 32), (2, 14, 14, 64), (2, 6, 6, 128), (2, 2, 2, 256)]
    assert sides["decoder"] == [(2, 5, 5, 128), (2, 13, 13, 64), (2, 30, 30, 32), (2, 64, 64, 3)]
    assert mean.shape == log_variance.shape == (2, 32)
    assert image.shape == (2, 64, 64, 3)
    assert 0 <= image.min() <= image.max() <= 1


def test_glorot_kernels_and_zero_biases():
    # Limits sqrt(6 / (fan-in + fan-out)): 6 / (16 (3 + 32)) = 0.103510^2, 6 / (25 (1024 + 128)) = 0.014434^2,
    # 6 / (1024 + 32) = 0.075378^2.
    torch.manual_seed(0)
    vae = ConvVAE(32)
    for weight, limit in (
        (vae.encoder[0].weight, 0.103510),
        (vae.decoder[0].weight, 0.014434),
        (vae.mean.weight, 0.075378),
    ):
        assert 0.98 * limit < weight.abs().max() <= 1.00001 * limit
        assert weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.05)
    for name, parameter in vae.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()


@pytest.mark.parametrize("side", [1, 5])
def test_a_transposed_convolution_by_hand(side):
    # Each input pixel adds its multiple of the kernel at twice its own position; one pixel takes the short way.
    torch.manual_seed(0)
    layer = StridedConvolution(2, 3, 4, transposed=True)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(1, side, side, 2)
    expected = layer.bias.detach().expand(2 * (side - 1) + 4, 2 * (side - 1) + 4, 3).clone()
    kernel = layer.weight.detach().permute(2, 3, 0, 1)
    for row in range(side):
        for column in range(side):
            expected[2 * row : 2 * row + 4, 2 * column : 2 * column + 4] += x[0, row, column] @ kernel
    torch.testing.assert_close(layer(x)[0], expected, rtol=1e-4, atol=1e-5)


def test_the_decoder_has_no_activation_after_its_linear_layer(vae):
    torch.manual_seed(0)
    latents = torch.randn(3, 32)
    x = vae.expand(latents)[:, :, None, None]
    for position, layer in enumerate(vae.decoder):
        x = functional.conv_transpose2d(x, layer.weight, layer.bias, stride=2)
        x = x.sigmoid() if position == 3 else x.relu()
    torch.testing.assert_close(vae.decode(latents), x.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5)


def test_samples_have_the_mean_and_deviation_of_the_encoder(vae):
    # Mean 2 and log-variance 2 log 3: deviation 3. Standard errors with 200000 numbers are below 0.007.
    torch.manual_seed(0)
    sample = vae.sample(torch.full((2000, 100), 2.0), torch.full((2000, 100), 2.1972246))
    assert sample.mean().item() == pytest.approx(2, abs=0.04)
    assert sample.std().item() == pytest.approx(3, abs=0.03)


def with_encoder(mean, log_variance):
    """A VAE whose encoder gives these values, [N, 32], and whose decoder paints everything gray (0.5)."""
    vae = ConvVAE(32)
    torch.nn.init.zeros_(vae.decoder[-1].weight)
    vae.encode = lambda image: (mean, log_variance)
    return vae


def test_the_reconstruction_term_by_hand():
    # Gray against black: 0.5^2 * 64 * 64 * 3 = 3072. Gray against 0.7: 0.04 * 12288 = 491.52. Mean 1781.76.
    vae = with_encoder(torch.zeros(2, 32), torch.zeros(2, 32))
    terms = vae.loss(torch.stack([torch.zeros(64, 64, 3), torch.full((64, 64, 3), 0.7)]))
    torch.testing.assert_close(terms["reconstruction"], torch.tensor(1781.76), rtol=1e-5, atol=0)
    assert set(terms) == {"reconstruction", "kl"}


def test_the_floor_of_the_divergence_holds_for_the_total_of_an_image():
    # Image 0: one dimension with mean 6, KL = 18 nats in total, above the floor of 0.5 * 32 = 16; a floor a dimension
    # would make 18 + 31 * 0.5 = 33.5 of it. Image 1: KL = 0, counts 16. Image 2: every mean 2, KL = 32 * 2 = 64.
    # Batch mean (18 + 16 + 64) / 3 = 32.6667; a floor on the mean of the batch would give (18 + 64) / 3 = 27.3333.
    mean = torch.zeros(3, 32)
    mean[0, 5], mean[2] = 6.0, 2.0
    terms = with_encoder(mean, torch.zeros(3, 32)).loss(torch.zeros(3, 64, 64, 3))
    torch.testing.assert_close(terms["kl"], torch.tensor(98 / 3))


def test_no_gradient_below_the_floor():
    mean = torch.zeros(2, 32)
    mean[1] = 2
    mean.requires_grad_()
    terms = with_encoder(mean, torch.zeros(2, 32)).loss(torch.zeros(2, 64, 64, 3))
    (gradient,) = torch.autograd.grad(terms["kl"], mean)
    # d(mean^2 / 2) = mean = 2, halved by the mean over the batch.
    torch.testing.assert_close(gradient, torch.tensor([[0.0], [1.0]]).expand(2, 32))


@pytest.mark.parametrize("shape", [(1, 96, 96, 3), (1, 64, 64, 1), (1, 3, 64, 64), (64, 64, 3)])
def test_other_images_are_refused(vae, shape):
    with pytest.raises(ConfigError, match="64x64 pixels"):
        vae.encode(torch.rand(shape))


def test_whole_numbers_are_refused(vae):
    with pytest.raises(ConfigError, match="divide by 255"):
        vae.loss(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))


def test_bfloat16_images_give_float32_results(vae):
    image = torch.rand(2, 64, 64, 3)
    mean, log_variance = vae.encode(image.bfloat16())
    assert mean.dtype == log_variance.dtype == torch.float32
    torch.testing.assert_close(mean, vae.encode(image)[0], rtol=0.1, atol=0.05)


def test_training_lowers_the_loss():
    # Four flat colors, told apart by anything that looks at one pixel.
    torch.manual_seed(0)
    vae = ConvVAE(8)
    image = torch.rand(4, 1, 1, 3).expand(4, 64, 64, 3).contiguous()
    optimizer = torch.optim.Adam(vae.parameters(), 1e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        terms = vae.loss(image)
        sum(terms.values()).backward()
        optimizer.step()
        losses.append(terms["reconstruction"].item())
    assert losses[-1] < 0.7 * losses[0]
