"""V and M as one world model: order of reading, temperature, ends, rewards, and dreams in it."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from reverie.behaviors.controllers import LinearController
from reverie.behaviors.evolution import Evolution
from reverie.dream.dream import Dream
from reverie.dream.dream_env import DreamEnv
from reverie.dream.evolve import dreamed_returns, evolve
from reverie.envs import make
from reverie.errors import ConfigError
from reverie.models.vision_memory import MemoryState, VisionMemory
from reverie.nn.mdn_rnn import MixtureRNN
from reverie.nn.vae import ConvVAE

Z, A, D = 4, 3, 8


def model(**options):
    torch.manual_seed(0)
    heads = {"restart_input": True, "restart_head": True, "reward_head": "living_reward" not in options}
    return VisionMemory(ConvVAE(Z), MixtureRNN(Z, A, D, **heads), **options)


@pytest.fixture(scope="module")
def world():
    return model()


def starts(world, count=5):
    torch.manual_seed(1)
    return world.begin(torch.randn(count, Z))


def test_features_are_latents_then_cell_then_hidden(world):
    state = MemoryState(
        torch.zeros(2, Z), torch.full((2, D), 1.0), torch.full((2, D), 2.0), torch.zeros(2, dtype=torch.bool)
    )
    assert world.features == Z + D and world.feature(state)[0].tolist() == [0] * Z + [1] * D
    doom = model(reads="zch", living_reward=1.0)
    assert doom.features == Z + 2 * D and doom.feature(state)[0].tolist() == [0] * Z + [2] * D + [1] * D


def test_the_parameters_of_the_paper():
    car = VisionMemory(ConvVAE(32), MixtureRNN(32, 3, 256), living_reward=0.0)
    doom = VisionMemory(
        ConvVAE(64), MixtureRNN(64, 1, 512, restart_input=True, restart_head=True), living_reward=1.0, reads="zch"
    )
    assert (car.features, doom.features) == (288, 1088)
    assert sum(p.numel() for p in car.parameters()) == 4_348_547 + 422_368
    assert sum(p.numel() for p in doom.parameters()) == 4_446_915 + 1_678_785


@torch.no_grad()
def test_dreams_and_real_episodes_move_memory_alike(world):
    state, action = starts(world), torch.randn(5, A)
    dreamed, _, _ = world.dream(state, action, most_likely=True)
    remembered = world.remember(state, action, dreamed.latent)
    for name in ("latent", "hidden", "cell", "opens"):
        assert torch.equal(getattr(dreamed, name), getattr(remembered, name)), name
    assert state.opens.all() and not dreamed.opens.any()


@torch.no_grad()
def test_a_step_is_what_memory_predicts(world):
    state, action = starts(world), torch.randn(5, A)
    output, memory = world.memory.step(world._memory(state), state.latent, action, state.opens)
    following, reward, going_on = world.dream(state, action, most_likely=True)
    heaviest = output.log_weights.argmax(-1, keepdim=True)
    assert torch.equal(following.latent, output.means.gather(-1, heaviest)[..., 0])
    assert torch.equal(following.hidden, memory.hidden) and torch.equal(reward, output.reward)
    assert torch.allclose(going_on, 1 / (1 + output.restart_logit.exp() / 10))  # ends count ten times in the loss


@torch.no_grad()
def test_memory_sees_that_an_episode_opens(world):
    state, action = starts(world), torch.zeros(5, A)
    later = MemoryState(state.latent, state.hidden, state.cell, torch.zeros_like(state.opens))
    assert not torch.equal(world.dream(state, action)[0].hidden, world.dream(later, action)[0].hidden)


@torch.no_grad()
def test_temperature_multiplies_the_variance():
    world = model()
    state = starts(world, 1).select(torch.zeros(4000, dtype=torch.long))
    action = torch.zeros(4000, A)
    world.memory.output.weight.zero_()  # five equal components around zero with deviation 1
    one, four = (world.dream(state, action, temperature)[0].latent.std().item() for temperature in (1.0, 4.0))
    assert one == pytest.approx(1, abs=0.03) and four == pytest.approx(2, abs=0.06)


@pytest.mark.parametrize(("logit", "ends"), [(0.1, True), (-0.1, False)])
def test_the_end_is_where_the_logit_is_above_zero(logit, ends):
    doom = model(living_reward=1.0)
    with torch.no_grad():
        doom.memory.output.weight[0].zero_()
        doom.memory.output.bias[0] = logit
    dream = Dream(doom, starts(doom), 3, draw_ends=False)
    reward, ended, _ = dream.step(np.zeros((3, A), np.float32))
    assert (ended == ends).all() and (reward == 1).all(), "the dying step is rewarded, too"


def test_drawn_ends_come_as_often_as_the_head_has_learned_they_do():
    doom = model(living_reward=1.0)
    with torch.no_grad():
        doom.memory.output.weight[0].zero_()
        doom.memory.output.bias[0] = np.log(10 * 0.2 / 0.8)  # the minimum of the weighted loss for ends with 1 in 5
    assert Dream(doom, starts(doom), 4000).step(np.zeros((4000, A), np.float32))[1].mean() == pytest.approx(
        0.2, abs=0.03
    )


def test_frames_become_latents_and_latents_frames(world):
    frames = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        means = world.encode(frames, most_likely=True)
        assert means.shape == (3, Z) and not torch.equal(world.encode(frames), means)
        drawn = world.draw(world.begin(means))["image"]
    assert drawn.dtype == torch.uint8 and drawn.shape == (3, 64, 64, 3)


@pytest.mark.filterwarnings("ignore:.*WARN:UserWarning")
def test_it_is_a_gymnasium_environment(world):
    adapter = make("reverie/CatchPixels-v0")
    for observation in ("decoded", "latent"):
        dream = DreamEnv(Dream(world, starts(world), 1), adapter, horizon=5, observation=observation)
        check_env(dream, skip_render_check=True)
    assert isinstance(adapter.environment, gymnasium.Env)


def test_controllers_evolve_in_it(world):
    parts = make("reverie/CatchPixels-v0").interface.actions
    controller = LinearController(world.features, A)
    dream = Dream(world, starts(world), 1, draw_ends=False)
    evolution = Evolution(controller.count, population=4)
    history = evolve(dream, controller, evolution, parts, 2, rollouts=2, horizon=5)
    assert evolution.generation == 2 and np.isfinite([generation.mean for generation in history]).all()
    returns = dreamed_returns(dream, controller, torch.zeros(3, controller.count), parts, 2, 4)
    assert returns.shape == (3, 2)


def test_parts_that_do_not_fit():
    with pytest.raises(ConfigError, match="4 latents and memory 5"):
        VisionMemory(ConvVAE(4), MixtureRNN(5, A, D), living_reward=1.0)
    with pytest.raises(ConfigError, match="reward"):
        VisionMemory(ConvVAE(4), MixtureRNN(4, A, D))
