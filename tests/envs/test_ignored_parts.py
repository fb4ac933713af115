"""Parts that are left out of observations, because the user says so or because no agent can read them."""

import warnings

import gymnasium
import numpy as np
import pytest
from env_helpers import ONE, Scripted, one_hot
from gymnasium.spaces import Box, Dict, Discrete, Graph, OneOf, Sequence, Text, Tuple

from reverie.envs import EnvironmentAdapter, EnvironmentSource, make
from reverie.errors import ConfigError, SpaceError

PICTURE = Box(0, 255, (40, 48, 3), np.uint8)


class Mission(gymnasium.Space):
    """A space of its own, as MiniGrid has one for its missions."""

    def sample(self, mask=None, probability=None):
        return "go"

    def contains(self, x):
        return isinstance(x, str)


GRAPH = Graph(node_space=Box(-1, 1, (3,)), edge_space=None, seed=0)
UNREADABLE = [Text(5, seed=0), GRAPH, Sequence(Discrete(3), seed=0), OneOf([Discrete(2), ONE], seed=0), Mission()]
NAMES = [type(space).__name__ for space in UNREADABLE]


def shows(space, observation, **settings):
    return make(lambda: Scripted(observation, space=space), **settings)


@pytest.mark.parametrize("unreadable", UNREADABLE, ids=NAMES)
def test_what_no_agent_can_read_is_left_out_with_one_warning(unreadable):
    space = Dict({"place": ONE, "mission": unreadable})
    seen = {"place": np.ones(1, np.float32), "mission": unreadable.sample()}
    source = EnvironmentSource(lambda: Scripted(seen, space=space))
    with pytest.warns(UserWarning, match=rf"'mission' \({type(unreadable).__name__}\).*--ignore mission") as caught:
        adapters = [source.make() for _ in range(3)]
    assert len(caught) == 1
    for adapter in adapters:
        assert [part.name for part in adapter.interface.observations] == ["place"]
        assert list(adapter.reset(0)) == list(adapter.step(one_hot(0))[0]) == ["place"]
        assert list(adapter.encode_observation(seen)) == list(adapter.encode_observation({"place": seen["place"]}))
        assert adapter.environment.observation_space == Dict({"place": ONE})


@pytest.mark.parametrize("unreadable", UNREADABLE, ids=NAMES)
def test_what_no_agent_can_read_is_refused_where_nothing_else_is_there(unreadable):
    for space in (unreadable, Dict({"mission": unreadable}), Tuple([unreadable, unreadable])):
        with pytest.raises(SpaceError, match=type(unreadable).__name__):
            shows(space, None)


def test_what_the_user_says_of_a_part_is_not_overruled():
    with pytest.raises(SpaceError, match="'mission' is Text"):
        shows(Dict({"place": ONE, "mission": Text(5)}), None, parts={"mission": "vector"})


def test_an_adapter_of_its_own_leaves_them_out_too():
    environment = Scripted({"a": np.zeros(1, np.float32), "b": "x"}, space=Dict({"a": ONE, "b": Text(3)}))
    with pytest.warns(UserWarning, match="no agent can read 'b'"):
        adapter = EnvironmentAdapter(environment)
    assert list(adapter.reset(0)) == ["a"]


@pytest.mark.parametrize(
    ("ignore", "left"),
    [
        (["a"], ["b/c", "b/d", "e/0", "e/1"]),
        ("a", ["b/c", "b/d", "e/0", "e/1"]),
        (("b",), ["a", "e/0", "e/1"]),
        (["b/d", "e/0"], ["a", "b/c", "e/1"]),
        (["e", "a", "b/c"], ["b/d"]),
        ([], ["a", "b/c", "b/d", "e/0", "e/1"]),
    ],
)
def test_named_parts_are_ignored(ignore, left):
    space = Dict({"a": ONE, "b": Dict({"c": ONE, "d": Discrete(3)}), "e": Tuple([ONE, ONE])})
    seen = {name: np.full(1, value, np.float32) for value, name in enumerate(["a", "b/c", "b/d", "e/0", "e/1"])}
    whole = {"a": seen["a"], "b": {"c": seen["b/c"], "d": 2}, "e": (seen["e/0"], seen["e/1"])}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapter = shows(space, whole, ignore=ignore)
    observation = adapter.reset(0)
    assert list(observation) == left
    assert all(observation[name][0] == seen[name][0] for name in left)
    decoded = adapter.decode_observation(observation)
    assert adapter.environment.observation_space.contains(decoded)
    assert all(np.array_equal(adapter.encode_observation(decoded)[name], observation[name]) for name in left)


def test_parts_beside_a_picture_that_is_resized():
    seen = {"view": np.full((40, 48, 3), 7, np.uint8), "text": "x", "speed": np.zeros(1, np.float32)}
    space = Dict({"view": PICTURE, "text": Text(3), "speed": ONE})
    adapter = shows(space, seen, image_size=32, ignore=["text", "speed"])
    assert [(part.name, part.shape) for part in adapter.interface.observations] == [("view", (32, 32, 3))]
    assert (adapter.encode_observation(seen)["view"] == adapter.reset(0)["view"]).all()


@pytest.mark.parametrize(
    ("ignore", "words"),
    [
        (["missing"], "'missing', but the parts of the observation are a, b"),
        (["a", "b"], "all parts"),
        (3, "list of names"),
        ([1], "list of names"),
    ],
)
def test_names_that_cannot_be_ignored(ignore, words):
    with pytest.raises(ConfigError, match=words):
        shows(Dict({"a": ONE, "b": ONE}), None, ignore=ignore)


def test_a_recipe_keeps_what_it_ignores():
    source = EnvironmentSource("CartPole-v1", ignore=["a"])
    assert EnvironmentSource.from_json(source.to_json()).ignore == ("a",)
    assert EnvironmentSource.from_json(source.to_json(), ignore=()).ignore == ()
    older = {key: value for key, value in source.to_json().items() if key != "ignore"}
    assert EnvironmentSource.from_json(older).ignore == ()
    assert source.identity() == EnvironmentSource("CartPole-v1").identity()


def test_an_agent_learns_and_dreams_without_them(tmp_path):
    import reverie

    class MiniGrid(Scripted):
        def __init__(self):
            picture = Box(0, 255, (7, 7, 3), np.uint8)
            space = Dict({"image": picture, "direction": Discrete(4), "mission": Mission()})
            super().__init__({"image": picture.low, "direction": 1, "mission": "go"}, space=space, length=9)

    small = {"size": "100k", "batch_size": 2, "batch_length": 4, "warmup_steps": 18, "num_envs": 2, "videos": False}
    small |= {"evaluate_every": 0, "evaluation_episodes": 1}
    agent = reverie.DreamerV3(MiniGrid, run=tmp_path / "run", device="cpu", ignore="mission", **small)
    agent.learn(20, progress=False)
    again = reverie.load(tmp_path / "run", environment=MiniGrid)
    assert again.source.ignore == ("mission",)
    observation = MiniGrid().reset(seed=0)[0]
    assert again.predict(observation)[0] in (0, 1)
    dream = again.dream_env(starts=2)
    assert set(dream.reset(seed=0)[0]) == {"image", "direction"}
