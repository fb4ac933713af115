"""Which observations are pictures, in every layout and range, and what a user may say of them."""

import warnings

import gymnasium
import numpy as np
import pytest
from env_helpers import Scripted
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from gymnasium.wrappers import FrameStackObservation

from reverie.envs import EnvironmentSource, make
from reverie.envs.images import recognized_axes
from reverie.envs.observation_codec import ObservationCodec
from reverie.errors import ConfigError, SpaceError
from reverie.spaces import Interface, ObservationPart


def pixels(*shape):
    return Box(0, 255, shape, np.uint8)


def part_of(space, **parts):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (part,) = ObservationCodec(space, parts).parts
    return part


@pytest.mark.parametrize(
    ("shape", "axes", "seen"),
    [
        ((4, 84, 84), "chw", (84, 84, 4)),
        ((84, 84, 4), "hwc", (84, 84, 4)),
        ((2, 84, 84), "chw", (84, 84, 2)),
        ((10, 64, 48), "chw", (64, 48, 10)),
        ((12, 64, 64), "chw", (64, 64, 12)),
        ((64, 64, 12), "hwc", (64, 64, 12)),
        ((30, 64, 64), "chw", (64, 64, 30)),
        ((64, 64, 30), "hwc", (64, 64, 30)),
        ((40, 84, 84), "chw", (84, 84, 40)),
        ((84, 84, 40), "hwc", (84, 84, 40)),
        ((40, 84, 96), "chw", (84, 96, 40)),
        ((96, 84, 40), "hwc", (96, 84, 40)),
        ((4, 64, 64, 3), "thwc", (64, 64, 12)),
        ((1, 64, 48, 3), "thwc", (64, 48, 3)),
        ((5, 64, 64, 1), "thwc", (64, 64, 5)),
        ((4, 3, 64, 48), "tchw", (64, 48, 12)),
        ((10, 1, 64, 64), "tchw", (64, 64, 10)),
        ((64, 64, 4, 3), "hwtc", (64, 64, 12)),
        ((64, 64, 3, 5), "hwct", (64, 64, 15)),
        ((64, 64, 64, 3), "thwc", (64, 64, 192)),
        ((64, 64), "hw", (64, 64, 1)),
    ],
)
def test_layouts_are_recognized_and_given_back(shape, axes, seen):
    assert recognized_axes(shape) == axes
    space = pixels(*shape)
    codec = ObservationCodec(space)
    frames = shape[axes.index("t")] if "t" in axes else 1
    assert codec.parts == (ObservationPart("image", "image", seen, frames=frames),)
    space.seed(0)
    value = space.sample()
    encoded = codec.encode(value)["image"]
    assert encoded.shape == seen and encoded.dtype == np.uint8
    decoded = codec.decode({"image": encoded})
    assert space.contains(decoded) and np.array_equal(decoded, value)


@pytest.mark.parametrize("shape", [(64, 64, 64), (48, 64, 48), (7, 7, 3), (128,), (31, 31, 31, 31), (2, 2, 64, 64, 3)])
def test_layouts_that_cannot_be_told(shape):
    assert recognized_axes(shape) is None


@pytest.mark.parametrize("count", [1, 2, 5, 10])
@pytest.mark.parametrize(("shape", "colors"), [((64, 48), 1), ((64, 48, 1), 1), ((64, 48, 3), 3), ((3, 64, 48), 3)])
def test_stacks_hold_the_newest_frame_last(count, shape, colors):
    class Counts(gymnasium.Env):
        observation_space, action_space = pixels(*shape), Discrete(2)

        def reset(self, *, seed=None, options=None):
            self.shown = np.zeros(shape, np.uint8)
            return self.shown, {}

        def step(self, action):
            self.shown = self.shown + np.uint8(1)
            return self.shown, 0.0, False, False, {}

    adapter = make(lambda: FrameStackObservation(Counts(), count))
    (part,) = adapter.interface.observations
    assert part.shape == (64, 48, count * colors)
    assert part.newest_channels == (colors if count > 1 or colors == 3 else 1)
    adapter.reset(0)
    for _ in range(20):
        image = adapter.step(np.array([1, 0], np.float32))[0]["image"]
    assert image[0, 0].tolist() == np.arange(21 - count, 21).repeat(colors).tolist()
    assert np.array_equal(
        adapter.decode_observation({"image": image}), np.stack([np.full(shape, n) for n in range(21 - count, 21)])
    )
    small = make(lambda: FrameStackObservation(Counts(), count), image_size=(40, 32))
    assert small.interface.observations[0].shape == (40, 32, count * colors)
    assert small.interface.observations[0].newest_channels == part.newest_channels
    assert (small.reset(0)["image"] == 0).all()
    assert (
        small.step(np.array([1, 0], np.float32))[0]["image"][0, 0].tolist() == [0] * (count - 1) * colors + [1] * colors
    )


def test_stacks_are_remembered_in_the_interface():
    codec = ObservationCodec(Dict({"a": pixels(4, 64, 64, 3), "b": pixels(64, 64, 3)}))
    interface = Interface(codec.parts, ())
    assert [part.frames for part in Interface.from_json(interface.to_json()).observations] == [4, 1]
    assert "frames" not in interface.to_json()["observations"][1]
    guessed = [part_of(pixels(64, 64, channels)).newest_channels for channels in (1, 2, 3, 4, 5, 12)]
    assert guessed == [1, 1, 3, 1, 1, 3]


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (0, 65_535, np.uint16),
        (0, 255, np.uint16),
        (0, 255, np.int32),
        (0, 1, np.float32),
        (-1, 1, np.float32),
        (-1, 1, np.float64),
        (0, 255, np.float32),
        (0, 255, np.float16),
    ],
)
@pytest.mark.parametrize("shape", [(40, 48, 3), (3, 40, 48), (2, 40, 48, 1)])
def test_declared_bounds_of_brightness(low, high, dtype, shape):
    space = Box(low, high, shape, dtype)
    codec = ObservationCodec(space)
    assert codec.parts[0].kind == "image"
    value = np.full(shape, low, dtype)
    value.reshape(-1)[:3] = [high, low, low + (high - low) * 102 / 255]
    encoded = codec.encode(value)["image"]
    assert encoded.min() == 0 and encoded.max() == 255 and 102 in encoded
    decoded = codec.decode({"image": encoded})
    assert decoded.dtype == dtype and space.contains(decoded)
    np.testing.assert_allclose(decoded.astype(float), value.astype(float), atol=(high - low) * 1e-3)


def test_a_gray_picture_of_floats_is_announced():
    with pytest.warns(UserWarning, match="256 steps from -1 to 1.*--part image=vector"):
        ObservationCodec(Box(-1, 1, (64, 64), np.float32))


@pytest.mark.parametrize("high", [1, 10, 254])
@pytest.mark.parametrize("shape", [(40, 40), (40, 40, 3), (4, 40, 40)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_a_map_of_symbols_is_no_picture(high, shape, dtype):
    space = Box(0, high, shape, dtype)
    with pytest.warns(UserWarning, match=f"from 0 to {high} is treated as a vector"):
        codec = ObservationCodec(space)
    assert codec.parts[0].kind == "vector"
    value = np.full(shape, high, dtype)
    assert (codec.encode(value)["observation"] == high).all()
    assert np.array_equal(codec.decode(codec.encode(value)), value)


def test_a_user_says_what_a_part_is():
    space = Dict({"map": Box(0, 10, (40, 40), np.uint8), "plan": pixels(64, 64, 3), "level": Discrete(9, start=2)})
    said = {"map": "discrete", "plan": "vector", "level": "vector"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        codec = ObservationCodec(space, said)
    assert [(part.name, part.kind, part.shape) for part in codec.parts] == [
        ("level", "vector", (1,)),
        ("map", "discrete", (1600,)),
        ("plan", "vector", (64 * 64 * 3,)),
    ]
    assert set(codec.parts[1].classes) == {11}
    space.seed(0)
    value = space.sample()
    decoded = codec.decode(codec.encode(value))
    assert space.contains(decoded)
    assert all(np.array_equal(decoded[name], value[name]) for name in space.spaces)


@pytest.mark.parametrize("name", ["observation", "image"])
def test_the_only_part_goes_by_either_name(name):
    assert part_of(Box(0, 10, (40, 40), np.uint8), **{name: "image"}).kind == "image"
    assert part_of(pixels(40, 40, 3), **{name: "vector"}).kind == "vector"


@pytest.mark.parametrize(
    ("space", "said", "shape"),
    [
        (Box(0, 10, (40, 48), np.uint8), "image", (40, 48, 1)),
        (Box(-5, 5, (40, 48, 3), np.float32), "image", (40, 48, 3)),
        (Box(0, 1023, (40, 48), np.uint16), "image", (40, 48, 1)),
        (MultiBinary((40, 48)), "image", (40, 48, 1)),
        (MultiDiscrete(np.full((40, 48), 5)), "image", (40, 48, 1)),
        (pixels(40, 48, 64), "image:hwc", (40, 48, 64)),
        (pixels(40, 48, 64), "image:chw", (48, 64, 40)),
        (pixels(3, 48, 64), "image:thw", (48, 64, 3)),
        (pixels(3, 4, 48, 64), "image:cthw", (48, 64, 12)),
    ],
)
def test_images_by_the_users_word(space, said, shape):
    codec = ObservationCodec(space, {"image": said})
    assert codec.parts[0].kind == "image" and codec.parts[0].shape == shape
    space.seed(0)
    value = space.sample()
    decoded = codec.decode(codec.encode(value))
    assert space.contains(decoded)
    span = 0 if space.dtype.kind in "iu" and codec.parts[0].shape[2] < 100 and value.max() <= 255 else 4.1
    np.testing.assert_allclose(decoded, value, atol=span)


@pytest.mark.parametrize(
    ("space", "parts", "error", "words"),
    [
        (pixels(40, 40), {"map": "image"}, ConfigError, "no part 'map': its parts are observation"),
        (Dict({"a": pixels(40, 40), "b": Discrete(2)}), {"image": "vector"}, ConfigError, "its parts are a, b"),
        (pixels(40, 40), {"image": "picture"}, ConfigError, "must be image, vector, discrete"),
        (pixels(40, 40), {"image": "image:hh"}, ConfigError, "image:chw"),
        (pixels(40, 40), {"image": "vector:hw"}, ConfigError, "image:chw"),
        (pixels(40, 40), {"image": "image:hwc"}, SpaceError, "with axes hwc"),
        (Discrete(3), {"observation": "image"}, SpaceError, "a height, a width"),
        (Box(-np.inf, np.inf, (40, 40)), {"image": "image"}, SpaceError, "finite bounds"),
        (Box(0, 1, (40, 40)), {"image": "discrete"}, SpaceError, "whole numbers"),
        (pixels(84, 84, 4), {"image": "discrete"}, SpaceError, "7,225,344"),
        (Box(0, 10**6, (2,), np.int64), {"observation": "discrete"}, SpaceError, "1000001 classes"),
        (pixels(7, 7, 3), {"image": "image"}, SpaceError, "7 x 7 pixels.*image_size=64"),
    ],
)
def test_words_that_do_not_fit(space, parts, error, words):
    with pytest.raises(error, match=words):
        ObservationCodec(space, parts)


def test_small_and_symbolic_images_are_resized_by_the_users_word():
    space = Dict({"view": pixels(7, 7, 3), "map": Box(0, 4, (2, 40, 40), np.uint8)})
    value = {"view": np.full((7, 7, 3), 9, np.uint8), "map": np.full((2, 40, 40), 4, np.uint8)}
    source = EnvironmentSource(
        lambda: Scripted(value, space=space), image_size=64, parts={"view": "image", "map": "image:thw"}
    )
    adapter = source.make()
    assert [(part.name, part.shape, part.frames) for part in adapter.interface.observations] == [
        ("map", (64, 64, 2), 2),
        ("view", (64, 64, 3), 1),
    ]
    observation = adapter.reset(0)
    assert (observation["view"] == 9).all() and (observation["map"] == 255).all()
    assert np.array_equal(adapter.encode_observation(value)["map"], observation["map"])
