import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.utils.env_checker import data_equivalence

from reverie.envs.observation_codec import ObservationCodec
from reverie.errors import EnvironmentProblem, SpaceError
from reverie.spaces import ObservationPart

GENERATOR = np.random.default_rng(0)


def image(*shape, dtype=np.uint8):
    return Box(0, 1 if np.dtype(dtype).kind == "f" else 255, shape, dtype)


def only(space):
    (part,) = ObservationCodec(space).parts
    return part


@pytest.mark.parametrize(
    ("space", "shape"),
    [
        (image(64, 48, 3), (64, 48, 3)),
        (image(32, 256, 1), (32, 256, 1)),
        (image(64, 64, 16), (64, 64, 16)),
        (image(64, 48), (64, 48, 1)),
        (image(3, 64, 48), (64, 48, 3)),
        (image(1, 64, 48), (64, 48, 1)),
        (image(4, 84, 84), (84, 84, 4)),
        (image(64, 48, 3, dtype=np.float32), (64, 48, 3)),
        (image(3, 64, 48, dtype=np.float64), (64, 48, 3)),
    ],
)
def test_images_have_height_width_and_channels(space, shape):
    assert only(space) == ObservationPart("image", "image", shape)
    encoded = ObservationCodec(space).encode(space.sample())["image"]
    assert encoded.shape == shape and encoded.dtype == np.uint8


def test_channel_first_is_transposed_not_reshaped():
    space = image(3, 40, 50)
    value = GENERATOR.integers(0, 256, (3, 40, 50)).astype(np.uint8)
    encoded = ObservationCodec(space).encode(value)["image"]
    for channel in range(3):
        np.testing.assert_array_equal(encoded[..., channel], value[channel])
    assert encoded.flags.c_contiguous


def test_float_images_are_scaled_and_rounded():
    value = np.zeros((32, 32, 1), np.float32)
    value[0, :3, 0] = [1.0, 0.5, 1 / 255]  # 0.5 * 255 = 127.5, rounded to the even 128
    encoded = ObservationCodec(image(32, 32, 1, dtype=np.float32)).encode(value)["image"]
    assert encoded[0, :4, 0].tolist() == [255, 128, 1, 0]


@pytest.mark.parametrize(
    "space",
    [
        image(7, 7, 3),
        image(31, 64, 3),
        image(64, 64, 64),
        image(2, 3, 4, 5),
        Box(0, 10, (64, 64, 3), np.uint8),
        Box(-2, 2, (64, 64, 3), np.float32),
        Box(-np.inf, np.inf, (4,), np.float32),
        Box(-1, 1, (2, 3), np.float64),
        Box(-5, 5, (3,), np.int16),
        Box(-np.inf, np.inf, (), np.float64),
        Box(0, 255, (128,), np.uint8),
    ],
)
@pytest.mark.filterwarnings("ignore:.*treated as a vector:UserWarning")
def test_all_other_boxes_are_vectors(space):
    part = only(space)
    assert part == ObservationPart("observation", "vector", (int(np.prod(space.shape)),))
    value = space.sample()
    encoded = ObservationCodec(space).encode(value)["observation"]
    assert encoded.dtype == np.float32
    np.testing.assert_allclose(encoded, np.asarray(value, np.float32).reshape(-1))


@pytest.mark.parametrize(
    "box", [Box(0, 300, (84, 84, 3), np.float32), Box(0, 10, (40, 40), np.uint8), image(7, 7, 3), image(64, 64, 64)]
)
def test_a_box_that_may_be_an_image_is_announced(box):
    with pytest.warns(UserWarning, match="treated as a vector.*--part observation=image"):
        ObservationCodec(box)


def test_float64_is_cast_to_float32():
    codec = ObservationCodec(Box(-1, 1, (2,), np.float32))
    assert codec.encode(np.array([0.1, 0.2], np.float64))["observation"].dtype == np.float32
    assert codec.encode([0, 1])["observation"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("space", "value", "classes", "expected"),
    [
        (Discrete(4), 3, (4,), [3]),
        (Discrete(3, start=-1), np.int64(-1), (3,), [0]),
        (Discrete(3, start=5), np.array(7), (3,), [2]),
        (MultiDiscrete([2, 5]), np.array([1, 4]), (2, 5), [1, 4]),
        (MultiDiscrete([[2, 3], [4, 5]]), np.array([[1, 2], [3, 4]]), (2, 3, 4, 5), [1, 2, 3, 4]),
        (MultiDiscrete([2, 5], start=[10, -2]), np.array([11, -2]), (2, 5), [1, 0]),
        (MultiBinary(3), np.array([0, 1, 1], np.int8), (2, 2, 2), [0, 1, 1]),
        (MultiBinary((2, 2)), np.array([[0, 1], [1, 0]], np.int8), (2, 2, 2, 2), [0, 1, 1, 0]),
    ],
)
def test_whole_numbers_become_class_indices(space, value, classes, expected):
    assert only(space) == ObservationPart("observation", "discrete", (len(classes),), classes)
    encoded = ObservationCodec(space).encode(value)["observation"]
    assert encoded.dtype == np.int32 and encoded.tolist() == expected


def test_nested_spaces_are_flattened_and_sorted():
    space = Dict({"z": Discrete(2), "a": Dict({"y": image(32, 32, 3), "x": Tuple((Discrete(3), Box(-1, 1, (2,))))})})
    codec = ObservationCodec(space)
    assert [part.name for part in codec.parts] == ["a/x/0", "a/x/1", "a/y", "z"]
    value = {"z": 1, "a": {"y": np.full((32, 32, 3), 9, np.uint8), "x": (2, np.array([0.5, -0.5], np.float32))}}
    encoded = codec.encode(value)
    assert list(encoded) == ["a/x/0", "a/x/1", "a/y", "z"]
    assert encoded["a/x/0"].tolist() == [2] and encoded["a/x/1"].tolist() == [0.5, -0.5]
    assert (encoded["a/y"] == 9).all() and encoded["z"].tolist() == [1]


def test_every_part_fits_its_description():
    space = Dict({"a": image(32, 32), "b": MultiBinary(2), "c": Tuple((Box(-1, 1, ()), Discrete(9, start=-4)))})
    codec = ObservationCodec(space)
    space.seed(0)
    for _ in range(20):
        encoded = codec.encode(space.sample())
        for part in codec.parts:
            assert encoded[part.name].shape == part.shape and encoded[part.name].dtype == part.dtype


def test_encoded_arrays_are_copies():
    for space in (image(32, 32, 3), image(32, 32), image(3, 32, 32), Box(-1, 1, (3,), np.float32)):
        value = np.zeros(space.shape, space.dtype)
        encoded = next(iter(ObservationCodec(space).encode(value).values()))
        value[...] = 1
        assert (encoded == 0).all()


def test_names_that_a_replay_row_needs_get_a_prefix():
    codec = ObservationCodec(Dict({"reward": Discrete(2), "position": Discrete(2)}))
    assert [part.name for part in codec.parts] == ["observation/reward", "position"]
    assert codec.encode({"reward": 1, "position": 0})["observation/reward"].tolist() == [1]
    assert [part.name for part in ObservationCodec(Dict({"a": Dict({"reward": Discrete(2)})})).parts] == ["a/reward"]


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (gymnasium.spaces.Text(5), ["Text", "supported are"]),
        (Dict({"mission": gymnasium.spaces.Text(5)}), ["'mission'", "Text", "supported are"]),
        (gymnasium.spaces.Sequence(Discrete(2)), ["Sequence", "supported are"]),
        (gymnasium.spaces.Graph(Discrete(2), None), ["Graph", "supported are"]),
        (gymnasium.spaces.OneOf((Discrete(2), Discrete(3))), ["OneOf", "supported are"]),
        (image(300, 200, 3), ["300 x 200", "image_size=64"]),
        (Box(-1, 1, (0,)), ["no entries"]),
        (Dict({}), ["no members"]),
        (Discrete(10**9), ["1000000000 classes", "65536"]),
        (Dict({"a/b": Discrete(2), "a": Dict({"b": Discrete(2)})}), ["'a/b'", "rename"]),
        (Dict({"reward": Discrete(2), "observation/reward": Discrete(2)}), ["'observation/reward'", "rename"]),
    ],
)
def test_spaces_that_are_refused(space, words):
    with pytest.raises(SpaceError) as caught:
        ObservationCodec(space)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("space", "value", "words"),
    [
        (Box(-1, 1, (2,)), np.array([0, np.nan], np.float32), ["'observation'", "nan at entry 1", "finite"]),
        (Box(-np.inf, np.inf, (2,)), np.array([np.inf, 0], np.float32), ["inf at entry 0", "finite"]),
        (Box(-np.inf, np.inf, (1,), np.float64), np.array([1e300]), ["inf at entry 0", "float32"]),
        (image(32, 32, 3, dtype=np.float32), np.full((32, 32, 3), np.nan, np.float32), ["nan", "finite"]),
        (Box(-1, 1, (2,)), np.zeros(3, np.float32), ["(3,)", "(2,)"]),
        (image(32, 32, 3), np.zeros((32, 32, 3), np.float32), ["float32", "uint8"]),
        (image(32, 32, 3), np.full((32, 32, 3), 256), ["256", "uint8"]),
        (Box(-5, 5, (1,), np.int16), np.array([0.5]), ["float64", "int16"]),
        (Box(-1, 1, (2,)), [[1, 2], [3]], ["list", "(2,)"]),
        (Box(-1, 1, (1,)), np.array(["a"]), ["dtype <U1", "float32"]),
        (Box(-1, 1, (1,)), None, ["dtype object", "float32"]),
        (Discrete(3), 3, ["value 3", "0 to 2"]),
        (Discrete(3, start=1), 0, ["value 0", "1 to 3"]),
        (Discrete(3), 1.0, ["float64", "int64"]),
        (MultiDiscrete([2, 3]), np.array([0, 3]), ["value 3", "variable 1", "0 to 2"]),
        (MultiBinary(2), np.array([0, 2]), ["value 2", "0 to 1"]),
        (Dict({"a": Discrete(2), "b": Discrete(2)}), {"a": 0}, ["lacks the keys ['b']"]),
        (Dict({"a": Discrete(2)}), {"a": 0, "c": 0}, ["unknown keys ['c']"]),
        (Dict({"a": Dict({"b": Discrete(2)})}), {"a": 0}, ["'a'", "int", "Dict"]),
        (Tuple((Discrete(2), Discrete(2))), (0,), ["1 members", "Tuple of 2"]),
        (Tuple((Discrete(2), Discrete(2))), 3, ["a int", "Tuple of 2"]),
    ],
)
def test_observations_that_are_refused(space, value, words):
    with pytest.raises(EnvironmentProblem) as caught:
        ObservationCodec(space).encode(value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_values_outside_the_bounds_warn_once_for_each_part():
    codec = ObservationCodec(Dict({"a": Box(-1, 1, (2,)), "b": Box(0, np.inf, (1,))}))
    bad = {"a": np.array([0, 2], np.float32), "b": np.array([-3], np.float32)}
    with pytest.warns(UserWarning, match="outside the bounds") as caught:
        encoded = codec.encode(bad)
    assert len(caught) == 2
    assert encoded["a"].tolist() == [0, 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        codec.encode(bad)


def test_rounding_at_the_bounds_does_not_warn():
    codec = ObservationCodec(Box(np.float32(-0.1), np.float32(0.1), (1,), np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        codec.encode(np.array([0.1 + 1e-8]))


B = gymnasium.spaces.Box


@pytest.mark.parametrize(
    "space",
    [
        B(0, 255, (40, 48, 3), np.uint8),
        B(0, 255, (3, 40, 48), np.uint8),
        B(0, 255, (40, 48), np.uint8),
        B(-3, 5, (2, 3), np.float64),
        B(-3, 5, (4,), np.int16),
        B(0, 1, (), np.float32),
        gymnasium.spaces.Discrete(5, start=-2),
        gymnasium.spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])),
        gymnasium.spaces.MultiBinary((2, 2)),
        gymnasium.spaces.Dict(
            {
                "b": gymnasium.spaces.Tuple((B(0, 255, (32, 32, 1), np.uint8), gymnasium.spaces.Discrete(3))),
                "a": B(-1, 1, (2,)),
            }
        ),
    ],
    ids=str,
)
def test_decoding_is_the_inverse_of_encoding(space):
    codec = ObservationCodec(space)
    space.seed(0)
    for _ in range(5):
        observation = space.sample()
        decoded = codec.decode(codec.encode(observation))
        assert space.contains(decoded)
        assert data_equivalence(decoded, observation)


def test_float_images_are_decoded_to_the_nearest_of_256_steps():
    codec = ObservationCodec(B(0, 1, (3, 40, 48), np.float32))
    image = np.random.default_rng(0).random((3, 40, 48)).astype(np.float32)
    np.testing.assert_allclose(codec.decode(codec.encode(image)), image, atol=0.5 / 255 + 1e-6)


def test_predictions_outside_the_bounds_are_clipped():
    assert ObservationCodec(B(-1, 2, (3,))).decode({"observation": np.array([-9.0, 0.5, 9.0])}).tolist() == [-1, 0.5, 2]
    assert ObservationCodec(B(-1, 2, (3,), np.int32)).decode({"observation": np.array([-9, 0.6, 9])}).tolist() == [
        -1,
        1,
        2,
    ]
