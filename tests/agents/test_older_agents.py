"""PlaNet, Dreamer v1 and DreamerV2: parameter counts, published settings, and how settings reach the parts."""

import dataclasses

import pytest
import torch
from agent_helpers import MIXED, counts, random_batch

from reverie.agents import dreamer_v1, dreamer_v2, planet
from reverie.agents.dreamer_v1 import DreamerV1Config
from reverie.agents.dreamer_v2 import DreamerV2Config
from reverie.agents.imagination_agent import PolicyState
from reverie.agents.planet import PlaNetConfig
from reverie.agents.registry import make_config, presets
from reverie.agents.schedule import Schedule
from reverie.errors import ConfigError
from reverie.nn.cells import ClassicGRU, Memoryless, ResetAfterGRU
from reverie.nn.latents import CategoricalLatent, GaussianLatent
from reverie.nn.policies import TanhNormal, TruncatedNormal
from reverie.spaces import ActionPart, Interface, ObservationPart

OLDER = {"planet": PlaNetConfig, "dreamer-v1": DreamerV1Config, "dreamer-v2": DreamerV2Config}


def seen(channels, action):
    return Interface((ObservationPart("image", "image", (64, 64, channels)),), (action,))


CONTROL = seen(3, ActionPart("action", "continuous", 6))
GRAY = seen(1, ActionPart("action", "discrete", 1, (18,)))
VECTORS = Interface((ObservationPart("x", "vector", (24,)),), (ActionPart("action", "continuous", 6),))

# ---------------------------------------------------------------- counts


def test_parameters_of_planet():
    code = counts(PlaNetConfig(), CONTROL)
    assert code == {
        "encoder": 690_144,
        "rssm": 557_320,
        "decoder": 3_795_555,
        "reward": 250_201,
        "total": 5_293_220,
    }
    text = counts(make_config("planet", {}, "paper-text"), CONTROL)
    assert (text["reward"], text["total"]) == (86_601, 5_129_620)


def test_parameters_of_dreamer_v1():
    # The log of the official code names 5,296,820 for the model, 578,412 for the actor and 413,601 for the value.
    found = counts(DreamerV1Config(), CONTROL)
    assert (found["actor"], found["critic"]) == (578_412, 413_601)
    assert found["total"] - found["actor"] - found["critic"] == 5_296_820
    assert (found["rssm"], found["reward"]) == (557_920, 253_201)
    # The classic cell has one bias for the two products of a gate: 3 x 200 numbers less.
    assert counts(make_config("dreamer-v1", {}, "tf1"), CONTROL)["rssm"] == 557_320
    # Three layers of 400 on 230 features, and one logit.
    assert counts(DreamerV1Config(continuation=True), CONTROL)["continue"] == 413_601


def test_parameters_of_dreamer_v2_for_atari():
    found = counts(DreamerV2Config(), GRAY)
    assert found == {
        "encoder": 1_549_776,
        "rssm": 5_664_848,
        "decoder": 10_497_553,
        "reward": 1_131_601,
        "continue": 1_131_601,
        "actor": 1_138_418,
        "critic": 1_131_601,
        "total": 19_975_379 + 1_138_418 + 1_131_601,
    }


def test_parameters_of_dreamer_v2_for_control():
    found = counts(make_config("dreamer-v2", {}, "dmc"), CONTROL)
    assert (found["actor"], found["critic"], found["reward"]) == (976_012, 971_601, 971_601)
    # By hand, with 1024 + 6 inputs: 206,200 + GRU 400 x 600 + 600 + norm 1200 + 40,200 + 205,824 + 347,400 + 205,824.
    assert found["rssm"] == 1_247_248
    assert (found["encoder"], found["decoder"]) == (1_551_312, 9_886_611)
    assert "continue" not in found


# ---------------------------------------------------------------- published settings

PLANET = {
    "transition": "both",
    "deterministic": 200,
    "variables": 30,
    "least_deviation": 0.1,
    "hidden": 200,
    "depth": 32,
    "image_bits": 5,
    "reward_layers": 3,
    "reward_units": 300,
    "reward_scale": 10.0,
    "continuation": False,
    "batch_size": 50,
    "batch_length": 50,
    "random_episodes": 5,
    "updates": 100,
    "learning_rate": 1e-3,
    "adam_epsilon": 1e-4,
    "gradient_clip": 1000.0,
    "kl_scale": 1.0,
    "free_nats": 3.0,
    "overshooting_scale": 0.0,
    "overshooting_distance": 49,
    "global_prior_scale": 0.0,
    "horizon": 12,
    "candidates": 1000,
    "iterations": 10,
    "elites": 100,
    "clip_candidates": True,
    "action_noise": 0.3,
}
FIRST = {
    "deterministic": 200,
    "variables": 30,
    "least_deviation": 0.1,
    "hidden": 200,
    "cell": "reset-after",
    "depth": 32,
    "image_bits": None,
    "vector_units": 300,
    "vector_layers": 3,
    "units": 400,
    "reward_layers": 2,
    "actor_layers": 4,
    "critic_layers": 3,
    "continue_layers": 3,
    "batch_size": 50,
    "batch_length": 50,
    "warmup_steps": 2500,
    "update_every": 500,
    "updates": 100,
    "model_learning_rate": 6e-4,
    "actor_learning_rate": 8e-5,
    "critic_learning_rate": 8e-5,
    "adam_epsilon": 1e-7,
    "gradient_clip": 100.0,
    "kl_scale": 1.0,
    "free_nats": 3.0,
    "kl_clip": "batch",
    "reward_transform": "none",
    "representation": "reconstruction",
    "continuation": False,
    "continue_scale": 10.0,
    "value": True,
    "horizon": 15,
    "discount": 0.99,
    "return_mix": 0.95,
    "action_noise": 0.3,
    "epsilon": 0.4,
    "final_epsilon": 0.1,
    "epsilon_decay": 200_000,
}
SECOND = {
    "latent": "categorical",
    "variables": 32,
    "classes": 32,
    "deterministic": 600,
    "hidden": 600,
    "depth": 48,
    "units": 400,
    "reward_layers": 4,
    "continue_layers": 4,
    "actor_layers": 4,
    "critic_layers": 4,
    "vector_layers": 4,
    "vector_units": 400,
    "batch_size": 50,
    "batch_length": 50,
    "replay_ratio": 625.0,
    "replay_capacity": 2_000_000,
    "warmup_steps": 50_000,
    "first_updates": 0,
    "model_learning_rate": 2e-4,
    "actor_learning_rate": 4e-5,
    "critic_learning_rate": 1e-4,
    "adam_epsilon": 1e-5,
    "gradient_clip": 100.0,
    "weight_decay": 1e-6,
    "kl_scale": 0.1,
    "kl_balance": 0.8,
    "free_nats": 0.0,
    "reward_transform": "tanh",
    "reward_scale": 1.0,
    "continuation": True,
    "continue_scale": 1.0,
    "horizon": 15,
    "discount": 0.995,
    "return_mix": 0.95,
    "entropy": 1e-3,
    "actor_gradient": "auto",
    "dynamics_share": 0.1,
    "slow_critic_every": 100,
}
IN_CONTROL = {
    "deterministic": 200,
    "hidden": 200,
    "model_learning_rate": 3e-4,
    "actor_learning_rate": 8e-5,
    "critic_learning_rate": 8e-5,
    "kl_scale": 1.0,
    "free_nats": 1.0,
    "reward_transform": "none",
    "continuation": False,
    "discount": 0.99,
    "entropy": 1e-4,
    "first_updates": 100,
}
PUBLISHED = {
    ("planet", "paper"): PLANET,
    ("planet", "paper-text"): PLANET
    | {"reward_layers": 2, "reward_units": 200, "reward_scale": 1.0, "clip_candidates": False},
    ("planet", "deterministic"): PLANET | {"transition": "deterministic", "kl_scale": 0.0},
    ("planet", "stochastic"): PLANET | {"transition": "stochastic"},
    ("dreamer-v1", "paper"): FIRST,
    ("dreamer-v1", "tf1"): FIRST
    | {"cell": "classic", "image_bits": 8, "adam_epsilon": 1e-4, "kl_clip": "step", "continue_scale": 1.0},
    ("dreamer-v1", "atari"): FIRST | {"horizon": 10, "kl_scale": 0.1, "reward_transform": "tanh", "continuation": True},
    ("dreamer-v1", "no-value"): FIRST | {"value": False},
    ("dreamer-v1", "contrastive"): FIRST | {"representation": "contrastive"},
    ("dreamer-v1", "reward-only"): FIRST | {"representation": "reward"},
    ("dreamer-v2", "paper"): SECOND,
    ("dreamer-v2", "atari"): SECOND
    | {"batch_size": 16, "replay_ratio": 50.0, "discount": 0.999, "continue_scale": 5.0, "first_updates": 1},
    ("dreamer-v2", "dmc"): SECOND | IN_CONTROL | {"batch_size": 16, "replay_ratio": 160.0, "warmup_steps": 1000},
    ("dreamer-v2", "dmc-first"): SECOND
    | IN_CONTROL
    | {
        "latent": "gaussian",
        "variables": 50,
        "depth": 32,
        "reward_layers": 2,
        "critic_layers": 3,
        "reward_scale": 2.0,
        "replay_ratio": 500.0,
        "warmup_steps": 2500,
        "weight_decay": 0.0,
    },
}
OURS = {
    "planet": {"vector_units", "vector_layers", "replay_capacity", "epsilon"},
    "dreamer-v1": {"replay_capacity"},
    "dreamer-v2": set(),
}


@pytest.mark.parametrize("key", PUBLISHED, ids="/".join)
def test_published_settings_field_by_field(key):
    agent, preset = key
    config = make_config(agent, {}, preset)
    for field in dataclasses.fields(config):
        if field.name not in OURS[agent]:
            assert getattr(config, field.name) == PUBLISHED[key][field.name], field.name


@pytest.mark.parametrize("agent", OLDER)
def test_no_preset_and_no_setting_escapes_the_lists_above(agent):
    assert {name for which, name in PUBLISHED if which == agent} | {"quick"} == set(presets(agent))
    listed = PUBLISHED[agent, "paper"].keys() | OURS[agent]
    assert {field.name for field in dataclasses.fields(OLDER[agent])} == listed


# ---------------------------------------------------------------- settings reach the parts


def rates(agent):
    adams = agent.optimizer.optimizers.items()
    return {name: (adam.param_groups[0]["lr"], adam.param_groups[0]["eps"]) for name, adam in adams}


def built(config, interface=VECTORS):
    torch.manual_seed(0)
    agent = config.build(interface)
    agent.optimizer = config.build_optimizer(agent)
    return agent


def test_settings_of_planet_reach_the_parts():
    agent = built(PlaNetConfig())
    scales, rssm = agent.world_model.scales, agent.world_model.rssm
    assert (scales.dynamics, scales.representation, scales.free_nats, scales.average) == (1.0, 1.0, 3.0, False)
    assert (scales.reward, scales.overshooting, scales.global_prior) == (10.0, 0.0, 0.0)
    assert rssm.latent == GaussianLatent(30, "softplus", 0.1)
    assert isinstance(rssm.cell, ClassicGRU)
    assert agent.world_model.image_bits == 5
    assert (rates(agent), agent.optimizer.clips) == ({"world_model": (1e-3, 1e-4)}, {"world_model": 1000.0})
    # TensorFlow's epsilon, which is sqrt(1 / 0.001) = 31.6 times as large in the first step: where the gradient is
    # as large as epsilon, that step is 1 / (1 + 31.6) of the rate.
    weight = next(agent.world_model.parameters())
    before, weight.grad = weight.detach().clone(), torch.full_like(weight, 1e-4)
    agent.optimizer.step()
    assert torch.allclose(before - weight, torch.full_like(weight, 1e-3 / 32.6228), rtol=1e-2)
    assert isinstance(built(PlaNetConfig(transition="stochastic")).world_model.rssm.cell, Memoryless)
    assert built(PlaNetConfig(transition="deterministic")).world_model.rssm.latent.mean_only
    assert PlaNetConfig().schedule() == Schedule(warmup_episodes=5, warmup_actions="random", first=100, per_episode=100)


def test_settings_of_dreamer_v1_reach_the_parts():
    agent = built(DreamerV1Config())
    settings, scales = agent.behavior.settings, agent.world_model.scales
    assert (scales.dynamics, scales.representation, scales.free_nats, scales.average) == (1.0, 1.0, 3.0, True)
    assert (settings.discount, settings.mix, settings.entropy, settings.estimator) == (0.99, 0.95, 0.0, "dynamics")
    assert not settings.keep_start and agent.behavior.slow_critic is None and agent.behavior.normalizer is None
    assert isinstance(agent.world_model.rssm.cell, ResetAfterGRU)
    assert agent.behavior.actor.continuous == TanhNormal(5.0, 1e-4, 5.0)
    assert agent.behavior.evaluates_with_mode
    assert rates(agent) == {"world_model": (6e-4, 1e-7), "actor": (8e-5, 1e-7), "critic": (8e-5, 1e-7)}
    assert DreamerV1Config().schedule() == Schedule(2500, warmup_actions="random", first=100, per_step=0.2, burst=100)
    ends = built(DreamerV1Config(continuation=True))
    assert (ends.behavior.settings.discount, ends.world_model.scales.continue_discount) == (1.0, 0.99)


def test_settings_of_dreamer_v2_reach_the_parts():
    agent = built(make_config("dreamer-v2", {}, "dmc"))
    settings, scales = agent.behavior.settings, agent.world_model.scales
    assert (scales.dynamics, scales.representation) == (0.8, pytest.approx(0.2))
    assert (scales.free_nats, scales.average) == (1.0, True)
    assert agent.world_model.rssm.latent == CategoricalLatent(32, 32, 0.0)
    assert agent.behavior.actor.continuous == TruncatedNormal(0.1)
    assert (settings.slow, settings.slow_rate, settings.slow_every) == ("target", 1.0, 100)
    assert agent.exploration is None
    assert agent.optimizer.decays == dict.fromkeys(("world_model", "actor", "critic"), 1e-6)
    # 160 replayed steps an environment step are one update of 16 x 50 in five.
    schedule = make_config("dreamer-v2", {}, "dmc").schedule()
    assert schedule == Schedule(1000, warmup_actions="random", first=100, per_step=0.2)
    assert DreamerV2Config().schedule().per_step == 0.25
    atari = built(DreamerV2Config(deterministic=8, hidden=8, units=8), GRAY)
    assert (atari.behavior.settings.estimator, atari.behavior.settings.start_continue) == ("reinforce", "true")
    assert atari.behavior.settings.discount == 1.0
    assert atari.world_model.scales.continue_discount == 0.995
    assert (atari.world_model.scales.dynamics, atari.world_model.squash_reward) == (pytest.approx(0.08), True)


def test_weights_shrink_before_each_step_whatever_the_rate():
    agent = built(DreamerV2Config(deterministic=8, hidden=8, units=8, weight_decay=0.5, model_learning_rate=1e-12))
    before = agent.world_model.rssm.prior_logits.weight.detach().clone()
    for parameter in agent.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    agent.optimizer.step()
    torch.testing.assert_close(agent.world_model.rssm.prior_logits.weight.detach(), before / 2)


# ---------------------------------------------------------------- the verbs

TINY = {"deterministic": 12, "hidden": 8, "variables": 4, "vector_units": 8, "depth": 2}
MADE = {
    "planet": PlaNetConfig(
        **TINY, reward_units=8, free_nats=0.0, continuation=True, candidates=8, elites=2, iterations=2
    ),
    "dreamer-v1": DreamerV1Config(**TINY, units=8, free_nats=0.0, horizon=3, continuation=True),
    "dreamer-v2": DreamerV2Config(**TINY, units=8, horizon=3, classes=4),
}
SQUARE = Interface((ObservationPart("camera", "image", (64, 64, 3)), *MIXED.observations[1:]), MIXED.actions)


@pytest.mark.parametrize("name", MADE)
def test_update_learns_and_reports(name):
    agent = built(MADE[name], SQUARE)
    batch = random_batch(agent)
    before = {key: p.detach().clone() for key, p in agent.named_parameters()}
    metrics, latents = agent.update(batch)
    terms = {key for key in metrics if key.startswith("loss/")}
    expected = {"reconstruction/camera", "reconstruction/inventory", "reconstruction/speed", "reward", "continue"}
    expected |= {"dynamics", "representation", "total"} | ({"policy", "value"} if name != "planet" else set())
    assert terms == {f"loss/{term}" for term in expected}
    assert all(value.shape == () and torch.isfinite(value) and not value.requires_grad for value in metrics.values())
    assert latents == {}
    same = {key for key, p in agent.named_parameters() if torch.equal(p, before[key])}
    # All kernels have moved but those of the slow critic, which is a copy of the critic before it moves.
    assert {key for key in same if not key.endswith("bias") and "slow_critic" not in key} == set()


@pytest.mark.parametrize("name", MADE)
def test_acting_repeats_what_observing_finds(name):
    agent = built(MADE[name], SQUARE)
    batch, states, _ = agent.observe(random_batch(agent, steps=6), deterministic=True)
    state = None
    for t in range(6):
        observation = {part.name: batch[part.name][:, t] for part in SQUARE.observations}
        if name == "planet":
            observation["camera"] = random_batch(agent, steps=6)["camera"][:, t]  # before its five bits
        first = batch["is_first"][:, t] if t else torch.ones(2, dtype=torch.bool)
        latent = agent.watch(observation, first, state, deterministic=True)
        torch.testing.assert_close(latent.feature, states.at(t).feature, rtol=1e-4, atol=1e-5)
        state = PolicyState(latent, batch["action"][:, t])


@pytest.mark.parametrize("name", MADE)
def test_weights_round_trip(name, tmp_path):
    agent, other = built(MADE[name], SQUARE), built(MADE[name], SQUARE)
    agent.update(random_batch(agent))
    agent.save(tmp_path / "agent.safetensors")
    other.load(tmp_path / "agent.safetensors")
    for (key, one), (_, two) in zip(agent.state_dict().items(), other.state_dict().items(), strict=True):
        assert torch.equal(one, two), key


@pytest.mark.parametrize("name", MADE)
def test_the_optimizers_own_every_trained_weight_once(name):
    agent = built(MADE[name], SQUARE)
    owned = [id(p) for members in agent.optimizer.parameters.values() for p in members]
    assert sorted(owned) == sorted(id(p) for p in agent.parameters() if p.requires_grad)
    assert sum(p.numel() for p in agent.parameters() if p.requires_grad) == agent.count_parameters()["total"]


@pytest.mark.parametrize("name", ["dreamer-v1", "dreamer-v2"])
def test_evaluation_takes_the_mode_and_experience_samples(name):
    agent = built(MADE[name], SQUARE)
    observation = {part.name: random_batch(agent)[part.name][:, 0] for part in SQUARE.observations}
    asked = []
    choose = agent.behavior.choose
    agent.behavior.choose = lambda model, state, most_likely: (
        asked.append(most_likely) or choose(model, state, most_likely)
    )
    for purpose in ("evaluation", "experience"):
        agent.act(observation, torch.ones(2, dtype=torch.bool), None, purpose=purpose)
    agent.act(observation, torch.ones(2, dtype=torch.bool), None, deterministic=True)
    assert asked == [True, False, True]


@pytest.mark.parametrize(
    ("agent", "values", "match"),
    [
        ("planet", {"transition": "both ways"}, "transition must be one of both, deterministic, stochastic"),
        ("planet", {"image_bits": 9}, "image_bits must be 1 to 8"),
        ("planet", {"continuation": 1}, "continuation must be true or false"),
        ("dreamer-v1", {"cell": "lstm"}, "cell must be one of reset-after, classic"),
        ("dreamer-v1", {"discount": 1.5}, "discount must lie between 0 and 1"),
        ("dreamer-v2", {"kl_balance": -0.1}, "kl_balance must not be negative"),
    ],
)
def test_settings_that_cannot_work_are_refused(agent, values, match):
    with pytest.raises(ConfigError, match=match):
        make_config(agent, values)


def test_more_elites_than_candidates_are_refused():
    with pytest.raises(ConfigError, match="elites"):
        PlaNetConfig(elites=10, candidates=5).build(VECTORS)


def test_sizes_of_quick_agents_are_small():
    for module, name in ((planet, "planet"), (dreamer_v1, "dreamer-v1"), (dreamer_v2, "dreamer-v2")):
        assert "quick" in module.PRESETS
        assert counts(make_config(name, {}, "quick"), VECTORS)["total"] < 500_000
