import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import conv2d, conv_transpose2d, elu, relu, silu

from reverie.nn.decoders import Decoder
from reverie.nn.encoders import Encoder, encode_discrete, group_images, image_stages, padded_side
from reverie.nn.layers import Initializer, NetworkStyle, plain_style
from reverie.ops.transforms import symlog
from reverie.spaces import ObservationPart

NORMAL = Initializer("truncated_normal", "in")
D, Z = 16, 6
MIDDLE = {"deterministic": D, "stochastic": Z, "depth": 2, "units": 8, "layers": 2}
RMS = NetworkStyle(norm="rms", activation="silu", kernel=NORMAL, output_kernel=NORMAL)
STYLES = {"pooled": RMS, "strided": replace(RMS, norm="layer")}
SIZES = [(32, 32), (33, 50), (37, 200), (47, 48), (48, 48), (64, 64), (84, 84), (96, 96), (210, 160), (256, 256)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def image(name, height, width, channels=3):
    return ObservationPart(name, "image", (height, width, channels))


def make_encoder(parts, network="pooled"):
    return Encoder(parts, depth=2, units=8, layers=2, network=network, style=STYLES[network])


def make_decoder(parts, network="pooled"):
    return Decoder(parts, **MIDDLE, blocks=4, network=network, style=STYLES[network])


def random_observation(parts, batch=2, steps=3):
    observation = {}
    for part in parts:
        if part.kind == "image":
            observation[part.name] = torch.randint(0, 256, (batch, steps, *part.shape), dtype=torch.uint8)
        elif part.kind == "vector":
            observation[part.name] = torch.randn(batch, steps, *part.shape)
        else:
            columns = [torch.randint(0, c, (batch, steps), dtype=torch.int32) for c in part.classes]
            observation[part.name] = torch.stack(columns, -1)
    return observation


def round_trip(parts, network):
    """Encodes and decodes a random observation; checks every shape and that gradients reach every weight."""
    encoder, decoder = make_encoder(parts, network), make_decoder(parts, network)
    observation = random_observation(parts)
    tokens = encoder(observation)
    assert tokens.shape == (2, 3, encoder.outputs)
    outputs = decoder(torch.randn(2, 3, D + Z))
    losses = decoder.losses(outputs, observation)
    assert list(losses) == list(outputs)
    assert set(losses) == {part.name for part in parts}
    for name, loss in losses.items():
        assert loss.shape == (2, 3), name
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss).all()
    predictions = decoder.predictions(outputs)
    for part in parts:
        assert predictions[part.name].shape == (2, 3, *part.shape), part.name
    (tokens.square().mean() + sum(loss.mean() for loss in losses.values())).backward()
    for name, parameter in [*encoder.named_parameters(), *decoder.named_parameters()]:
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    return encoder, decoder


@pytest.mark.parametrize("network", ["pooled", "strided"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_images_of_any_size(height, width, network):
    channels = 1 if height == 96 else 3
    encoder, decoder = round_trip([image("image", height, width, channels)], network)
    rows, columns = decoder.images[0].grid
    # Three or four halvings leave 3 to 16 rows and columns along the shorter side.
    assert 3 <= min(rows, columns) <= 16
    assert encoder.outputs == rows * columns * encoder.images[0].convolutions[-1].weight.shape[0]


def test_stages_and_grid_of_the_papers_sizes():
    # 64 -> 4, 96 -> 6 with four stages; last stage 4 x depth (2025) or 8 x depth (2023) channels.
    for side, grid in ((64, 4), (96, 6)):
        parts = [image("image", side, side)]
        assert make_encoder(parts).outputs == grid * grid * 4 * 2
        assert make_encoder(parts, "strided").outputs == grid * grid * 8 * 2
        assert make_decoder(parts).images[0].grid == (grid, grid)
    assert [image_stages(s, s) for s in (32, 47, 48, 64, 256)] == [3, 3, 4, 4, 4]
    assert [padded_side(s, 4) for s in (48, 50, 64, 84, 210)] == [48, 64, 64, 96, 224]


def test_channels_of_the_stages():
    def channels(network):
        encoder = make_encoder([image("image", 64, 64)], network)
        return [convolution.weight.shape[0] for convolution in encoder.images[0].convolutions]

    assert channels("pooled") == [4, 6, 8, 8]  # depth 2 x (2, 3, 4, 4)
    assert channels("strided") == [2, 4, 8, 16]  # depth 2 x (1, 2, 4, 8)


def test_pooled_image_encoder_stage_by_stage():
    encoder = make_encoder([image("image", 32, 32)])
    pixels = torch.randint(0, 256, (1, 1, 32, 32, 3), dtype=torch.uint8)
    x = pixels[0].permute(0, 3, 1, 2).float() / 255 - 0.5
    for convolution, norm in zip(encoder.images[0].convolutions, encoder.images[0].norms, strict=True):
        x = torch.nn.functional.conv2d(x, convolution.weight, convolution.bias, padding=2)
        x = x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).amax((3, 5))
        x = silu(x / torch.sqrt(x.square().mean(1, keepdim=True) + 1e-4) * norm.scale[:, None, None])
    expected = x.permute(0, 2, 3, 1).reshape(1, 1, -1)
    torch.testing.assert_close(encoder({"image": pixels}), expected, rtol=1e-4, atol=1e-5)


def test_strided_image_encoder_stage_by_stage():
    encoder = make_encoder([image("image", 32, 32)], "strided")
    pixels = torch.randint(0, 256, (1, 1, 32, 32, 3), dtype=torch.uint8)
    x = pixels[0].permute(0, 3, 1, 2).float() / 255 - 0.5
    for convolution, norm in zip(encoder.images[0].convolutions, encoder.images[0].norms, strict=True):
        assert convolution.bias is None
        x = torch.nn.functional.conv2d(x, convolution.weight, None, stride=2, padding=1)
        centered = x - x.mean(1, keepdim=True)
        normalized = centered / torch.sqrt(centered.square().mean(1, keepdim=True) + 1e-3)
        x = silu(normalized * norm.scale[:, None, None] + norm.shift[:, None, None])
    expected = x.permute(0, 2, 3, 1).reshape(1, 1, -1)
    torch.testing.assert_close(encoder({"image": pixels}), expected, rtol=1e-4, atol=1e-5)


def test_blocks_of_the_image_decoder_own_channels():
    """Channel group k of the grid depends on slice k of h only."""
    decoder = make_decoder([image("image", 64, 64)]).images[0]
    h = torch.randn(1, D, requires_grad=True)
    own = decoder.from_deterministic(h).unflatten(-1, (4, 4, 4, -1)).permute(0, 2, 3, 1, 4).flatten(3)
    assert own.shape == (1, 4, 4, 8)
    # Two channels and four entries of h a block.
    (gradient,) = torch.autograd.grad(own[..., 2:4].sum(), h)
    assert gradient[0].nonzero().flatten().tolist() == [4, 5, 6, 7]


def test_pooled_images_lie_between_zero_and_one_and_strided_ones_begin_at_a_half():
    feature = 100 * torch.randn(1, 2, D + Z)
    pixels = make_decoder([image("image", 32, 32)])(feature)["image"]
    assert pixels.dtype == torch.float32
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    zero = Decoder(
        [image("image", 32, 32)], **MIDDLE, blocks=1, network="strided", style=STYLES["strided"].with_output(0)
    )
    assert (zero(feature)["image"] == 0.5).all()


@pytest.mark.parametrize("network", ["pooled", "strided"])
def test_several_images_of_equal_and_different_size(network):
    parts = [image("right", 48, 64), image("left", 48, 64, 1), image("map", 32, 40, 2), image("above", 64, 48)]
    groups = [[part.name for part in group] for group in group_images(parts)]
    assert sorted(map(sorted, groups)) == [["above"], ["left", "right"], ["map"]]
    assert ["left", "right"] in groups  # channels in the order of the names
    encoder, decoder = round_trip(parts, network)
    assert len(encoder.images) == len(decoder.images) == 3


def test_images_that_share_a_network_keep_their_channels():
    parts = [image("b", 32, 32, 2), image("a", 32, 32, 1)]
    encoder, decoder = make_encoder(parts), make_decoder(parts)
    seen = []
    encoder.images[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    observation = random_observation(parts)
    encoder(observation)
    together = torch.cat([observation["a"], observation["b"]], -1).flatten(0, 1)
    torch.testing.assert_close(seen[0], together / 255 - 0.5)
    feature = torch.randn(2, 3, D + Z)
    outputs = decoder(feature)
    raw = decoder.images[0](feature.flatten(0, 1)).unflatten(0, (2, 3))
    assert torch.equal(outputs["a"], raw[..., :1])
    assert torch.equal(outputs["b"], raw[..., 1:])


@pytest.mark.parametrize("network", ["pooled", "strided"])
def test_every_kind_of_part_together(network):
    parts = [
        image("camera", 40, 33),
        ObservationPart("velocity", "vector", (3,)),
        ObservationPart("inventory", "discrete", (3,), (4, 2, 7)),
        ObservationPart("compass", "discrete", (2,), (5, 5)),
        ObservationPart("angle", "vector", (1,)),
    ]
    encoder, decoder = round_trip(parts, network)
    # Image tokens first, then 8 units of the vector network.
    assert encoder.outputs == encoder.images[0].outputs + 8
    # 1 angle + 5 + 5 compass + 4 + 2 + 7 inventory + 3 velocity.
    assert encoder.vector.first.weight.shape == (8, 27)
    assert [part.name for part in decoder.flat_parts] == ["angle", "compass", "inventory", "velocity"]


def test_vectors_pass_symlog_in_the_order_of_their_names():
    parts = [ObservationPart("b", "vector", (2,)), ObservationPart("a", "vector", (1,))]
    parts.append(ObservationPart("c", "discrete", (2,), (3, 2)))
    encoder = make_encoder(parts)
    seen = []
    encoder.vector.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    observation = {
        "a": torch.tensor([[[math.e - 1]]]),
        "b": torch.tensor([[[0.0, 1 - math.e**2]]]),
        "c": torch.tensor([[[1, 0]]], dtype=torch.int32),
    }
    encoder(observation)
    # symlog(e - 1) = 1, symlog(0) = 0, symlog(1 - e^2) = -2; class 1 of 3 and class 0 of 2.
    torch.testing.assert_close(seen[0], torch.tensor([[[1.0, 0, -2, 0, 1, 0, 1, 0]]]))


def test_discrete_observations_become_one_hot():
    index = torch.tensor([[2, 0], [1, 1]], dtype=torch.int32)
    assert encode_discrete(index, (3, 2)).tolist() == [[0, 0, 1, 1, 0], [0, 1, 0, 0, 1]]
    assert encode_discrete(index, (3, 3)).tolist() == [[0, 0, 1, 1, 0, 0], [0, 1, 0, 0, 1, 0]]
    assert encode_discrete(torch.tensor([[1]], dtype=torch.int32), (4,)).tolist() == [[0, 1, 0, 0]]


def test_image_loss_by_hand():
    # Prediction 0.5 everywhere, truth 255 -> 1 in two entries and 0 in the other 32 x 32 x 3 - 2: all are off by 0.5,
    # so the sum is 3072 x 0.25 = 768. No factor one half.
    decoder = make_decoder([image("image", 32, 32)])
    target = torch.zeros(1, 1, 32, 32, 3, dtype=torch.uint8)
    target[0, 0, 3, 4, :2] = 255
    loss = decoder.losses({"image": torch.full((1, 1, 32, 32, 3), 0.5)}, {"image": target})["image"]
    assert loss.item() == pytest.approx(768)
    # 51 / 255 = 0.2 against 0: one entry gives 0.04.
    target.zero_()[0, 0, 0, 0, 0] = 51
    loss = decoder.losses({"image": torch.zeros(1, 1, 32, 32, 3)}, {"image": target})["image"]
    assert loss.item() == pytest.approx(0.04)


def test_vector_loss_by_hand():
    # symlog of (e - 1, 0) is (1, 0); the outputs (3, 0.5) give (3 - 1)^2 + 0.5^2 = 4.25.
    decoder = make_decoder([ObservationPart("x", "vector", (2,))])
    outputs, target = {"x": torch.tensor([[[3.0, 0.5]]])}, {"x": torch.tensor([[[math.e - 1, 0.0]]])}
    assert decoder.losses(outputs, target)["x"].item() == pytest.approx(4.25)


def test_class_loss_by_hand():
    # Variable 0: logits ln 1, ln 2, ln 5, class 2: -ln(5/8) = 0.470004. Variable 1: logits 0, 0: ln 2 = 0.693147.
    decoder = make_decoder([ObservationPart("x", "discrete", (2,), (3, 2))])
    outputs = {"x": torch.tensor([[[0.0, math.log(2), math.log(5), 0.0, 0.0]]])}
    loss = decoder.losses(outputs, {"x": torch.tensor([[[2, 1]]], dtype=torch.int32)})["x"]
    assert loss.shape == (1, 1)
    assert loss.item() == pytest.approx(1.163151, abs=1e-6)


def test_losses_keep_batch_and_time_apart():
    parts = [ObservationPart("x", "vector", (2,)), ObservationPart("c", "discrete", (2,), (3, 2))]
    decoder, observation = make_decoder(parts), random_observation(parts)
    outputs = decoder(torch.randn(2, 3, D + Z))
    losses = decoder.losses(outputs, observation)
    for b in range(2):
        for t in range(3):
            one = {name: value[b : b + 1, t : t + 1] for name, value in outputs.items()}
            truth = {name: value[b : b + 1, t : t + 1] for name, value in observation.items()}
            for name, loss in decoder.losses(one, truth).items():
                assert loss.item() == pytest.approx(losses[name][b, t].item(), rel=1e-5)


def test_predictions_are_in_the_units_of_the_environment():
    parts = [ObservationPart("x", "vector", (2,)), ObservationPart("c", "discrete", (2,), (3, 2))]
    decoder = make_decoder(parts)
    outputs = {"x": torch.tensor([[[1.0, -2.0]]]), "c": torch.tensor([[[0.1, 5.0, 0.2, 3.0, -1.0]]])}
    predictions = decoder.predictions(outputs)
    torch.testing.assert_close(predictions["x"], torch.tensor([[[math.e - 1, 1 - math.e**2]]]))
    assert predictions["c"].tolist() == [[[1, 0]]]


@pytest.mark.parametrize("network", ["pooled", "strided"])
def test_perfect_outputs_have_no_loss(network):
    parts = [image("image", 33, 50), ObservationPart("x", "vector", (4,))]
    decoder, observation = make_decoder(parts, network), random_observation(parts)
    perfect = {"image": observation["image"] / 255, "x": symlog(observation["x"])}
    for loss in decoder.losses(perfect, observation).values():
        assert (loss == 0).all()


@pytest.mark.parametrize("network", ["pooled", "strided"])
def test_bfloat16(network):
    parts = [image("image", 32, 32), ObservationPart("x", "vector", (4,))]
    encoder, decoder = make_encoder(parts, network), make_decoder(parts, network)
    observation = random_observation(parts)
    tokens = encoder(observation, torch.bfloat16)
    assert tokens.dtype == torch.bfloat16
    # Rounding to 8 bits in five layers.
    assert (tokens.float() - encoder(observation)).abs().mean() < 0.05
    outputs = decoder(torch.randn(2, 3, D + Z).bfloat16())
    assert all(output.dtype == torch.float32 for output in outputs.values())


def test_padding_repeats_the_border():
    """An image that is padded by its border gives the tokens of the larger image with the same border pixels."""
    small, large = make_encoder([image("image", 62, 50)]), make_encoder([image("image", 64, 64)])
    large.load_state_dict(small.state_dict())
    pixels = torch.randint(0, 256, (1, 1, 62, 50, 3), dtype=torch.uint8)
    rows, columns = torch.arange(64).clamp(max=61), torch.arange(64).clamp(max=49)
    padded = pixels[:, :, rows][:, :, :, columns]
    torch.testing.assert_close(small({"image": pixels}), large({"image": padded}))


# ---------------------------------------------------------------- agents before DreamerV3


def older(parts, depth=2):
    """Encoder and decoder with ELU, but ReLU in the convolutions, on vectors as they are."""
    plain = {"network": "unpadded", "style": plain_style("elu"), "image_style": plain_style("relu"), "vectors": "raw"}
    encoder = Encoder(parts, depth=depth, units=8, layers=2, **plain)
    decoder = Decoder(parts, **{**MIDDLE, "depth": depth}, blocks=1, square=0.5, **plain)
    return encoder, decoder


def test_unpadded_images_go_through_four_strided_convolutions():
    encoder, _ = older([image("camera", 64, 64)])
    observation = random_observation([image("camera", 64, 64)])
    x = observation["camera"].flatten(0, 1).permute(0, 3, 1, 2) / 255 - 0.5
    for layer, side in zip(encoder.images[0].convolutions, (31, 14, 6, 2), strict=True):
        x = relu(conv2d(x, layer.weight, layer.bias, stride=2))
        assert x.shape[-1] == side
    expected = x.permute(0, 2, 3, 1).flatten(1).unflatten(0, (2, 3))
    torch.testing.assert_close(encoder(observation), expected, rtol=1e-4, atol=1e-5)
    assert encoder.outputs == 2 * 2 * 8 * 2


def test_unpadded_images_come_back_from_one_cell():
    _, decoder = older([image("camera", 64, 64)])
    network, feature = decoder.images[0], torch.randn(2, 3, D + Z)
    x = network.to_grid(feature.flatten(0, 1))[:, :, None, None]
    for number, (layer, side) in enumerate(zip(network.convolutions, (5, 13, 30, 64), strict=True)):
        x = conv_transpose2d(relu(x) if number else x, layer.weight, layer.bias, stride=2)
        assert x.shape[-1] == side
    expected = x.permute(0, 2, 3, 1).unflatten(0, (2, 3)) + 0.5
    torch.testing.assert_close(decoder(feature)["camera"], expected, rtol=1e-4, atol=1e-5)


def test_raw_vectors_are_neither_squashed_nor_normalized():
    parts = [ObservationPart("speed", "vector", (3,))]
    encoder, decoder = older(parts)
    observation = {"speed": torch.randn(2, 4, 3) * 50}
    x = observation["speed"]
    for linear in encoder.vector.linears:
        x = elu(x @ linear.weight.T + linear.bias)
    torch.testing.assert_close(encoder(observation), x)
    outputs = decoder(torch.randn(2, 4, D + Z))
    expected = 0.5 * (outputs["speed"] - observation["speed"]).square().sum(-1)
    torch.testing.assert_close(decoder.losses(outputs, observation)["speed"], expected)
    assert decoder.predictions(outputs)["speed"] is outputs["speed"]
