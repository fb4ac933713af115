import json
import os
import struct

import numpy as np
import pytest
import torch
from agent_helpers import MIXED, random_batch, small
from safetensors.torch import save_file

from reverie.agents.imagination_agent import PolicyState
from reverie.errors import CheckpointError
from reverie.tensor_files import read_tensors, save_tensors

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
    save_tensors({"weight": torch.ones(3)}, path)
    refuses(agent, path, "another configuration")
    agent.save(path)
    tensors = read_tensors(path)
    name = sorted(tensors)[5]
    save_tensors({key: value for key, value in tensors.items() if key != name}, path)
    refuses(agent, path, name)
    save_file(tensors, path)
    refuses(agent, path, "no checksum")


def test_an_altered_bit_is_noticed_wherever_it_is(tmp_path):
    agent, path = small(), tmp_path / "agent.safetensors"
    agent.save(path)
    whole = path.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(whole), 50):
        data = bytearray(whole)
        data[place] ^= 1
        path.write_bytes(data)
        refuses(agent, path, "agent.safetensors")


def test_a_pickle_is_refused(tmp_path):
    agent, path = small(), tmp_path / "agent.safetensors"
    torch.save(agent.state_dict(), path)
    refuses(agent, path, "cannot be read as safetensors")
