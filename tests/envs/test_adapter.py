import gymnasium
import numpy as np
import pytest
from env_helpers import Frames, Noisy, Raises, Returns, Scripted, one_hot

from reverie.envs import EnvironmentAdapter
from reverie.errors import EnvironmentProblem
from reverie.spaces import ActionPart, ObservationPart


def test_interface_and_plain_use():
    adapter = EnvironmentAdapter(gymnasium.make("CartPole-v1"))
    assert adapter.interface.observations == (ObservationPart("observation", "vector", (4,)),)
    assert adapter.interface.actions == (ActionPart("action", "discrete", 1, (2,)),)
    first = adapter.reset(3)
    again = adapter.reset(3)
    np.testing.assert_array_equal(first["observation"], again["observation"])
    observation, reward, terminated, truncated, info = adapter.step(one_hot(1))
    assert observation["observation"].shape == (4,)
    assert reward == 1 and isinstance(reward, np.float32)
    assert terminated is False and truncated is False and info == {}
    adapter.close()


def test_truncation_is_not_termination():
    for terminate in (False, True):
        adapter = EnvironmentAdapter(Scripted(length=2, terminate=terminate))
        adapter.reset(0)
        assert adapter.step(one_hot(0))[2:4] == (False, False)
        assert adapter.step(one_hot(0))[2:4] == (terminate, not terminate)


def test_action_repeat_sums_rewards_and_stops_at_the_end():
    environment = Noisy(length=5)
    adapter = EnvironmentAdapter(environment, action_repeat=3)
    assert adapter.action_repeat == 3
    adapter.reset(0)
    assert adapter.step(one_hot(1))[1] == 1 + 2 + 3
    observation, reward, terminated, truncated, info = adapter.step(one_hot(0))
    assert (reward, terminated, truncated) == (4 + 5, False, True)
    assert [int(action) for action in environment.actions] == [1, 1, 1, 0, 0]


def test_observations_do_not_share_the_buffer_of_the_environment():
    buffer = np.zeros(1, np.float32)
    adapter = EnvironmentAdapter(Scripted(buffer))
    first = adapter.reset(0)
    buffer[0] = 5
    second = adapter.step(one_hot(0))[0]
    buffer[0] = 6
    assert first["observation"].tolist() == [0] and second["observation"].tolist() == [5]


@pytest.mark.parametrize("reward", [1, 1.0, np.float64(1), np.int32(1), np.array(1.0), np.array([1.0]), True])
def test_rewards_of_any_numeric_type(reward):
    adapter = EnvironmentAdapter(Scripted(reward=reward))
    adapter.reset(0)
    assert adapter.step(one_hot(0))[1] == 1


@pytest.mark.parametrize("reward", [np.nan, np.inf, -np.inf, 1e300, None, "much", np.zeros(2)])
def test_rewards_that_are_refused(reward):
    adapter = EnvironmentAdapter(Scripted(reward=reward))
    adapter.reset(0)
    with pytest.raises(EnvironmentProblem, match="the reward of Scripted is .* one finite number"):
        adapter.step(one_hot(0))


def test_bad_observation_and_bad_action():
    adapter = EnvironmentAdapter(Scripted(np.array([np.nan], np.float32), after_reset=np.zeros(1, np.float32)))
    adapter.reset(0)
    with pytest.raises(EnvironmentProblem, match="holds nan at entry 0"):
        adapter.step(one_hot(0))
    with pytest.raises(EnvironmentProblem, match="not finite"):
        adapter.step(np.array([np.nan, 0], np.float32))


def test_step_needs_a_running_episode():
    adapter = EnvironmentAdapter(Scripted(length=1))
    with pytest.raises(EnvironmentProblem, match="call reset first"):
        adapter.step(one_hot(0))
    adapter.reset(0)
    adapter.step(one_hot(0))
    with pytest.raises(EnvironmentProblem, match="call reset first"):
        adapter.step(one_hot(0))


def test_old_interface_is_refused():
    observation = np.zeros(1, np.float32)
    with pytest.raises(EnvironmentProblem, match=r"returned a ndarray, but Gymnasium asks for \(observation, info\)"):
        EnvironmentAdapter(Returns(reset_result=observation + 1)).reset(0)
    adapter = EnvironmentAdapter(Returns(step_result=(observation, 0.0, False, {})))
    adapter.reset(0)
    with pytest.raises(EnvironmentProblem, match="returned a tuple of 4"):
        adapter.step(one_hot(0))


def test_errors_of_the_environment_keep_their_traceback():
    adapter = EnvironmentAdapter(Raises())
    adapter.reset(0)
    adapter.step(one_hot(0))
    adapter.step(one_hot(0))
    with pytest.raises(EnvironmentProblem, match="step of Raises raised KeyError: 'the_lost_key'") as caught:
        adapter.step(one_hot(0))
    assert isinstance(caught.value.__cause__, KeyError)


class OldGym:
    def reset(self):
        return 0

    def step(self, action):
        return 0, 0.0, False, {}


def test_other_objects_are_refused():
    with pytest.raises(EnvironmentProblem, match="OldGym, but expected a gymnasium.Env: it follows another interface"):
        EnvironmentAdapter(OldGym())
    with pytest.raises(EnvironmentProblem, match="pass an environment id"):
        EnvironmentAdapter(3)
    vector = gymnasium.make_vec("CartPole-v1", num_envs=2)
    with pytest.raises(EnvironmentProblem, match="pass a single environment"):
        EnvironmentAdapter(vector)
    vector.close()


def test_render_and_close():
    assert EnvironmentAdapter(Noisy()).render() is None
    environment = Frames(render_mode="rgb_array")
    adapter = EnvironmentAdapter(environment)
    adapter.reset(0)
    assert adapter.render().shape == (100, 100, 3)
    adapter.close()
    assert environment.closed
    kept = Noisy()
    EnvironmentAdapter(kept, owns_environment=False).close()
    assert not kept.closed


def test_encoding_of_the_wrapped_spaces():
    adapter = EnvironmentAdapter(Scripted())
    assert adapter.encode_observation(np.ones(1, np.float32))["observation"].tolist() == [1]
    assert adapter.decode_action(one_hot(1)) == 1
    assert adapter.encode_action(1).tolist() == [0, 1]
