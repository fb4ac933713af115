import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from reverie.envs.spaces import ActionCodec, interface_of, random_action
from reverie.errors import EnvironmentProblem, SpaceError
from reverie.spaces import ActionPart


def vector(*values):
    return np.array(values, np.float32)


def test_box_is_scaled_from_minus_one_and_one_to_its_bounds():
    space = Box(np.array([0, -2], np.float32), np.array([10, 2], np.float32))
    codec = ActionCodec(space)
    assert codec.parts == (ActionPart("action", "continuous", 2),)
    # 0 is the middle of the bounds, 0.5 three quarters: -2 + 0.75 * 4 = 1.
    assert codec.decode(vector(0, 0.5)).tolist() == [5, 1]
    assert codec.decode(vector(-1, 1)).tolist() == [0, 2]
    assert codec.decode(vector(-7, 7)).tolist() == [0, 2]
    assert codec.decode(vector(0, 0)).dtype == np.float32


def test_box_keeps_shape_and_dtype():
    for space in (
        Box(-1, 1, (2, 3), np.float64),
        Box(-0.3, 0.7, (), np.float32),
        Box(0, 255, (4,), np.uint8),
        Box(-5, 9, (2,), np.int64),
        Box(0, 1, (3,), bool),
    ):
        codec = ActionCodec(space)
        generator = np.random.default_rng(0)
        for _ in range(50):
            assert space.contains(codec.decode(generator.uniform(-1.2, 1.2, codec.width).astype(np.float32)))


def test_whole_number_box_rounds():
    codec = ActionCodec(Box(0, 10, (1,), np.int32))
    assert codec.decode(vector(0.05)).tolist() == [5]  # 5.25
    assert codec.decode(vector(0.15)).tolist() == [6]  # 5.75


def test_discrete_takes_the_largest_entry():
    codec = ActionCodec(Discrete(3, start=-1))
    assert codec.parts == (ActionPart("action", "discrete", 1, (3,)),)
    action = codec.decode(vector(0.1, 0.2, 0.9))
    assert action == 1 and isinstance(action, np.int64)


@pytest.mark.parametrize(
    ("space", "classes", "flat", "expected"),
    [
        (MultiDiscrete([2, 3]), (2, 3), [0, 1, 0, 0, 1], [1, 2]),
        (MultiDiscrete([2, 3], start=[5, -1]), (2, 3), [1, 0, 0, 1, 0], [5, 0]),
        (MultiDiscrete([[2], [2]]), (2, 2), [0, 1, 1, 0], [[1], [0]]),
        (MultiBinary(2), (2, 2), [1, 0, 0, 1], [0, 1]),
    ],
)
def test_several_variables_are_one_hot_vectors_in_a_row(space, classes, flat, expected):
    codec = ActionCodec(space)
    assert codec.parts == (ActionPart("action", "discrete", len(classes), classes),)
    action = codec.decode(vector(*flat))
    assert action.tolist() == expected and action.dtype == space.dtype and space.contains(action)


def test_nested_actions_are_laid_out_by_name():
    space = Dict({"turn": Box(-2, 2, (1,)), "act": Dict({"jump": Discrete(2), "arm": Tuple((Discrete(3),))})})
    codec = ActionCodec(space)
    assert [(part.name, part.width) for part in codec.parts] == [("act/arm/0", 3), ("act/jump", 2), ("turn", 1)]
    action = codec.decode(vector(0, 0, 1, 0, 1, 0.5))
    assert action["act"]["arm"] == (2,) and action["act"]["jump"] == 1 and action["turn"].tolist() == [1]
    assert space.contains(action)


@pytest.mark.parametrize(
    "space",
    [
        Box(-3, 5, (2, 2), np.float32),
        Box(0, 9, (3,), np.int16),
        Discrete(4, start=2),
        MultiDiscrete([[2, 3], [4, 5]]),
        MultiBinary((2, 2)),
        Dict({"b": Discrete(3), "a": Tuple((Box(-1, 4, (2,)), MultiBinary(1)))}),
    ],
)
def test_encode_is_the_inverse_of_decode(space):
    codec = ActionCodec(space)
    space.seed(0)
    for _ in range(20):
        action = space.sample()
        flat = codec.encode(action)
        assert flat.shape == (codec.width,) and flat.dtype == np.float32 and np.abs(flat).max() <= 1
        again = codec.decode(flat)
        assert space.contains(again)
        left, right = gymnasium.spaces.flatten(space, action), gymnasium.spaces.flatten(space, again)
        np.testing.assert_allclose(left, right, atol=1e-6)


def test_equal_bounds_are_allowed():
    codec = ActionCodec(Box(2, 2, (1,)))
    assert codec.decode(vector(0.3)).tolist() == [2]
    assert np.isfinite(codec.encode(np.array([2], np.float32))).all()


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (Box(-np.inf, np.inf, (2,)), ["infinite bounds", "TransformAction", "Box(-1, 1, (2,))"]),
        (Dict({"force": Box(0, np.inf, (1,))}), ["'force'", "infinite bounds"]),
        (Box(-3e38, 3e38, (1,)), ["infinite bounds"]),
        (Box(-np.inf, np.inf, (1,), np.int64), ["infinite bounds"]),
        (gymnasium.spaces.Text(3), ["Text", "supported are"]),
        (Dict({"say": gymnasium.spaces.Text(3)}), ["'say'", "Text", "supported are"]),
        (Box(-1, 1, (0,)), ["no entries"]),
        (Dict({}), ["no members"]),
        (Discrete(100_000), ["100000 classes"]),
        (Dict({"a/b": Discrete(2), "a": Dict({"b": Discrete(2)})}), ["'a/b'", "rename"]),
    ],
)
def test_spaces_that_are_refused(space, words):
    with pytest.raises(SpaceError) as caught:
        ActionCodec(space)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("flat", "words"),
    [
        (vector(np.nan, 0), ["nan", "not finite"]),
        (vector(0, np.inf), ["inf", "not finite"]),
        (vector(0, 0, 0), ["(3,)", "(2,)"]),
        (np.zeros((1, 2), np.float32), ["(1, 2)", "(2,)"]),
    ],
)
def test_vectors_that_are_refused(flat, words):
    with pytest.raises(EnvironmentProblem) as caught:
        ActionCodec(Discrete(2)).decode(flat)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("space", "action"),
    [
        (Discrete(2), 2),
        (Discrete(2), 0.5),
        (Box(-1, 1, (2,)), np.zeros(3)),
        (Box(-1, 1, (1,)), np.array([np.nan])),
        (Dict({"a": Discrete(2)}), {}),
        (Dict({"a": Discrete(2)}), 1),
    ],
)
def test_actions_that_do_not_belong_to_the_space(space, action):
    with pytest.raises(EnvironmentProblem, match="does not belong to the action space"):
        ActionCodec(space).encode(action)


def test_random_actions_cover_every_class():
    space = Dict({"a": Box(-1, 1, (2,)), "b": MultiDiscrete([2, 3])})
    interface = interface_of(Discrete(2), space)
    generator = np.random.default_rng(0)
    actions = np.stack([random_action(interface, generator) for _ in range(200)])
    assert actions.shape == (200, 7) and actions.dtype == np.float32 and interface.action_width == 7
    np.testing.assert_array_equal(actions[:, 2:4].sum(1), 1)
    np.testing.assert_array_equal(actions[:, 4:].sum(1), 1)
    assert (actions[:, 2:].sum(0) > 0).all() and np.abs(actions[:, :2]).max() <= 1
