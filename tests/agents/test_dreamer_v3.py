import dataclasses
import json
import os
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from reverie.agents.dreamer_v3 import SIZES, DreamerV3Config
from reverie.agents.dreamer_v3_2023 import SIZES as SIZES_2023
from reverie.agents.dreamer_v3_2023 import DreamerV3In2023Config
from reverie.agents.imagination_agent import PolicyState
from reverie.agents.registry import AGENTS, config_class, make_config
from reverie.errors import CheckpointError, ConfigError
from reverie.optim.grouped_adam import GroupedAdam
from reverie.optim.laprop import LaProp
from reverie.spaces import ActionPart, Interface, ObservationPart

# The three interfaces of the reference counts: walker with its 24 numbers and 6 actions, Crafter, and Atari in gray.
WALKER = Interface(
    (
        ObservationPart("orientations", "vector", (14,)),
        ObservationPart("height", "vector", (1,)),
        ObservationPart("velocity", "vector", (9,)),
    ),
    (ActionPart("action", "continuous", 6),),
)
CRAFTER = Interface((ObservationPart("image", "image", (64, 64, 3)),), (ActionPart("action", "discrete", 1, (17,)),))
ATARI = Interface((ObservationPart("image", "image", (96, 96, 1)),), (ActionPart("action", "discrete", 1, (18,)),))
SMALL = {"deterministic": 16, "hidden": 8, "classes": 4, "units": 8, "variables": 4, "blocks": 4, "depth": 4}
MIXED = Interface(
    (
        ObservationPart("camera", "image", (33, 50, 3)),
        ObservationPart("inventory", "discrete", (2,), (3, 5)),
        ObservationPart("speed", "vector", (2,)),
    ),
    (ActionPart("move", "continuous", 2), ActionPart("tool", "discrete", 2, (3, 2))),
)


def counts(config, interface):
    with torch.device("meta"):
        return config.build(interface).count_parameters()


def small(year=2025, interface=MIXED, **values):
    torch.manual_seed(0)
    if year == 2025:
        config = DreamerV3Config(**{**SMALL, "horizon": 3, **values})
    else:
        config = DreamerV3In2023Config(
            deterministic=16, units=8, depth=4, layers=1, variables=4, classes=4, horizon=3, **values
        )
    agent = config.build(interface)
    agent.optimizer = config.build_optimizer(agent)
    return agent


def random_batch(agent, batch=2, steps=5):
    generator = np.random.default_rng(0)
    length = steps + agent.replay_context
    data = {}
    for part in agent.interface.observations:
        shape = (batch, length, *part.shape)
        if part.kind == "vector":
            data[part.name] = generator.normal(size=shape).astype(np.float32)
        else:
            data[part.name] = generator.integers(0, min(part.classes, default=256), shape).astype(part.dtype)
    data["action"] = generator.uniform(-1, 1, (batch, length, agent.interface.action_width)).astype(np.float32)
    data["reward"] = generator.normal(size=(batch, length)).astype(np.float32)
    for flag in ("is_first", "is_last", "is_terminal"):
        data[flag] = np.zeros((batch, length), bool)
    data["is_last"][0, 2], data["is_first"][0, 3] = True, True
    if agent.replay_context:
        for name, (shape, dtype) in agent.latent_fields.items():
            data[name] = generator.integers(0, 4, (batch, length, *shape)).astype(dtype)
    return {name: torch.from_numpy(value) for name, value in data.items()}


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


def test_our_smallest_size_is_about_100k():
    assert 80_000 < counts(DreamerV3Config(size="100k"), WALKER)["total"] < 250_000


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
    assert {f.name for f in dataclasses.fields(DreamerV3Config)} == PUBLISHED.keys() | ours
    ours = {"size", "deterministic", "units", "depth", "layers", "vector_units", "warmup_steps"}
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


def test_the_optimisers_own_every_trained_weight_once():
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


# ---------------------------------------------------------------- the registry


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


# ---------------------------------------------------------------- the verbs


@pytest.mark.parametrize("year", [2025, 2023])
def test_update_learns_and_reports(year):
    agent = small(year, learning_rate_warmup=0) if year == 2025 else small(year)
    batch = random_batch(agent)
    kept = {name: value.clone() for name, value in batch.items()}
    before = {name: p.detach().clone() for name, p in agent.named_parameters()}
    metrics, latents = agent.update(batch)
    terms = ["reconstruction/camera", "reconstruction/inventory", "reconstruction/speed", "reward", "continue"]
    terms += ["dynamics", "representation", "policy", "value"] + (["replay_value"] if year == 2025 else [])
    assert {name for name in metrics if name.startswith("loss/")} == {f"loss/{t}" for t in [*terms, "total"]}
    for name, value in metrics.items():
        assert value.shape == (), name
        assert torch.isfinite(value), name
        assert not value.requires_grad, name
    total = sum(metrics[f"loss/{term}"] for term in terms)
    torch.testing.assert_close(metrics["loss/total"], total)
    fields = agent.latent_fields
    assert set(latents) == set(fields)
    for name, (shape, dtype) in fields.items():
        assert latents[name].shape == (2, 5, *shape)
        assert latents[name].numpy().dtype == dtype
    changed = {name for name, p in agent.named_parameters() if not torch.equal(p, before[name])}
    # Every weight that makes or fits reconstructions has moved, and the slow critic has followed the critic.
    for name in before:
        if name.startswith(("world_model.encoder", "world_model.decoder", "world_model.rssm.cell")):
            assert name in changed, name
    assert {"behavior.critic.output.bias", "behavior.slow_critic.output.bias"} <= changed
    # The batch belongs to the caller.
    for name, value in batch.items():
        assert torch.equal(value, kept[name]), name


@pytest.mark.parametrize("year", [2025, 2023])
def test_losses_fall_on_one_batch(year):
    agent = small(year, **({"learning_rate_warmup": 0, "learning_rate": 1e-3} if year == 2025 else {}))
    if year == 2023:
        for adam in agent.optimizer.optimizers.values():
            adam.param_groups[0]["lr"] = 1e-3
    batch = random_batch(agent)
    batch["camera"].fill_(30)  # noise could not be predicted
    totals = []
    for _ in range(40):
        metrics, _ = agent.update(batch)
        totals.append(metrics["loss/reconstruction/camera"].item() + metrics["loss/reward"].item())
    assert totals[-1] < 0.5 * totals[0]


@pytest.mark.parametrize("year", [2025, 2023])
def test_acting_repeats_what_observing_finds(year):
    """Acting step by step and filtering the same rows give the same latents: actions are shifted alike."""
    agent = small(year)
    batch = random_batch(agent, steps=6)
    batch["is_first"][:, agent.replay_context] = True
    batch, states, _ = agent.observe(batch, deterministic=True)
    state = None
    for t in range(6):
        observation = {part.name: batch[part.name][:, t] for part in MIXED.observations}
        _, state = agent.act(observation, batch["is_first"][:, t], state, deterministic=True)
        torch.testing.assert_close(state.latent.deterministic, states.deterministic[:, t], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(state.latent.stochastic, states.stochastic[:, t])
        # Go on as if the recorded action had been chosen.
        state = PolicyState(state.latent, batch["action"][:, t])


def test_a_window_starts_from_the_stored_latents_of_its_context():
    agent = small()
    batch = random_batch(agent)
    _, states, _ = agent.observe(batch, deterministic=True)
    rssm = agent.world_model.rssm
    h, z = batch["deterministic"][:, 0].float(), rssm.latent.expand(batch["stochastic"][:, 0], torch.float32)
    cell = rssm.cell
    first = cell(h, z, cell.embed_action(batch["action"][:, 0]), cell.prepare(torch.float32))
    torch.testing.assert_close(states.deterministic[:, 0], first, rtol=1e-4, atol=1e-5)
    # Nothing else of the context row matters.
    for name in ("reward", "speed", "camera"):
        batch[name][:, 0] = 0
    _, others, _ = agent.observe(batch, deterministic=True)
    assert torch.equal(others.deterministic, states.deterministic)


def test_a_window_of_2023_starts_like_an_episode():
    agent = small(2023)
    batch = random_batch(agent)
    _, states, _ = agent.observe(batch, deterministic=True)
    forced = {**batch, "is_first": batch["is_first"].clone()}
    forced["is_first"][:, 0] = True
    _, others, _ = agent.observe(forced, deterministic=True)
    assert torch.equal(others.deterministic, states.deterministic)


def test_continue_target_is_the_discount_where_the_episode_goes_on():
    # Truncation (is_last alone) goes on; termination does not. Cross entropy of logit l and target y.
    for year, target in ((2025, 1 - 1 / 333), (2023, 1.0)):
        agent = small(year)
        batch = random_batch(agent)
        batch["is_last"][1, 4] = batch["is_terminal"][1, 4] = True
        batch, states, logits = agent.observe(batch, deterministic=True)
        terms, _ = agent.world_model.loss(batch, states, logits)
        logit = agent.world_model.continuation(states.feature)
        expected = torch.where(batch["is_terminal"], 0.0, target)
        bce = torch.nn.functional.binary_cross_entropy_with_logits(logit, expected, reduction="none")
        torch.testing.assert_close(terms["continue"], bce)
        assert batch["is_terminal"].sum() == 1
        assert batch["is_last"].sum() == 2


def test_kl_terms_are_clipped_and_weighted():
    # New networks: posterior and prior are close, so both halves sit at the free nats: 1.0 and 0.1.
    agent = small()
    for module in (agent.world_model.rssm.prior_logits, agent.world_model.rssm.posterior_logits):
        torch.nn.init.zeros_(module.weight)
    batch, states, logits = agent.observe(random_batch(agent))
    terms, metrics = agent.world_model.loss(batch, states, logits)
    assert (terms["dynamics"] == 1.0).all()
    torch.testing.assert_close(terms["representation"], torch.full((2, 5), 0.1))
    assert metrics["world_model/kl"].item() == pytest.approx(0, abs=1e-6)
    # Uniform over 4 classes, 4 variables: 4 ln 4 = 5.545177 nats.
    assert metrics["world_model/prior_entropy"].item() == pytest.approx(5.545177, abs=1e-4)


def test_the_policy_is_sampled_unless_asked_otherwise():
    agent = small()
    observation = {part.name: torch.zeros(64, *part.shape).to(torch.int32) for part in MIXED.observations}
    first = torch.ones(64, dtype=torch.bool)
    sampled, _ = agent.act(observation, first)
    assert sampled[:, :2].std(0).min() > 0.3
    certain, _ = agent.act(observation, first, deterministic=True)
    assert certain.std(0).max() < 1e-6


# ---------------------------------------------------------------- save and load


@pytest.mark.parametrize("year", [2025, 2023])
def test_weights_round_trip(year, tmp_path):
    agent, other = small(year), small(year)
    for _ in range(2):
        agent.update(random_batch(agent))
    agent.behavior.normalizer.high.fill_(7.0)
    agent.save(tmp_path / "agent.safetensors")
    other.load(tmp_path / "agent.safetensors")
    for (name, one), (_, two) in zip(agent.state_dict().items(), other.state_dict().items(), strict=True):
        assert torch.equal(one, two), name
    assert other.behavior.normalizer.high.item() == 7.0
    batch = random_batch(agent)
    assert torch.equal(
        agent.observe(batch, deterministic=True)[2],
        other.observe(batch, deterministic=True)[2],
    )


def refuses(agent, path, match):
    before = {name: value.clone() for name, value in agent.state_dict().items()}
    with pytest.raises(CheckpointError, match=match):
        agent.load(path)
    for name, value in agent.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} was changed"


def test_damaged_files_are_refused(tmp_path):
    agent, path = small(), tmp_path / "agent.safetensors"
    agent.save(path)
    whole = path.read_bytes()
    for length in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refuses(agent, path, "cannot be read as safetensors")
    path.write_bytes(os.urandom(1000))
    refuses(agent, path, "cannot be read")
    # A header that claims tensors beyond the end of the file.
    header = json.dumps({"x": {"dtype": "F32", "shape": [10**6], "data_offsets": [0, 4 * 10**6]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 8)
    refuses(agent, path, "cannot be read")
    refuses(agent, tmp_path / "nothing.safetensors", "nothing.safetensors")


def test_foreign_files_are_refused(tmp_path):
    agent, path = small(), tmp_path / "agent.safetensors"
    small(units=12).save(path)
    refuses(agent, path, "another configuration")
    small(2023).save(path)
    refuses(agent, path, "another configuration")
    save_file({"weight": torch.ones(3)}, path)
    refuses(agent, path, "another configuration")
    agent.save(path)
    tensors = load_file(path)
    name = sorted(tensors)[5]
    save_file({key: value for key, value in tensors.items() if key != name}, path)
    refuses(agent, path, name)


def test_a_pickle_is_refused(tmp_path):
    agent, path = small(), tmp_path / "agent.safetensors"
    torch.save(agent.state_dict(), path)
    refuses(agent, path, "cannot be read as safetensors")
