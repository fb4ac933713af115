import dataclasses

import pytest
import torch
from agent_helpers import ATARI, CRAFTER, WALKER, counts, small

from reverie.agents.dreamer_v3 import SIZES, DreamerV3Config
from reverie.agents.dreamer_v3_2023 import SIZES as SIZES_2023
from reverie.agents.dreamer_v3_2023 import DreamerV3In2023Config
from reverie.optim.grouped_adam import GroupedAdam
from reverie.optim.laprop import LaProp

# ---------------------------------------------------------------- sizes


def test_parameters_of_every_module_for_vectors():
    assert counts(DreamerV3Config(size="1m"), WALKER) == {
        "encoder": 10_112,
        "rssm": 364_416,
        "decoder": 51_096,
        "reward": 57_663,
        "continue": 41_153,
        "actor": 50_316,
        "critic": 66_111,
        "total": 640_867,
    }


def test_parameters_of_every_module_for_images():
    assert counts(DreamerV3Config(size="1m"), CRAFTER) == {
        "encoder": 14_304,
        "rssm": 377_408,
        "decoder": 80_595,
        "reward": 57_663,
        "continue": 41_153,
        "actor": 50_641,
        "critic": 66_111,
        "total": 687_875,
    }


def test_parameters_of_12m():
    assert counts(DreamerV3Config(size="12m"), WALKER)["total"] == 9_738_019
    assert counts(DreamerV3Config(size="12m"), CRAFTER)["total"] == 10_498_259


@pytest.mark.parametrize(
    ("size", "vector", "image", "atari"),
    [
        # Millions, measured on the official code and rounded to the last digit shown.
        ("1m", "0.641", "0.688", "0.770"),
        ("12m", "9.74", "10.50", "11.81"),
        ("25m", "21.8", "23.5", "26.4"),
        ("50m", "38.6", "41.7", "46.9"),
        ("100m", "86.6", "93.5", "105.3"),
        ("200m", "153.8", "166.0", "186.9"),
        ("400m", "345.5", "372.9", "420.1"),
    ],
)
def test_parameters_of_every_size(size, vector, image, atari):
    for interface, millions in ((WALKER, vector), (CRAFTER, image), (ATARI, atari)):
        total = counts(DreamerV3Config(size=size), interface)["total"] / 1e6
        digits = len(millions.split(".")[1])
        assert f"{total:.{digits}f}" == millions


@pytest.mark.parametrize(("size", "total"), [("100k", 117_443), ("200k", 203_171)])
def test_our_sizes_have_about_what_their_names_say(size, total):
    assert counts(DreamerV3Config(size=size), WALKER)["total"] == total


@pytest.mark.parametrize(
    ("size", "total"),
    [("xs", 8_268_083), ("s", 17_934_227), ("m", 36_910_547), ("l", 76_765_715), ("xl", 200_743_571)],
)
def test_parameters_of_2023_for_images(size, total):
    assert counts(DreamerV3In2023Config(size=size), CRAFTER)["total"] == total


@pytest.mark.parametrize(
    ("size", "total"), [("s", 18_708_003), ("m", 28_486_563), ("l", 52_164_387), ("xl", 127_567_395)]
)
def test_parameters_of_2023_for_vectors(size, total):
    # The official presets leave the vector networks at 5 x 1024 in every size.
    assert counts(DreamerV3In2023Config(size=size, vector_units=1024), WALKER)["total"] == total


def test_parameters_of_every_module_in_2023():
    image = counts(DreamerV3In2023Config(size="s"), CRAFTER)
    assert [image[name] for name in ("encoder", "rssm", "decoder", "reward", "continue", "actor", "critic")] == [
        690_624,
        5_784_576,
        6_985_667,
        1_181_439,
        1_051_137,
        1_059_345,
        1_181_439,
    ]
    vector = counts(DreamerV3In2023Config(size="s", vector_units=1024), WALKER)
    assert [vector[name] for name in ("encoder", "rssm", "decoder", "actor")] == [
        4_229_120,
        4_206_080,
        5_802_008,
        1_056_780,
    ]


def test_numbers_of_the_sizes():
    # Extended data table 3: deterministic, hidden, classes, depth, units.
    assert SIZES["1m"] == (512, 64, 4, 4, 64)
    assert SIZES["12m"] == (2048, 256, 16, 16, 256)
    assert SIZES["25m"] == (3072, 384, 24, 24, 384)
    assert SIZES["50m"] == (4096, 512, 32, 32, 512)
    assert SIZES["100m"] == (6144, 768, 48, 48, 768)
    assert SIZES["200m"] == (8192, 1024, 64, 64, 1024)
    assert SIZES["400m"] == (12288, 1536, 96, 96, 1536)
    # Table B.1 of 2023: deterministic, units, depth, layers.
    assert SIZES_2023["xs"] == (256, 256, 24, 1)
    assert SIZES_2023["s"] == (512, 512, 32, 2)
    assert SIZES_2023["m"] == (1024, 640, 48, 3)
    assert SIZES_2023["l"] == (2048, 768, 64, 4)
    assert SIZES_2023["xl"] == (4096, 1024, 96, 5)


def test_sizes_can_be_overridden_one_by_one():
    assert DreamerV3Config(size="12m", units=32, classes=8).widths() == (2048, 256, 8, 16, 32)
    assert DreamerV3In2023Config(size="s", depth=8).widths() == (512, 512, 8, 2)


# ---------------------------------------------------------------- published settings

PUBLISHED = {
    "variables": 32,
    "blocks": 8,
    "uniform_mix": 0.01,
    "actor_uniform_mix": 0.01,
    "batch_size": 16,
    "batch_length": 64,
    "replay_context": 1,
    "replay_ratio": 32.0,
    "learning_rate": 4e-5,
    "learning_rate_warmup": 1000,
    "gradient_clip": 0.3,
    "horizon": 15,
    "discount_horizon": 333.0,
    "return_mix": 0.95,
    "entropy": 3e-4,
    "dynamics_scale": 1.0,
    "representation_scale": 0.1,
    "free_nats": 1.0,
    "slow_critic_rate": 0.02,
    "slow_critic_weight": 1.0,
    "replay_value_scale": 0.3,
}
PUBLISHED_2023 = {
    "vector_layers": 5,
    "variables": 32,
    "classes": 32,
    "uniform_mix": 0.01,
    "batch_size": 16,
    "batch_length": 64,
    "replay_ratio": 64.0,
    "replay_capacity": 1_000_000,
    "model_learning_rate": 1e-4,
    "behavior_learning_rate": 3e-5,
    "horizon": 15,
    "discount_horizon": 333.0,
    "return_mix": 0.95,
    "entropy": 3e-4,
    "dynamics_scale": 0.5,
    "representation_scale": 0.1,
    "free_nats": 1.0,
    "slow_critic_rate": 0.02,
    "slow_critic_weight": 1.0,
}


@pytest.mark.parametrize(("field", "value"), PUBLISHED.items())
def test_published_default(field, value):
    assert getattr(DreamerV3Config(), field) == value


@pytest.mark.parametrize(("field", "value"), PUBLISHED_2023.items())
def test_published_default_of_2023(field, value):
    assert getattr(DreamerV3In2023Config(), field) == value


def test_no_setting_escapes_the_two_lists_above():
    """A new field must be pinned there or named here, where it is not the paper's."""
    ours = {"size", "deterministic", "hidden", "classes", "depth", "units", "replay_capacity", "warmup_steps"}
    ours |= {"learning_rate_decay", "learning_rate_floor", "warmup_actions"}
    assert {f.name for f in dataclasses.fields(DreamerV3Config)} == PUBLISHED.keys() | ours
    ours = {"size", "deterministic", "units", "depth", "layers", "vector_units", "warmup_steps", "warmup_actions"}
    assert {f.name for f in dataclasses.fields(DreamerV3In2023Config)} == PUBLISHED_2023.keys() | ours


def test_settings_reach_the_parts():
    agent = small()
    settings, scales = agent.behavior.settings, agent.world_model.scales
    assert settings.discount == 1.0  # the continue head has learned it
    assert scales.continue_discount == settings.replay_discount == pytest.approx(1 - 1 / 333)
    assert (scales.dynamics, scales.representation, scales.free_nats) == (1.0, 0.1, 1.0)
    assert (settings.estimator, settings.start_continue, settings.continue_value) == (
        "reinforce",
        "predicted",
        "probability",
    )
    assert (settings.mix, settings.entropy, settings.slow_rate, settings.slow_weight) == (0.95, 3e-4, 0.02, 1.0)
    assert settings.replay_value == 0.3
    assert agent.replay_context == 1
    assert isinstance(agent.optimizer, LaProp)
    assert (agent.optimizer.rate, agent.optimizer.clip, agent.optimizer.warmup) == (4e-5, 0.3, 1000)
    normalizer = agent.behavior.normalizer
    assert (normalizer.rate, normalizer.limit) == (0.01, 1.0)
    assert normalizer.percentiles.tolist() == pytest.approx([0.05, 0.95])


def test_settings_of_2023_reach_the_parts():
    agent = small(2023)
    settings, scales = agent.behavior.settings, agent.world_model.scales
    assert settings.discount == pytest.approx(1 - 1 / 333)
    assert (scales.dynamics, scales.representation, scales.free_nats) == (0.5, 0.1, 1.0)
    assert scales.continue_discount == 1.0
    assert (settings.start_continue, settings.continue_value, settings.replay_value) == ("true", "mode", 0.0)
    assert agent.replay_context == 0
    assert isinstance(agent.optimizer, GroupedAdam)
    rates = {name: adam.param_groups[0]["lr"] for name, adam in agent.optimizer.optimizers.items()}
    epsilons = {name: adam.param_groups[0]["eps"] for name, adam in agent.optimizer.optimizers.items()}
    assert rates == {"world_model": 1e-4, "actor": 3e-5, "critic": 3e-5}
    assert epsilons == {"world_model": 1e-8, "actor": 1e-5, "critic": 1e-5}
    assert agent.optimizer.clips == {"world_model": 1000.0, "actor": 100.0, "critic": 100.0}


@pytest.mark.parametrize(("interface", "estimator"), [(WALKER, "dynamics"), (CRAFTER, "reinforce")])
def test_actor_gradient_of_2023_depends_on_the_actions(interface, estimator):
    with torch.device("meta"):
        agent = DreamerV3In2023Config(size="nano").build(interface)
    assert agent.behavior.settings.estimator == estimator


def test_the_optimizers_own_every_trained_weight_once():
    for year in (2025, 2023):
        agent = small(year)
        if year == 2025:
            owned = agent.optimizer.parameters
        else:
            owned = [p for members in agent.optimizer.parameters.values() for p in members]
        trained = [p for p in agent.parameters() if p.requires_grad]
        assert len(owned) == len({id(p) for p in owned}) == len(trained)
        assert {id(p) for p in owned} == {id(p) for p in trained}
        assert sum(p.numel() for p in trained) == agent.count_parameters()["total"]
