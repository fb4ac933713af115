import gymnasium
import numpy as np
import pytest
from env_helpers import one_hot
from gymnasium.utils.env_checker import check_env

from reverie.envs import make
from reverie.envs.suites import TASKS


def play(environment, policy, seed=0):
    """Return and length of one episode; `policy` maps the list of observations so far to an action."""
    observations = [np.array(environment.reset(seed=seed)[0])]
    total, ended = 0.0, False
    while not ended:
        observation, reward, terminated, truncated, _ = environment.step(policy(observations))
        observations.append(np.array(observation))
        total += reward
        ended = terminated or truncated
    return total, len(observations) - 1, terminated


@pytest.mark.parametrize("environment_id", TASKS)
def test_tasks_are_sound_and_deterministic(environment_id):
    environment = gymnasium.make(environment_id)
    check_env(environment.unwrapped, skip_render_check=True)
    adapter = make(environment_id)
    runs = []
    for seed in (5, 5, 6):
        generator = np.random.default_rng(0)
        rows = [adapter.reset(seed)]
        ended = False
        while not ended:
            width = adapter.interface.action_width
            observation, reward, terminated, truncated, _ = adapter.step(one_hot(generator.integers(width), width))
            rows.append({**observation, "reward": reward})
            ended = terminated or truncated
        runs.append(np.concatenate([np.ravel(value) for row in rows for value in row.values()]))
    np.testing.assert_array_equal(runs[0], runs[1])
    if "Identity" not in environment_id:
        assert len(runs[0]) != len(runs[2]) or (runs[0] != runs[2]).any()


def test_repeat_previous_rewards_memory():
    environment = gymnasium.make("reverie/RepeatPrevious-v0")
    for seed in range(3):
        assert play(environment, lambda seen: int(seen[-3]) if len(seen) > 2 else 0, seed) == (46, 48, False)
    returns = [play(environment, lambda seen: int(seen[-1]), seed)[0] for seed in range(100)]
    assert abs(np.mean(returns) - 11.5) < 1.2  # standard error of the mean about 0.29


def test_t_maze_rewards_memory():
    environment = gymnasium.make("reverie/TMaze-v0")

    def remembering(seen):
        if seen[-1][2] == 0:
            return 0
        return 1 if seen[0][0] > 0 else 2

    for seed in range(10):
        assert play(environment, remembering, seed) == (1, 6, True)
    returns = [play(environment, lambda seen: int(seen[-1][2]), seed)[0] for seed in range(200)]
    assert set(returns) == {-1, 1} and abs(np.mean(returns)) < 0.3  # standard error 0.07
    assert play(environment, lambda seen: 0) == (0, 20, False)
    assert play(environment, lambda seen: 2) == (0, 20, False)


def test_t_maze_shows_the_cue_only_once():
    environment = gymnasium.make("reverie/TMaze-v0", length=3)
    observation, _ = environment.reset(seed=0)
    assert abs(observation[0]) == 1
    seen = [environment.step(0)[0].tolist() for _ in range(3)]
    np.testing.assert_allclose(seen, [[0, 1 / 3, 0], [0, 2 / 3, 0], [0, 1, 1]], rtol=1e-6)


def catch(seen):
    """Moves the paddle toward the ball; a ball that covers the paddle has been caught."""
    cells = seen[-1][::16, ::16]
    ball = np.argwhere((cells == (255, 224, 64)).all(-1))[0]
    paddle = np.argwhere((cells == (64, 192, 96)).all(-1))
    return 1 + int(np.sign(ball[1] - (paddle[0, 1] if len(paddle) else ball[1])))


def test_catch_pixels():
    environment = gymnasium.make("reverie/CatchPixels-v0", render_mode="rgb_array")
    for seed in range(10):
        assert play(environment, catch, seed) == (5, 3 + 4 * 4, True)
    assert np.mean([play(environment, lambda seen: 1, seed)[0] for seed in range(20)]) < 0
    observation, _ = environment.reset(seed=1)
    np.testing.assert_array_equal(environment.render(), observation)
    assert environment.observation_space.contains(observation)


def test_catch_pixels_never_moves_the_paddle_out_of_the_frame():
    environment = gymnasium.make("reverie/CatchPixels-v0")
    for action in (0, 2):
        frame, _ = environment.reset(seed=0)
        for _ in range(4):
            frame = environment.step(action)[0]
        column = 0 if action == 0 else 48
        assert (frame[-16:, column : column + 16, 1] == 192).all()


@pytest.mark.parametrize("terminate", [False, True])
def test_identity_tells_action_and_time(terminate):
    adapter = make("reverie/Identity-v0", kwargs={"terminate": terminate})
    assert adapter.reset(0)["observation"].tolist() == [0, 0, 0, 0, 0]
    for number in range(1, 11):
        action = number % 4
        observation, reward, terminated, truncated, _ = adapter.step(one_hot(action, 4))
        assert observation["observation"].tolist() == [*one_hot(action, 4), number]
        assert reward == np.float32(action / 10)
        assert (terminated, truncated) == ((number == 10) and terminate, (number == 10) and not terminate)


def test_identity_maximum_and_continuous_actions():
    assert play(gymnasium.make("reverie/Identity-v0"), lambda seen: 3)[0] == pytest.approx(3)
    adapter = make("reverie/Identity-v0", kwargs={"continuous": True, "length": 2})
    adapter.reset(0)
    observation, reward, *_ = adapter.step(np.array([0.25], np.float32))
    assert observation["observation"].tolist() == [0.25, 1] and reward == 0.25
