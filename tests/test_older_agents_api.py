"""PlaNet, Dreamer v1 and DreamerV2 through the Python interface."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import reverie
from reverie.api import LEARNERS
from reverie.cli.environment import EnvironmentOptions, make_source

SMALL = {"preset": "quick", "deterministic": 12, "hidden": 8, "vector_units": 8, "batch_size": 4, "batch_length": 8}
SMALL |= {"horizon": 3, "threads": 1, "evaluation_episodes": 1, "videos": False, "evaluate_every": 0}
AGENTS = {
    "PlaNet": {"random_episodes": 2, "updates": 2, "candidates": 8, "elites": 2, "iterations": 2},
    "DreamerV1": {"warmup_steps": 60, "update_every": 20, "updates": 2},
    "DreamerV2": {"warmup_steps": 60, "replay_ratio": 4.0, "first_updates": 2},
}


@pytest.fixture(scope="module", params=AGENTS)
def learned(request, tmp_path_factory):
    run = tmp_path_factory.mktemp(request.param) / "run"
    agent = getattr(reverie, request.param)("CartPole-v1", run=run, **SMALL, **AGENTS[request.param])
    return agent.learn(160, progress=False)


def test_saved_agents_act_alike(learned, tmp_path):
    learned.save(tmp_path / "saved")
    other = reverie.load(tmp_path / "saved")
    assert type(other) is type(learned) is LEARNERS[learned.agent_name]
    assert other.config == learned.config
    assert other.evaluate(2).returns == learned.evaluate(2).returns


def test_a_run_is_loaded_and_goes_on(learned):
    again = reverie.load(learned.run_folder, checkpoint="latest")
    again.learn(180, progress=False)
    assert again.agent.state_dict().keys() == learned.agent.state_dict().keys()


def test_predict_carries_a_state(learned):
    observation, _ = gymnasium.make("CartPole-v1").reset(seed=0)
    action, state = learned.predict(observation)
    assert action in (0, 1)
    later, _ = learned.predict(observation, state)
    assert later in (0, 1)
    assert state.action.sum() == 1


def test_its_dream_is_an_environment(learned):
    dreams = learned.dream_env(num_envs=3, horizon=4, starts=4, seed=1)
    observation, _ = dreams.reset(seed=0)
    assert observation.shape == (3, 4)
    for _ in range(4):
        observation, reward, _, truncated, _ = dreams.step(dreams.action_space.sample())
        assert np.isfinite(observation).all() and np.isfinite(reward).all()
    assert truncated.all() or not truncated.any()
    check_env(learned.dream_env(horizon=5, starts=2, render_mode="rgb_array"), skip_render_check=True)
    single = learned.dream_env(horizon=3, starts=2, observation="latent")
    assert single.reset(seed=0)[0].shape == (learned.agent.world_model.features,)


def test_it_predicts_open_loop(learned):
    prediction = learned.dream(length=8, sequences=2)
    assert prediction.model["observation"].shape == prediction.truth["observation"].shape
    assert np.isfinite(prediction.reward[1]).all()


@pytest.mark.parametrize(
    ("agent", "environment", "repeat"),
    [
        ("planet", "dmc/cartpole-swingup-v0", 8),
        ("planet", "dmc/ball_in_cup-catch-v0", 4),
        ("planet", "dmc/walker-walk-v0", 2),
        ("dreamer-v1", "dmc/cartpole-swingup-v0", 2),
        ("dreamer-v2", "dmc/walker-walk-v0", 2),
        ("dreamer-v3", "dmc/walker-walk-v0", 1),
        ("planet", "CartPole-v1", 1),
    ],
)
def test_actions_are_repeated_as_in_the_paper(agent, environment, repeat, capsys):
    assert make_source(EnvironmentOptions(environment), agent).action_repeat == repeat
    assert (f"{repeat} as in the paper" in capsys.readouterr().out) == (repeat > 1)
    assert make_source(EnvironmentOptions(environment), agent, quiet=True).action_repeat == repeat
    assert make_source(EnvironmentOptions(environment, action_repeat=3), agent).action_repeat == 3
    assert not capsys.readouterr().out
    for chosen in (None, 3):
        learner = LEARNERS[agent](environment, action_repeat=chosen)
        assert learner.source.action_repeat == (chosen or repeat)
        learner.close()
