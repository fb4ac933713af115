"""The world model as an environment: the same steps as imagination, the spaces of the real environment."""

import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as check_for_baselines

import reverie
from reverie.dream.dream import Dream, collect_starts
from reverie.envs.state_renderer import StateRenderer
from reverie.errors import ConfigError

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from run_helpers import RUN, TINY, Nested, Walk  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*WARN:UserWarning")


class Camera(Walk):
    """Sees an image of 32 x 40 pixels, channels first, and two numbers."""

    observation_space = gymnasium.spaces.Tuple(
        (gymnasium.spaces.Box(0, 255, (3, 32, 40), np.uint8), gymnasium.spaces.Box(-1, 1, (2,), np.float32))
    )

    def _observe(self):
        return np.full((3, 32, 40), self.elapsed, np.uint8), np.zeros(2, np.float32)


ENVIRONMENTS = {"CartPole-v1": "CartPole-v1", "nested": Nested, "camera": Camera, "Pendulum-v1": "Pendulum-v1"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """name -> an agent that has learned for a few steps."""
    made = {}

    def get(name):
        if name not in made:
            run = tmp_path_factory.mktemp("dreams") / "run"
            settings = {**TINY, **RUN, "num_envs": 2, "vectorization": "in-process"}
            made[name] = reverie.DreamerV3(ENVIRONMENTS[name], run=run, **settings).learn(60, progress=False)
        return made[name]

    return get


@pytest.fixture
def cartpole(trained):
    return trained("CartPole-v1")


def decide_continuation(agent, monkeypatch, probability):
    """Makes the model give every step this probability to go on."""
    discount = agent.agent.world_model.scales.continue_discount
    monkeypatch.setattr(
        agent.agent.world_model, "predict_continue", lambda f: torch.full(f.shape[:-1], probability * discount)
    )


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_gymnasium_and_baselines_accept_it(trained, name):
    check_env(trained(name).dream_env(starts=4, render_mode="rgb_array"))
    check_env(trained(name).dream_env(starts=4, observation="latent"), skip_render_check=True)
    if name in ("CartPole-v1", "Pendulum-v1"):
        check_for_baselines(trained(name).dream_env(starts=4))


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_spaces_are_those_of_the_real_environment(trained, name):
    agent = trained(name)
    real, dream = agent.adapter.environment, agent.dream_env(starts=4)
    assert dream.observation_space == real.observation_space and dream.action_space == real.action_space
    several = agent.dream_env(3, starts=4)
    assert several.single_observation_space == real.observation_space
    observation, _ = several.reset(seed=0)
    assert several.observation_space.contains(observation)
    observation, reward, terminated, truncated, info = several.step(several.action_space.sample())
    assert several.observation_space.contains(observation)
    assert reward.shape == terminated.shape == truncated.shape == info["continue"].shape == (3,)


def test_a_policy_of_another_library_learns_in_it(cartpole):
    PPO("MlpPolicy", cartpole.dream_env(starts=4, horizon=20), n_steps=32, batch_size=32, device="cpu").learn(64)


def test_steps_are_those_of_imagine(cartpole):
    model = cartpole.agent.world_model
    dream = Dream(model, collect_starts(cartpole.agent, cartpole.source, 3, 1, 0), 3, most_likely=True)
    dream.begin(np.ones(3, np.bool_))
    start, features, rewards, goes_on = dream.state, [], [], []
    actions = np.eye(2, dtype=np.float32)[np.random.default_rng(0).integers(2, size=(5, 3))]
    for action in actions:
        reward, ended, probability = dream.step(action)
        features.append(dream.features().numpy())
        rewards.append(reward)
        goes_on.append(probability)
        assert (ended == (probability < 0.5)).all()
    with torch.no_grad():
        flat = torch.from_numpy(actions)
        states = model.rssm.imagine(lambda feature, step: flat[step], start, 5, deterministic=True)
        expected = torch.stack([state.feature for state in states[1:]])
        assert np.array_equal(np.stack(features), expected.numpy())
        np.testing.assert_allclose(np.stack(rewards), model.predict_reward(expected), atol=1e-6)
        probability = model.predict_continue(expected) * 333 / 332  # the head has learned it times 332 / 333
        np.testing.assert_allclose(np.stack(goes_on), probability.clamp(max=1), atol=1e-6)


def test_episodes_end_as_often_as_the_model_says(cartpole, monkeypatch):
    decide_continuation(cartpole, monkeypatch, 0.7)
    dreams = cartpole.dream_env(500, starts=4)
    dreams.reset(seed=0)
    _, _, terminated, truncated, _ = dreams.step(np.zeros(500, np.int64))
    assert abs(terminated.mean() - 0.3) < 0.08 and not truncated.any()  # four standard errors


@pytest.mark.parametrize(("probability", "ends"), [(0.51, False), (0.49, True)])
def test_most_likely_ends(cartpole, monkeypatch, probability, ends):
    decide_continuation(cartpole, monkeypatch, probability)
    dreams = cartpole.dream_env(5, starts=4, most_likely=True)
    dreams.reset(seed=0)
    assert (dreams.step(np.zeros(5, np.int64))[2] == ends).all()


def test_the_horizon_truncates_and_the_next_step_begins_anew(cartpole, monkeypatch):
    decide_continuation(cartpole, monkeypatch, 1.0)
    dreams = cartpole.dream_env(2, starts=1, horizon=3, observation="latent")
    start, _ = dreams.reset(seed=0)
    for step in range(8):
        observation, reward, terminated, truncated, _ = dreams.step(np.ones(2, np.int64))
        assert not terminated.any() and truncated.all() == (step in (2, 6))
        if step in (3, 7):
            assert np.array_equal(observation, start) and (reward == 0).all()
        else:
            assert not np.array_equal(observation, start)


def test_a_lane_that_ended_begins_while_the_others_go_on(cartpole):
    dreams = cartpole.dream_env(3, starts=1, observation="latent")
    start, _ = dreams.reset(seed=0)
    dreams._ended[:] = [False, True, False]
    observation, *_ = dreams.step(np.ones(3, np.int64))
    assert [np.array_equal(row, first) for row, first in zip(observation, start, strict=True)] == [False, True, False]
    assert dreams._translation.lengths.tolist() == [1, 0, 1]


@pytest.mark.parametrize("num_envs", [None, 4])
def test_a_seed_repeats_a_dream_and_nothing_else_is_touched(cartpole, num_envs):
    action = 1 if num_envs is None else np.ones(num_envs, np.int64)
    dreams = [cartpole.dream_env(num_envs, starts=8) for _ in range(2)]
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    histories = []
    for dream in dreams:
        rows = [dream.reset(seed=3)[0]] + [dream.step(action)[0] for _ in range(6)]
        histories.append(np.stack(rows))
    assert np.array_equal(*histories)
    assert torch.rand(1) == expected
    other = [dreams[0].reset(seed=4)[0]] + [dreams[0].step(action)[0] for _ in range(6)]
    assert not np.array_equal(histories[0], np.stack(other))


def test_temperature_sets_how_random_the_latents_are(cartpole):
    model = cartpole.agent.world_model
    states = collect_starts(cartpole.agent, cartpole.source, 1, 1, 0)
    action = np.tile(np.array([[1, 0]], np.float32), (400, 1))

    def shares(**options):
        """Share of the most frequent class, mean over variables."""
        dream = Dream(model, states, 400, **options)
        dream.step(action)
        return dream.state.stochastic.view(400, 4, 4).mean(0).max(-1).values.mean().item()

    cold, own, hot = (shares(temperature=temperature) for temperature in (0.01, 1.0, 100.0))
    assert cold > 0.95 > own > hot > 0.25  # four classes; 1 % of every distribution stays uniform
    assert hot < 0.32 and shares(most_likely=True) == 1


def test_starts_are_states_after_real_observations(cartpole):
    agent = cartpole.agent
    for context in (1, 3):
        states = collect_starts(agent, cartpole.source, 5, context, 0)
        assert states.deterministic.shape == (5, 32) and states.stochastic.shape == (5, 16)
        assert torch.isfinite(states.feature).all()
        assert len({tuple(row.tolist()) for row in states.feature}) > 1
    again = collect_starts(agent, cartpole.source, 5, 3, 0)
    assert torch.equal(again.feature, states.feature)


def test_a_context_that_no_episode_has(trained):
    agent = trained("nested")  # its episodes have 20 steps
    with pytest.raises(ConfigError, match="smaller context"):
        agent.dream_env(starts=1, context=40)


def test_what_cannot_be_dreamed(cartpole, tmp_path):
    fresh = reverie.DreamerV3("CartPole-v1", run=tmp_path / "run", **TINY)
    with pytest.raises(ConfigError, match="has not learned yet"):
        fresh.dream_env()
    for options, words in (
        ({"temperature": 0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"horizon": 0}, "horizon"),
        ({"observation": "image"}, "decoded"),
        ({"starts": 0}, "starts"),
        ({"context": 0}, "context"),
        ({"num_envs": 0}, "one lane"),
        ({"render_mode": "human"}, "rgb_array"),
    ):
        with pytest.raises(ConfigError, match=words):
            cartpole.dream_env(**options)
    with pytest.raises(ConfigError, match="reset first"):
        cartpole.dream_env(starts=1, render_mode="rgb_array").render()


@pytest.mark.parametrize(("name", "shape"), [("camera", (128, 160, 3)), ("nested", None)])
def test_pictures(trained, name, shape):
    dreams = trained(name).dream_env(2, starts=2, render_mode="rgb_array")
    dreams.reset(seed=0)
    dreams.step(dreams.action_space.sample())
    frames = dreams.render()
    assert len(frames) == 2
    for frame in frames:
        assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[0] % 2 == frame.shape[1] % 2 == 0
        assert shape is None or frame.shape == shape
    assert trained(name).dream_env(starts=2).render() is None


def test_classic_tasks_are_drawn_by_their_own_renderers(trained):
    for name in ("CartPole-v1", "Pendulum-v1"):
        dream = trained(name).dream_env(starts=2, render_mode="rgb_array")
        observation, _ = dream.reset(seed=0)
        renderer, action = StateRenderer.of(gymnasium.make(name)), None
        for _ in range(3):
            assert np.array_equal(dream.render(), renderer.frame(observation, action))
            action = dream.action_space.sample()
            observation, *_ = dream.step(action)


def test_a_loaded_agent_dreams_the_same(cartpole, tmp_path):
    cartpole.save(tmp_path / "saved")
    first, second = (agent.dream_env(starts=4) for agent in (cartpole, reverie.load(tmp_path / "saved")))
    assert np.array_equal(first.reset(seed=0)[0], second.reset(seed=0)[0])
    assert np.array_equal(first.step(1)[0], second.step(1)[0])


def test_a_context_longer_than_every_episode_ends_with_the_episodes(cartpole, monkeypatch):
    from reverie.envs.pool import EnvironmentPool

    taken, step = [], EnvironmentPool.step
    monkeypatch.setattr(EnvironmentPool, "step", lambda pool, action: (taken.append(1), step(pool, action))[1])
    with pytest.raises(ConfigError, match="smaller context"):
        cartpole.dream_env(starts=2, context=10**9)
    assert 0 < len(taken) < 20_000, "random episodes of CartPole have some twenty steps"


@pytest.mark.parametrize("option", [{"seed": 2**64}, {"starts": 10**18}, {"num_envs": 10**18}, {"context": 0}])
def test_numbers_out_of_range_are_refused(cartpole, option):
    with pytest.raises(ConfigError):
        cartpole.dream_env(**{"starts": 2, **option})


@pytest.mark.parametrize("lanes", [None, 2])
def test_a_closed_dream_takes_no_step(cartpole, lanes):
    dream = cartpole.dream_env(lanes, starts=2)
    dream.reset(seed=0)
    dream.step(dream.action_space.sample())
    dream.close()
    for call in (dream.reset, lambda: dream.step(dream.action_space.sample())):
        with pytest.raises(ConfigError, match="closed"):
            call()


@pytest.mark.parametrize("actions", [0, 1, 3])
def test_every_lane_gets_one_action(cartpole, actions):
    dream = cartpole.dream_env(2, starts=2)
    dream.reset(seed=0)
    with pytest.raises(ConfigError, match=f"got {actions} actions for 2"):
        dream.step(np.zeros(actions, np.int64))
