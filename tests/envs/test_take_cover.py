"""Take Cover as World Models played it."""

import os
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from reverie.envs import make
from reverie.envs.suites.take_cover import TakeCover
from reverie.errors import ConfigError, EnvironmentProblem

vizdoom = pytest.importorskip("vizdoom")


@pytest.fixture
def environment():
    made = TakeCover(render_mode="rgb_array")
    yield made
    made.close()


def steps(environment, value, count):
    """The last observation after the same action `count` times."""
    for _ in range(count):
        observation, *_ = environment.step(np.array([value], np.float32))
    return observation


def sideways(environment):
    """Where the player stands along the wall; it grows to the player's right."""
    game = environment._game
    angle = np.deg2rad(game.get_game_variable(vizdoom.GameVariable.ANGLE))
    x = game.get_game_variable(vizdoom.GameVariable.POSITION_X)
    y = game.get_game_variable(vizdoom.GameVariable.POSITION_Y)
    return x * np.sin(angle) - y * np.cos(angle)


def test_thresholds_and_directions(environment):
    # A step from 1/3 in either direction decides; the thresholds themselves do nothing.
    for value, direction in [(-1, -1), (-0.34, -1), (-0.33, 0), (0, 0), (0.33, 0), (0.34, 1), (1, 1)]:
        environment.reset(seed=0)
        start = sideways(environment)
        steps(environment, value, 12)
        moved = sideways(environment) - start
        assert np.sign(moved) == direction, (value, moved)
        assert direction == 0 or abs(moved) > 20


def test_the_picture_moves_against_the_player(environment):
    def shift(value):
        first = environment.reset(seed=0)[0][:, :, 1].astype(float)
        last = steps(environment, value, 12)[:, :, 1].astype(float)
        errors = {k: np.abs(np.roll(first, k, 1)[8:32, 16:48] - last[8:32, 16:48]).mean() for k in range(-12, 13)}
        return min(errors, key=errors.get)

    assert shift(1) < 0 < shift(-1)


def test_observation_is_the_screen_without_the_status_bar(environment):
    observation, _ = environment.reset(seed=0)
    assert observation.shape == (64, 64, 3) and observation.dtype == np.uint8
    screen = environment.render()
    assert screen.shape == (120, 160, 3)
    bands = [screen[row : row + 25].mean((0, 1)) for row in (0, 75)]
    shown = [observation[row : row + 16].mean((0, 1)) for row in (0, 48)]
    np.testing.assert_allclose(shown, bands, atol=4)  # the filter looks a little beyond the bands
    assert np.abs(screen[100:].mean((0, 1)) - shown[1]).max() > 10, "the status bar is another picture"


def test_seeds_repeat_episodes(environment):
    def play(game, seed):
        generator = np.random.default_rng(0)
        frames = [game.reset(seed=seed)[0]]
        frames += [game.step(generator.uniform(-1, 1, 1).astype(np.float32))[0] for _ in range(60)]
        return np.array(frames)

    first, other, again = play(environment, 1), play(environment, 2), play(environment, 1)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    second_process = TakeCover()
    np.testing.assert_array_equal(play(second_process, 1), first)
    unseeded = [environment.reset(seed=1)[0], play(environment, None)]
    repeated = [environment.reset(seed=1)[0], play(environment, None)]
    np.testing.assert_array_equal(unseeded[1], repeated[1])
    assert (unseeded[1] != first).any(), "without a seed another episode begins"
    second_process.close()


def test_random_play_lasts_as_long_as_known(environment):
    generator = np.random.default_rng(0)
    lengths = []
    for seed in range(16):
        environment.reset(seed=seed)
        total, ended = 0.0, False
        while not ended:
            observation, reward, terminated, truncated, _ = environment.step(
                generator.uniform(-1, 1, 1).astype(np.float32)
            )
            assert reward == 1.0
            total += reward
            ended = terminated or truncated
        assert terminated and observation.any(), "the last frame is shown, not a black one"
        lengths.append(total)
    # 212 with a deviation of 109: the mean of 16 episodes has a standard error of 27.
    assert 120 < np.mean(lengths) < 300
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\) first"):
        environment.step(np.zeros(1, np.float32))


def test_the_time_limit_truncates_and_shows_the_last_frame():
    environment = TakeCover(episode_timeout=20)
    for _ in range(2):
        environment.reset(seed=0)
        results = [environment.step(np.array([1], np.float32)) for _ in range(20)]
        assert [result[2:4] for result in results] == [(False, False)] * 19 + [(False, True)]
        assert (results[-1][0] != results[-2][0]).any(), "the last observation is a new one"
    environment.close()
    assert gymnasium.make("reverie/TakeCover-v0").unwrapped.episode_timeout == 2100


def test_check_and_adapter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environment = gymnasium.make("reverie/TakeCover-v0", disable_env_checker=True)
    check_env(environment.unwrapped, skip_render_check=True)
    environment.close()
    adapter = make("reverie/TakeCover-v0")
    assert adapter.reset(0)["image"].shape == (64, 64, 3)
    adapter.environment.close()
    assert os.listdir(tmp_path) == [], "Doom leaves nothing behind in the current folder"


def test_bad_settings():
    with pytest.raises(ConfigError, match="episode_timeout is 0, but it must be at least 1"):
        TakeCover(episode_timeout=0)
    with pytest.raises(ConfigError, match="skill is 6, but it must be from 1 to 5"):
        TakeCover(skill=6)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    with pytest.raises(
        EnvironmentProblem, match=r"'reverie/TakeCover-v0' needs .*pip install \"reverie-rl\[vizdoom\]\""
    ):
        make("reverie/TakeCover-v0")
