import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as functional

from reverie.errors import ConfigError
from reverie.nn.layers import MLP, BlockLinear, Convolution, Initializer, Linear, NetworkStyle, NormActivation

NORMAL, AVERAGE = Initializer("truncated_normal", "in"), Initializer("truncated_normal", "average")
RMS = NetworkStyle(norm="rms", activation="silu", kernel=NORMAL, output_kernel=NORMAL)
LAYER = replace(RMS, norm="layer")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_truncated_normal_with_fan_in():
    # Standard deviation 1 / sqrt(1024) = 0.03125, cut at 2 x 1.1368 of it; 0.5 M draws give it to 0.3 %.
    layer = Linear(1024, 512, NORMAL)
    assert layer.weight.std().item() == pytest.approx(0.03125, rel=0.005)
    assert layer.weight.mean().item() == pytest.approx(0, abs=2e-4)
    assert layer.weight.abs().max().item() <= 2 * 1.1368 * 0.03125 + 1e-7
    assert layer.weight.abs().max().item() > 1.99 * 1.1368 * 0.03125
    assert (layer.bias == 0).all()


def test_truncated_normal_with_average_fan():
    # (1024 + 256) / 2 = 640: 1 / sqrt(640) = 0.0395285.
    layer = Linear(1024, 256, Initializer("truncated_normal", "average"))
    assert layer.weight.std().item() == pytest.approx(0.0395285, rel=0.005)


def test_uniform_with_average_fan_is_glorot():
    # Limit sqrt(3 / 640) = 0.0684653, standard deviation limit / sqrt(3).
    layer = Linear(1024, 256, Initializer("uniform", "average"))
    assert layer.weight.abs().max().item() <= 0.0684654
    assert layer.weight.abs().max().item() > 0.0684
    assert layer.weight.std().item() == pytest.approx(0.0395285, rel=0.005)


def test_scale_multiplies_the_deviation_and_zero_gives_zeros():
    assert Linear(1024, 512, NORMAL.scaled(0.01)).weight.std().item() == pytest.approx(0.0003125, rel=0.005)
    for initializer in (NORMAL.scaled(0), Initializer("uniform", "average").scaled(0)):
        assert (Linear(64, 32, initializer).weight == 0).all()


def test_block_kernels_use_the_full_width_as_fan_in():
    # Kernel (8, 256, 64): 1 / sqrt(8 x 256) = 0.0220971, not 1 / sqrt(256) = 0.0625.
    layer = BlockLinear(2048, 512, blocks=8, initializer=NORMAL)
    assert layer.weight.shape == (8, 256, 64)
    assert layer.weight.std().item() == pytest.approx(0.0220971, rel=0.01)
    assert layer.bias.shape == (512,)


def test_convolution_kernels_count_their_area():
    # 5 x 5 x 32 = 800 inputs: 1 / sqrt(800) = 0.0353553.
    layer = Convolution(32, 64, kernel=5, initializer=NORMAL)
    assert layer.weight.std().item() == pytest.approx(0.0353553, rel=0.02)
    # 4 x 4 x (32 + 64) / 2 = 768: 1 / sqrt(768) = 0.0360844; the same for a transposed one.
    for transposed in (False, True):
        layer = Convolution(32, 64, kernel=4, initializer=AVERAGE, stride=2, transposed=transposed, bias=False)
        assert layer.weight.std().item() == pytest.approx(0.0360844, rel=0.02)


def test_block_linear_equals_a_block_diagonal_matrix():
    layer = BlockLinear(12, 8, blocks=4, initializer=NORMAL)
    torch.nn.init.normal_(layer.bias)
    dense = torch.block_diag(*layer.weight)
    assert dense.shape == (12, 8)
    for shape in ((12,), (5, 12), (2, 3, 12)):
        x = torch.randn(shape)
        torch.testing.assert_close(layer(x), x @ dense + layer.bias)


def test_block_linear_keeps_blocks_apart():
    layer = BlockLinear(12, 8, blocks=4, initializer=NORMAL)
    x = torch.randn(1, 12, requires_grad=True)
    # Block 1 of the output (entries 2 and 3) depends on block 1 of the input (entries 3 to 5) only.
    (gradient,) = torch.autograd.grad(layer(x)[0, 2:4].sum(), x)
    assert (gradient[0, 3:6] != 0).all()
    assert (gradient[0, :3] == 0).all()
    assert (gradient[0, 6:] == 0).all()


@pytest.mark.parametrize(("inputs", "outputs", "what"), [(10, 8, "10 inputs"), (8, 10, "10 outputs")])
def test_block_linear_refuses_sizes_that_do_not_divide(inputs, outputs, what):
    with pytest.raises(ConfigError, match=f"{what} and 4 blocks.*multiples"):
        BlockLinear(inputs, outputs, blocks=4, initializer=NORMAL)


def test_rms_norm_activation():
    layer, x = NormActivation(6, "rms"), torch.randn(4, 6)
    torch.nn.init.normal_(layer.scale)
    assert layer.shift is None
    normalized = x / torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-4)
    torch.testing.assert_close(layer(x), functional.silu(normalized * layer.scale))


def test_layer_norm_activation():
    layer, x = NormActivation(6, "layer"), torch.randn(4, 6)
    torch.nn.init.normal_(layer.scale)
    torch.nn.init.normal_(layer.shift)
    # Biased variance and eps 1e-3 inside the root.
    centered = x - x.mean(-1, keepdim=True)
    normalized = centered / torch.sqrt(centered.square().mean(-1, keepdim=True) + 1e-3)
    torch.testing.assert_close(layer(x), functional.silu(normalized * layer.scale + layer.shift))


def test_norms_begin_as_identity():
    for norm in ("rms", "layer"):
        layer = NormActivation(6, norm)
        assert (layer.scale == 1).all()
        assert layer.shift is None or (layer.shift == 0).all()


def test_mlp_is_linear_norm_activation_by_layer():
    mlp, x = MLP(5, units=7, layers=2, style=RMS), torch.randn(2, 3, 5)
    expected = x
    for linear, norm in zip(mlp.linears, mlp.norms, strict=True):
        expected = norm(expected @ linear.weight.T + linear.bias)
    torch.testing.assert_close(mlp(x), expected)
    assert mlp.outputs == 7
    assert mlp.first is mlp.linears[0]


def test_mlp_has_biases_with_rms_norm_only():
    # 2025: 5 x 7 + 7 + 7 (scale) = 49; 2023: 5 x 7 + 2 x 7 (scale, shift) = 49 too, but no bias of the kernel.
    assert MLP(5, units=7, layers=1, style=RMS).first.bias is not None
    assert MLP(5, units=7, layers=1, style=LAYER).first.bias is None


def test_mlp_without_layers_is_the_identity():
    mlp, x = MLP(5, units=7, layers=0, style=RMS), torch.randn(3, 5)
    assert torch.equal(mlp(x), x)
    assert mlp.outputs == 5


def test_convolution_keeps_halves_and_doubles_sides():
    x = torch.randn(2, 10, 6, 3)
    assert Convolution(3, 4, kernel=5, initializer=NORMAL)(x).shape == (2, 10, 6, 4)
    assert Convolution(3, 4, kernel=4, initializer=NORMAL, stride=2)(x).shape == (2, 5, 3, 4)
    assert Convolution(3, 4, kernel=4, initializer=NORMAL, stride=2, transposed=True)(x).shape == (2, 20, 12, 4)


def test_convolution_by_hand():
    # A 5x5 kernel of ones over an image of ones counts the pixels within reach: 9 at a corner, 25 in the middle.
    layer = Convolution(1, 1, kernel=5, initializer=NORMAL)
    torch.nn.init.ones_(layer.weight)
    torch.nn.init.constant_(layer.bias, 0.5)
    y = layer(torch.ones(1, 6, 6, 1))[0, :, :, 0]
    assert (y[0, 0].item(), y[0, 2].item(), y[2, 2].item()) == (9.5, 15.5, 25.5)


def test_compute_dtype_follows_the_input():
    modules = [
        Linear(8, 8, NORMAL),
        BlockLinear(8, 8, blocks=2, initializer=NORMAL),
        MLP(8, units=8, layers=2, style=RMS),
    ]
    modules += [MLP(8, units=8, layers=2, style=LAYER), NormActivation(8, "layer")]
    x = torch.randn(3, 8)
    for module in modules:
        wide, narrow = module(x), module(x.bfloat16())
        assert narrow.dtype == torch.bfloat16
        assert (narrow.float() - wide).abs().max() < 0.1 * max(1, wide.abs().max())
        assert all(parameter.dtype == torch.float32 for parameter in module.parameters())
    image = torch.randn(1, 4, 4, 2).bfloat16()
    assert Convolution(2, 3, kernel=5, initializer=NORMAL)(image).dtype == torch.bfloat16


def test_variance_of_the_kernel_keeps_the_scale_of_activations():
    # Unit inputs through 1 / sqrt(fan-in) weights give unit outputs.
    y = Linear(1024, 256, NORMAL)(torch.randn(256, 1024))
    assert y.std().item() == pytest.approx(1, rel=0.02)
    assert math.isclose(y.mean().item(), 0, abs_tol=0.02)
