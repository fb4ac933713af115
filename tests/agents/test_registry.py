from dataclasses import fields

import pytest
from agent_helpers import CRAFTER, WALKER

from reverie.agents.dreamer_v3 import DreamerV3Config
from reverie.agents.dreamer_v3_2023 import DreamerV3In2023Config
from reverie.agents.registry import AGENTS, config_class, make_config
from reverie.agents.setting_names import ELSEWHERE, nearest_name
from reverie.errors import ConfigError
from reverie.training.settings import TrainSettings


def test_agents_by_name():
    assert config_class("dreamer-v3") is DreamerV3Config
    assert config_class("dreamer-v3-2023") is DreamerV3In2023Config
    for name in AGENTS:
        assert config_class(name).name == name


@pytest.mark.parametrize(
    ("given", "nearest"), [("dreamerv3", "dreamer-v3"), ("dreamer_v3", "dreamer-v3"), ("dreamer-2023", "-2023")]
)
def test_an_unknown_agent_names_the_nearest(given, nearest):
    with pytest.raises(ConfigError, match=f"{given}.*did you mean.*{nearest}"):
        config_class(given)
    with pytest.raises(ConfigError, match="xyzzy.*choose one of dreamer-v3"):
        config_class("xyzzy")


@pytest.mark.parametrize(
    ("given", "nearest"),
    [("learning_rat", "learning_rate"), ("batch", "batch_size"), ("lenght", "batch_length"), ("gradclip", "_clip")],
)
def test_an_unknown_setting_names_the_nearest(given, nearest):
    with pytest.raises(ConfigError, match=f"dreamer-v3 has no setting '{given}'; did you mean '.*{nearest}"):
        make_config("dreamer-v3", {given: 1})


def test_an_unknown_size_names_the_sizes():
    with pytest.raises(ConfigError, match="size.*1m, 12m.*'13m'"):
        make_config("dreamer-v3", {"size": "13m"})
    with pytest.raises(ConfigError, match="size.*xs, s, m, l, xl.*'12m'"):
        make_config("dreamer-v3-2023", {"size": "12m"})


@pytest.mark.parametrize(
    "values",
    [
        {"batch_size": 0},
        {"batch_length": 1},
        {"horizon": 0},
        {"learning_rate": -1e-3},
        {"entropy": -0.1},
        {"replay_ratio": 0},
        {"units": 0},
    ],
)
def test_values_that_cannot_work_are_refused(values):
    (name,) = values
    with pytest.raises(ConfigError, match=name):
        make_config("dreamer-v3", values)


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match="multiple of the number of blocks"):
        make_config("dreamer-v3", {"size": "100k", "deterministic": 100}).build(WALKER)


def test_image_channels_that_do_not_divide_are_refused():
    # The last stage has 4 x 3 = 12 channels for 8 blocks.
    with pytest.raises(ConfigError, match="12 channels .* 8 blocks"):
        make_config("dreamer-v3", {"size": "100k", "depth": 3}).build(CRAFTER)


def test_good_values_are_kept():
    config = make_config("dreamer-v3", {"size": "12m", "horizon": 7})
    assert (config.size, config.horizon, config.entropy) == ("12m", 7, 3e-4)


@pytest.mark.parametrize(
    ("agent", "given", "meant"),
    [
        ("dreamer-v3", "imagination_horizon", "horizon"),
        ("dreamer-v3", "lr", "learning_rate"),
        ("dreamer-v2", "learning-rate", "model_learning_rate"),
        ("dreamer-v3", "gamma", "discount_horizon"),
        ("dreamer-v1", "gamma", "discount"),
        ("planet", "seed_steps", "random_episodes"),
        ("dreamer-v3", "horizn", "horizon"),
    ],
)
def test_names_of_other_libraries(agent, given, meant):
    known = {field.name for field in fields(config_class(agent))}
    assert nearest_name(given, known) == meant
    with pytest.raises(ConfigError, match=f"did you mean '{meant}'"):
        make_config(agent, {given: 1})


def test_every_right_name_is_one():
    known = {field.name for agent in AGENTS for field in fields(config_class(agent))}
    known |= {field.name for field in fields(TrainSettings)} | {"run", "env"}
    assert {name for names in ELSEWHERE.values() for name in names} <= known
