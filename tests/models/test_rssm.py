from dataclasses import replace

import pytest
import torch

from reverie.models.rssm import RSSM, LatentState
from reverie.nn.cells import BlockGRU, ClassicGRU, Memoryless, NormGRU, ResetAfterGRU
from reverie.nn.latents import CategoricalLatent, GaussianLatent
from reverie.nn.layers import Initializer, NetworkStyle, plain_style

D, A, K, HIDDEN = 16, 3, 7, 8
LATENT = CategoricalLatent(4, 5, 0.01)
CPU = torch.device("cpu")
INPUTS = {"stochastic": LATENT.width, "action": A, "hidden": HIDDEN}
SIZES = {"deterministic": D, "tokens": K, "hidden": HIDDEN, "posterior_layers": 1}
NORMAL = Initializer("truncated_normal", "in")
RMS = NetworkStyle(norm="rms", activation="silu", kernel=NORMAL, output_kernel=NORMAL)
OLDER = {
    "2019": lambda: ClassicGRU(D, **INPUTS, style=plain_style("relu")),
    "2020": lambda: ResetAfterGRU(D, **INPUTS, style=plain_style("elu")),
    "2021": lambda: NormGRU(D, **INPUTS, style=plain_style("elu")),
}


def make(kind):
    torch.manual_seed(0)
    if kind == "2025":
        return RSSM(BlockGRU(D, **INPUTS, blocks=4, style=RMS), LATENT, **SIZES, prior_layers=2, style=RMS)
    if kind in OLDER:
        return RSSM(OLDER[kind](), LATENT, **SIZES, prior_layers=1, style=plain_style("elu"))
    style = replace(RMS, norm="layer")
    cell = NormGRU(D, **INPUTS, style=style)
    rssm = RSSM(cell, LATENT, **SIZES, prior_layers=1, style=style, learned_initial=True)
    torch.nn.init.normal_(rssm.initial_deterministic)
    return rssm


@pytest.fixture(params=["2025", "2023", *OLDER])
def rssm(request):
    return make(request.param)


def inputs(batch=3, steps=6, seed=1):
    torch.manual_seed(seed)
    is_first = torch.zeros(batch, steps, dtype=torch.bool)
    state = LatentState(torch.randn(batch, D).tanh(), LATENT.sample(torch.randn(batch, LATENT.width)))
    return torch.randn(batch, steps, K), torch.rand(batch, steps, A) * 2 - 1, is_first, state


def same(one, other):
    torch.testing.assert_close(one.deterministic, other.deterministic, rtol=1e-5, atol=1e-6)
    assert torch.equal(one.stochastic, other.stochastic)


def at(states, t):
    return LatentState(states.deterministic[:, t], states.stochastic[:, t])


def test_shapes(rssm):
    states, logits = rssm.observe(*inputs())
    assert states.deterministic.shape == (3, 6, D)
    assert states.stochastic.shape == logits.shape == (3, 6, LATENT.width)
    assert states.feature.shape == (3, 6, rssm.features)
    assert torch.equal(states.feature[..., :D], states.deterministic)
    assert states.flatten().feature.shape == (18, rssm.features)


def test_samples_are_one_hot(rssm):
    states, _ = rssm.observe(*inputs())
    sample = states.stochastic.detach().unflatten(-1, (4, 5))
    torch.testing.assert_close(sample.sum(-1), torch.ones(3, 6, 4))
    torch.testing.assert_close(sample.max(-1).values, torch.ones(3, 6, 4))


def test_observe_equals_the_definition(rssm):
    """h_t = cell(h, z, a), posterior from (h_t, x_t), step by step without anything taken out of the loop."""
    tokens, action, is_first, state = inputs()
    states, logits = rssm.observe(tokens, action, is_first, state, deterministic=True)
    kernels = rssm.cell.prepare(torch.float32)
    h, z = state.deterministic, state.stochastic
    for t in range(tokens.shape[1]):
        h = rssm.cell(h, z, rssm.cell.embed_action(action[:, t]), kernels)
        logit = rssm.posterior_logits(rssm.posterior(torch.cat([h, tokens[:, t]], -1)))
        z = LATENT.sample(logit, deterministic=True)
        torch.testing.assert_close(states.deterministic[:, t], h, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(logits[:, t], logit, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(states.stochastic[:, t], z)


def test_a_sequence_equals_its_two_halves(rssm):
    tokens, action, is_first, state = inputs()
    whole, logits = rssm.observe(tokens, action, is_first, state, deterministic=True)
    first, _ = rssm.observe(tokens[:, :2], action[:, :2], is_first[:, :2], state, deterministic=True)
    second, rest = rssm.observe(tokens[:, 2:], action[:, 2:], is_first[:, 2:], at(first, -1), deterministic=True)
    same(at(whole, slice(0, 2)), first)
    same(at(whole, slice(2, None)), second)
    torch.testing.assert_close(logits[:, 2:], rest, rtol=1e-5, atol=1e-6)


def test_a_reset_in_the_middle_equals_two_separate_calls(rssm):
    tokens, action, is_first, state = inputs()
    is_first[:, 3] = True
    whole, logits = rssm.observe(tokens, action, is_first, state, deterministic=True)
    first, _ = rssm.observe(tokens[:, :3], action[:, :3], is_first[:, :3], state, deterministic=True)
    # The second call begins like an episode: initial state, no previous action, no flag.
    fresh, none = rssm.initial(3, CPU), torch.cat([torch.zeros(3, 1, A), action[:, 4:]], 1)
    flags = torch.zeros(3, 3, dtype=torch.bool)
    second, rest = rssm.observe(tokens[:, 3:], none, flags, fresh, deterministic=True)
    same(at(whole, slice(0, 3)), first)
    same(at(whole, slice(3, None)), second)
    torch.testing.assert_close(logits[:, 3:], rest, rtol=1e-5, atol=1e-6)


def test_a_reset_concerns_its_own_sequence_only(rssm):
    tokens, action, is_first, state = inputs()
    plain, _ = rssm.observe(tokens, action, is_first, state, deterministic=True)
    is_first[1, 3] = True
    reset, _ = rssm.observe(tokens, action, is_first, state, deterministic=True)
    for b in (0, 2):
        torch.testing.assert_close(reset.feature[b], plain.feature[b])
    torch.testing.assert_close(reset.feature[1, :3], plain.feature[1, :3])
    assert not torch.allclose(reset.deterministic[1, 3], plain.deterministic[1, 3])


def test_at_the_first_step_neither_previous_action_nor_state_matter(rssm):
    tokens, action, is_first, state = inputs()
    is_first[:, 0] = True
    states, _ = rssm.observe(tokens, action, is_first, state, deterministic=True)
    other_action = action.clone()
    other_action[:, 0] = 1.0
    other_state = LatentState(torch.randn(3, D), torch.rand(3, LATENT.width))
    others, _ = rssm.observe(tokens, other_action, is_first, other_state, deterministic=True)
    same(states, others)
    # At any other step the action does matter.
    other_action[:, 3] = -action[:, 3]
    others, _ = rssm.observe(tokens, other_action, is_first, state, deterministic=True)
    assert not torch.allclose(states.deterministic[:, 3], others.deterministic[:, 3])
    torch.testing.assert_close(states.deterministic[:, :3], others.deterministic[:, :3])


def test_no_gradient_crosses_a_reset(rssm):
    tokens, action, is_first, state = inputs()
    is_first[:, 3] = True
    tokens.requires_grad_()
    action.requires_grad_()
    states, logits = rssm.observe(tokens, action, is_first, state)
    gradients = torch.autograd.grad((states.feature[:, 3:].sum() + logits[:, 3:].sum()), (tokens, action))
    assert (gradients[0][:, :3] == 0).all()
    assert (gradients[1][:, :4] == 0).all()  # the action before the reset as well
    assert gradients[0][:, 3:].abs().sum() > 0
    assert gradients[1][:, 4:].abs().sum() > 0


def test_gradients_reach_earlier_tokens_actions_and_every_weight_of_the_filter(rssm):
    tokens, action, is_first, state = inputs()
    is_first[0, 0] = True
    tokens.requires_grad_()
    action.requires_grad_()
    states, logits = rssm.observe(tokens, action, is_first, state)
    weight = torch.randn(rssm.features)
    (states.feature[:, -1] @ weight).sum().backward()
    assert (tokens.grad[1:].abs().sum((0, 2)) > 0).all()
    assert (action.grad[1:].abs().sum((0, 2)) > 0).all()
    for name, parameter in rssm.named_parameters():
        if not name.startswith("prior"):
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0, name


def test_initial_state_of_2025_is_zeros():
    state = make("2025").initial(3, CPU)
    assert state.deterministic.shape == (3, D)
    assert (state.feature == 0).all()


def test_initial_state_of_2023_is_learned():
    # h = tanh(w), z = most likely classes of the prior there; a gradient reaches w through h alone.
    rssm = make("2023")
    state = rssm.initial(3, CPU)
    torch.testing.assert_close(state.deterministic, torch.tanh(rssm.initial_deterministic).expand(3, -1))
    mode = rssm.predict(torch.tanh(rssm.initial_deterministic)).unflatten(-1, (4, 5)).argmax(-1)
    assert torch.equal(state.stochastic[0].unflatten(-1, (4, 5)).argmax(-1), mode)
    assert not state.stochastic.requires_grad
    assert state.deterministic.requires_grad


def test_imagine_equals_repeated_imagine_step(rssm):
    _, _, _, state = inputs()
    actions = torch.rand(3, 4, A) * 2 - 1
    rollout = rssm.imagine(lambda feature, step: actions[:, step], state, 4, deterministic=True)
    assert len(rollout) == 5
    assert all(imagined.deterministic.shape == (3, D) for imagined in rollout)
    same(rollout[0], state)
    kernels = rssm.cell.prepare(torch.float32)
    for t in range(4):
        state = rssm.imagine_step(state, actions[:, t], kernels, deterministic=True)
        same(rollout[t + 1], state)


def test_imagine_shows_the_policy_the_newest_state(rssm):
    _, _, _, state = inputs()
    seen = []

    def policy(feature, step):
        assert step == len(seen)
        seen.append(feature)
        return torch.tanh(feature[:, :A])

    rollout = rssm.imagine(policy, state, 4)
    for t, feature in enumerate(seen):
        assert torch.equal(feature, rollout[t].feature)


def test_imagining_follows_the_prior_of_the_same_cell(rssm):
    """One imagined step has the h that observing would have, and a sample of the prior in the place of z."""
    tokens, action, is_first, state = inputs(steps=1)
    observed, _ = rssm.observe(tokens, action, is_first, state, deterministic=True)
    imagined = rssm.imagine_step(state, action[:, 0], rssm.cell.prepare(torch.float32), deterministic=True)
    torch.testing.assert_close(observed.deterministic[:, 0], imagined.deterministic, rtol=1e-5, atol=1e-6)
    mode = LATENT.sample(rssm.predict(imagined.deterministic), deterministic=True)
    assert torch.equal(imagined.stochastic, mode)


def test_sampling_repeats_with_the_seed_and_differs_without(rssm):
    arguments = inputs()
    torch.manual_seed(5)
    one, _ = rssm.observe(*arguments)
    torch.manual_seed(5)
    two, _ = rssm.observe(*arguments)
    three, _ = rssm.observe(*arguments)
    assert torch.equal(one.stochastic, two.stochastic)
    assert not torch.equal(one.stochastic, three.stochastic)


def test_bfloat16(rssm):
    tokens, action, is_first, state = inputs()
    low = torch.bfloat16
    state = LatentState(state.deterministic.to(low), state.stochastic.to(low))
    states, logits = rssm.observe(tokens.to(low), action, is_first, state)
    assert states.deterministic.dtype == states.stochastic.dtype == logits.dtype == low
    assert torch.isfinite(states.feature).all()


# ---------------------------------------------------------------- normal latents, and no memory


def gaussian(cell_kind="2019"):
    torch.manual_seed(0)
    latent = GaussianLatent(6)
    width = HIDDEN if cell_kind == "memoryless" else D
    if cell_kind == "memoryless":
        cell = Memoryless(**{**INPUTS, "stochastic": latent.width}, style=plain_style("relu"))
    else:
        cell = ClassicGRU(D, **{**INPUTS, "stochastic": latent.width}, style=plain_style("relu"))
    layers = 0 if cell_kind == "memoryless" else 1
    sizes = {**SIZES, "deterministic": width}
    return RSSM(cell, latent, **sizes, prior_layers=layers, style=plain_style("relu"))


@pytest.mark.parametrize("kind", ["2019", "memoryless"])
def test_with_normal_latents_a_reset_in_the_middle_equals_two_separate_calls(kind):
    model = gaussian(kind)
    tokens, action, is_first, _ = inputs()
    is_first[:, 3] = True
    start = model.initial(3, CPU)
    whole, outputs = model.observe(tokens, action, is_first, start, deterministic=True)
    first, _ = model.observe(tokens[:, :3], action[:, :3], is_first[:, :3], start, deterministic=True)
    none = torch.cat([torch.zeros(3, 1, A), action[:, 4:]], 1)
    second, rest = model.observe(tokens[:, 3:], none, is_first[:, :3], start, deterministic=True)
    torch.testing.assert_close(whole.feature, torch.cat([first.feature, second.feature], 1))
    torch.testing.assert_close(outputs[:, 3:], rest)
    assert outputs.shape[-1] == 12 and whole.stochastic.shape[-1] == 6


def test_without_memory_others_see_the_sample_alone():
    model = gaussian("memoryless")
    tokens, action, is_first, _ = inputs()
    states, _ = model.observe(tokens, action, is_first, model.initial(3, CPU))
    assert model.features == states.feature.shape[-1] == 6
    assert torch.equal(states.feature, states.stochastic)
    assert torch.equal(states.detach().at(0).feature, states.stochastic[:, 0])
    assert torch.equal(states.flatten().feature, states.stochastic.flatten(0, 1))
    ahead = model.imagine(lambda feature, step: action[:, 0], states.at(-1), 2)
    assert ahead[-1].feature.shape == (3, 6)
    # What came two steps before reaches the next state through z alone.
    one = model.imagine_step(states.at(0), action[:, 0], model.cell.prepare(torch.float32), deterministic=True)
    forgetful = type(states)(torch.zeros_like(states.deterministic[:, 0]), states.stochastic[:, 0])
    two = model.imagine_step(forgetful, action[:, 0], model.cell.prepare(torch.float32), deterministic=True)
    assert torch.equal(one.feature, two.feature)


def test_states_are_repeated_one_after_the_other():
    state = LatentState(torch.arange(2.0)[:, None], torch.arange(2.0)[:, None] + 10)
    assert state.repeat(3).feature[:, 0].tolist() == [0, 0, 0, 1, 1, 1]
    assert state.repeat(3).feature[:, 1].tolist() == [10, 10, 10, 11, 11, 11]
