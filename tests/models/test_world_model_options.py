"""What only some agents' world models have: image noise, overshooting, a global prior, other representations."""

from dataclasses import replace

import pytest
import torch

from reverie.agents.dreamer_v1 import DreamerV1Config
from reverie.agents.dreamer_v2 import DreamerV2Config
from reverie.agents.planet import PlaNetConfig
from reverie.errors import ConfigError
from reverie.models.overshooting import overshooting_loss
from reverie.models.rssm import LatentState
from reverie.nn.contrast import ContrastiveHead
from reverie.nn.layers import plain_style
from reverie.ops.transforms import quantize
from reverie.spaces import ActionPart, Interface, ObservationPart

ACTION = (ActionPart("a", "continuous", 2),)
VECTOR = Interface((ObservationPart("x", "vector", (3,)),), ACTION)
IMAGE = Interface((ObservationPart("image", "image", (64, 64, 3)),), ACTION)
SMALL = {"deterministic": 8, "hidden": 6, "variables": 4, "vector_units": 6, "depth": 1}
B, T = 2, 6


def batch(interface=VECTOR):
    generator = torch.Generator().manual_seed(0)
    data = {"x": torch.randn(B, T, 3, generator=generator)}
    if interface is IMAGE:
        data = {"image": torch.randint(0, 256, (B, T, 64, 64, 3), dtype=torch.uint8, generator=generator)}
    data["action"] = torch.rand(B, T, 2, generator=generator) * 2 - 1
    data["reward"] = torch.randn(B, T, generator=generator) * 2
    data |= {flag: torch.zeros(B, T, dtype=torch.bool) for flag in ("is_first", "is_last", "is_terminal")}
    data["is_first"][1, 3] = True
    return data


def make(config, interface=VECTOR):
    torch.manual_seed(0)
    return config.build(interface)


def terms_of(agent, data, **observe):
    data, states, outputs = agent.observe(data, **observe)
    return agent.world_model.loss(data, states, outputs)[0], states, outputs, data


def planet(**values):
    return PlaNetConfig(**{**SMALL, "reward_units": 6, "reward_layers": 1, **values})


def dreamer(**values):
    return DreamerV1Config(**{**SMALL, "units": 6, **values})


# ---------------------------------------------------------------- losses


def test_losses_of_planet_by_their_definitions():
    agent = make(planet())
    terms, states, outputs, data = terms_of(agent, batch(), deterministic=True)
    model, latent = agent.world_model, agent.world_model.rssm.latent
    feature = states.feature
    decoded = model.decoder(feature)["x"]
    torch.testing.assert_close(terms["reconstruction/x"], 0.5 * (decoded - data["x"]).square().sum(-1))
    torch.testing.assert_close(terms["reward"], 10 * 0.5 * (model.reward(feature) - data["reward"]).square())
    normal = [
        torch.distributions.Normal(*latent.distribution(x).chunk(2, -1))
        for x in (outputs, model.rssm.predict(states.deterministic))
    ]
    kl = torch.distributions.kl_divergence(*normal).sum(-1).clamp(min=3)
    torch.testing.assert_close(terms["dynamics"], kl)
    torch.testing.assert_close(terms["representation"], kl)
    assert set(terms) == {"reconstruction/x", "reward", "dynamics", "representation"}


def test_losses_of_dreamer_v1_bound_the_mean_and_squash_rewards():
    agent = make(dreamer(free_nats=0.01, continuation=True, reward_transform="tanh", kl_scale=0.1))
    data = batch()
    data["is_terminal"][0, 5] = True
    terms, states, outputs, _ = terms_of(agent, data, deterministic=True)
    model, latent = agent.world_model, agent.world_model.rssm.latent
    prior = latent.distribution(model.rssm.predict(states.deterministic))
    mean = latent.divergence(latent.distribution(outputs), prior).mean()
    torch.testing.assert_close(terms["dynamics"], (0.1 * mean).expand(B, T))
    expected = 0.5 * (model.reward(states.feature) - torch.tanh(data["reward"])).square()
    torch.testing.assert_close(terms["reward"], expected)
    going = 0.99 * (~data["is_terminal"]).float()
    probability = torch.sigmoid(model.continuation(states.feature))
    entropy = -(going * probability.log() + (1 - going) * (1 - probability).log())
    torch.testing.assert_close(terms["continue"], 10 * entropy, rtol=1e-4, atol=1e-5)


def test_halves_of_the_kl_in_dreamer_v2():
    agent = make(DreamerV2Config(**SMALL, classes=4, units=6))
    terms, *_ = terms_of(agent, batch())
    # 0.1 x 0.8 and 0.1 x 0.2 of one value.
    torch.testing.assert_close(terms["dynamics"], 4 * terms["representation"])
    assert (terms["dynamics"] == terms["dynamics"][0, 0]).all() and terms["dynamics"][0, 0] > 0


def test_an_image_loss_is_half_the_squared_error_on_what_the_encoder_saw():
    agent = make(planet(), IMAGE)
    terms, states, _, data = terms_of(agent, batch(IMAGE))
    seen = data["image"]
    assert seen.dtype == torch.float32
    decoded = agent.world_model.decoder(states.feature)["image"]
    expected = 0.5 * (decoded - seen / 255).square().sum((-3, -2, -1))
    torch.testing.assert_close(terms["reconstruction/image"], expected)


# ---------------------------------------------------------------- images with five bits


def test_quantized_images_by_hand():
    # 200 has the level 200 // 8 = 25 of 32; the middle of it is 25.5 / 32 of the range.
    image = torch.tensor([0, 7, 8, 200, 255], dtype=torch.uint8)
    middle = quantize(image, 5, deterministic=True)
    torch.testing.assert_close(middle * 32 / 255, torch.tensor([0.5, 0.5, 1.5, 25.5, 31.5]))
    noisy = quantize(image.repeat(5000, 1), 5) * 32 / 255
    level = torch.tensor([0.0, 0, 1, 25, 31])
    assert (noisy >= level).all() and (noisy <= level + 1).all()
    torch.testing.assert_close(noisy.mean(0), level + 0.5, rtol=0, atol=0.02)


def test_noise_is_drawn_again_at_every_read_and_when_acting():
    agent = make(planet(), IMAGE)
    data = batch(IMAGE)
    one, two = agent.observe(data)[0]["image"], agent.observe(data)[0]["image"]
    assert not torch.equal(one, two)
    assert data["image"].dtype == torch.uint8
    assert (one - two).abs().max() <= 255 / 32
    arguments = ({"image": data["image"][:, 0]}, torch.ones(B, dtype=torch.bool))
    seen = []
    agent.world_model.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]["image"]))
    agent.watch(*arguments)
    agent.watch(*arguments)
    assert not torch.equal(*seen)


def test_dreamer_v1_shows_images_as_they_are():
    agent = make(dreamer(), IMAGE)
    data = batch(IMAGE)
    assert agent.observe(data)[0]["image"] is data["image"]


@pytest.mark.parametrize("side", [32, 65, 96])
def test_images_of_other_sizes_are_refused(side):
    part = ObservationPart("image", "image", (side, 64, 3))
    for config in (planet(), dreamer(), DreamerV2Config(**SMALL)):
        with pytest.raises(ConfigError, match=f"64x64 pixels.*{side}x64.*--image-size 64"):
            config.build(Interface((part,), ACTION))


# ---------------------------------------------------------------- overshooting and a global prior


def test_overshooting_equals_a_loop():
    agent = make(planet(overshooting_scale=0.5, overshooting_distance=3, free_nats=0.2))
    data, states, outputs = agent.observe(batch(), deterministic=True)
    rssm = agent.world_model.rssm
    # Without chance on both sides, so that the rollouts are the same.
    rssm.latent = replace(rssm.latent, mean_only=True)
    posterior = rssm.latent.distribution(outputs)
    loss = overshooting_loss(rssm, states, posterior, data, 3, 0.2)
    kernels = rssm.cell.prepare(torch.float32)
    expected = torch.zeros(B, T)
    for b in range(B):
        for t in range(T):
            state = LatentState(states.deterministic[b : b + 1, t], states.stochastic[b : b + 1, t])
            for d in range(1, 4):
                if t + d >= T or data["is_first"][b, t + d]:
                    break  # nothing follows in the window, or another episode does
                state = rssm.imagine_step(state, data["action"][b : b + 1, t + d - 1], kernels)
                prior = rssm.latent.distribution(rssm.predict(state.deterministic))
                if d >= 2:
                    kl = rssm.latent.divergence(posterior[b : b + 1, t + d], prior).clamp(min=0.2)
                    expected[b, t + d] += kl.item() / 2
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    assert expected[0, 2] > 0 and (expected[1, 3:5] == 0).all() and expected[1, 5] > 0


def test_overshooting_does_not_pull_the_posterior_it_is_compared_with():
    agent = make(planet(overshooting_distance=2))
    data, states, outputs = agent.observe(batch())
    rssm = agent.world_model.rssm
    posterior = rssm.latent.distribution(outputs).detach().requires_grad_()
    overshooting_loss(rssm, states, posterior, data, 2, 0.0).sum().backward()
    assert posterior.grad is None
    assert rssm.prior_logits.weight.grad.abs().max() > 0


def test_overshooting_and_the_global_prior_are_terms_of_their_own():
    quiet, loud = make(planet()), make(planet(overshooting_scale=0.5, global_prior_scale=0.1))
    assert {"overshooting", "global_prior"} & terms_of(quiet, batch())[0].keys() == set()
    terms, _, outputs, _ = terms_of(loud, batch())
    assert terms["overshooting"].shape == terms["global_prior"].shape == (B, T)
    mean, deviation = loud.world_model.rssm.latent.distribution(outputs).chunk(2, -1)
    one = torch.distributions.Normal(mean, deviation)
    standard = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(one, standard).sum(-1)
    torch.testing.assert_close(terms["global_prior"], 0.1 * expected)


# ---------------------------------------------------------------- ablations


def test_a_model_without_chance():
    agent = make(planet(transition="deterministic", kl_scale=0.0))
    one, two = agent.observe(batch())[1], agent.observe(batch())[1]
    assert torch.equal(one.feature, two.feature)
    terms, *_ = terms_of(agent, batch())
    assert not terms["dynamics"].any() and not terms["representation"].any()


def test_a_model_without_memory_learns():
    agent = make(planet(transition="stochastic"))
    assert agent.world_model.features == 4
    agent.optimizer = planet().build_optimizer(agent)
    totals = [agent.update(batch())[0]["loss/total"].item() for _ in range(60)]
    assert totals[-1] < totals[0]


@pytest.mark.parametrize("representation", ["reward", "contrastive"])
def test_the_decoder_only_watches(representation):
    agent = make(dreamer(representation=representation))
    terms, *_ = terms_of(agent, batch())
    terms["reconstruction/x"].mean().backward(retain_graph=True)
    assert all(p.grad is None for p in agent.world_model.encoder.parameters())
    assert all(p.grad is not None for p in agent.world_model.decoder.parameters())
    terms["reward"].mean().backward(retain_graph=True)
    assert any(p.grad is not None for p in agent.world_model.encoder.parameters())
    assert ("contrast" in terms) == ("contrast" in agent.count_parameters()) == (representation == "contrastive")


def test_contrast_equals_a_loop():
    torch.manual_seed(0)
    head = ContrastiveHead(5, 3, units=6, layers=1, style=plain_style("elu"), sequences=2, steps=3)
    tokens, feature = torch.randn(3, 4, 5), torch.randn(3, 4, 3)
    mean, deviation = head(tokens)
    expected = torch.zeros(3, 4)
    for b in range(3):
        for t in range(4):
            q = torch.distributions.Normal(mean[b, t], deviation[b, t])
            # Two neighboring sequences and three neighboring steps, round the corner, itself among them.
            scores = [q.log_prob(feature[(b + i) % 3, (t + j) % 4]).sum() for i in (0, 1) for j in (-1, 0, 1)]
            expected[b, t] = torch.stack(scores).logsumexp(0) - q.log_prob(feature[b, t]).sum()
    loss = head.loss(tokens, feature)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    assert (loss >= 0).all()
    with torch.no_grad():
        head.output.weight.zero_()
        head.output.bias.zero_()
    torch.testing.assert_close(head(tokens)[1], torch.full((3, 4, 3), 1.01))  # softplus(ln(e - 1)) = 1


def test_contrast_learns_to_tell_features_apart():
    torch.manual_seed(0)
    head = ContrastiveHead(4, 4, units=32, layers=2, style=plain_style("elu"))
    tokens = torch.randn(8, 8, 4)
    optimizer = torch.optim.Adam(head.parameters(), 3e-3)
    for _ in range(300):
        optimizer.zero_grad()
        loss = head.loss(tokens, tokens.flip(-1)).mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1.0  # sixty-four to choose from: ln 64 = 4.2 by guessing


def test_a_global_prior_needs_normal_latents():
    model = make(DreamerV2Config(**SMALL, classes=4, units=6)).world_model
    parts = (model.encoder, model.rssm, model.decoder, model.reward, None)
    with pytest.raises(ConfigError, match="normal latents"):
        type(model)(*parts, replace(model.scales, global_prior=0.1))
