import time

import gymnasium
import numpy as np
import pytest
from env_helpers import Frames, Noisy, Raises, Slow, one_hot

from reverie.envs import EnvironmentSource, InProcessPool, WorkerPool, make, make_pool
from reverie.envs import vectorize as vectorize_module
from reverie.envs.episodes import episode_seed
from reverie.envs.make import as_source
from reverie.envs.spaces import random_action
from reverie.errors import ConfigError, EnvironmentProblem


def random_actions(pool, generator):
    return np.stack([random_action(pool.interface, generator) for _ in range(pool.num_envs)])


def rows_of(pool, steps, seed=0):
    """The given number of steps, and the actions that led to them."""
    generator = np.random.default_rng(seed)
    rows, actions = [pool.reset()], []
    for _ in range(steps):
        actions.append(random_actions(pool, generator))
        rows.append(pool.step(actions[-1]))
    return rows, actions


def assert_equal_steps(left, right):
    assert left.observation.keys() == right.observation.keys()
    for name, value in left.observation.items():
        np.testing.assert_array_equal(value, right.observation[name])
        assert value.dtype == right.observation[name].dtype
    for name in ("reward", "is_first", "is_last", "is_terminal"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
        assert getattr(left, name).dtype == getattr(right, name).dtype


def test_types_and_shapes():
    pool = make_pool("CartPole-v1", 3, 0)
    assert pool.num_envs == 3 and pool.interface.action_width == 2
    steps = pool.reset()
    assert steps.observation["observation"].shape == (3, 4)
    assert steps.reward.dtype == np.float32 and steps.reward.tolist() == [0, 0, 0]
    assert steps.is_first.dtype == np.bool_ and steps.is_first.all()
    assert not steps.is_last.any() and not steps.is_terminal.any()
    assert pool.episodes.dtype == np.int64 and pool.episodes.tolist() == [0, 0, 0]


@pytest.mark.parametrize("terminate", [False, True])
def test_next_step_autoreset(terminate):
    source = EnvironmentSource(Noisy, kwargs={"length": 2, "terminate": terminate})
    pool = InProcessPool(source, 1, 0)
    rows, _ = rows_of(pool, 7)
    assert [bool(row.is_first[0]) for row in rows] == [True, False, False, True, False, False, True, False]
    assert [bool(row.is_last[0]) for row in rows] == [False, False, True, False, False, True, False, False]
    assert [bool(row.is_terminal[0]) for row in rows] == [
        False,
        False,
        terminate,
        False,
        False,
        terminate,
        False,
        False,
    ]
    assert [float(row.reward[0]) for row in rows] == [0, 1, 2, 0, 1, 2, 0, 1]
    assert pool.episodes.tolist() == [2]


def test_the_action_after_the_last_step_is_ignored():
    pool = InProcessPool(EnvironmentSource("reverie/Identity-v0", kwargs={"length": 1}), 2, 0)
    pool.reset()
    last = pool.step(np.stack([one_hot(2, 4), one_hot(3, 4)]))
    assert last.is_last.all() and last.observation["observation"][:, :4].argmax(1).tolist() == [2, 3]
    first = pool.step(np.stack([one_hot(1, 4), one_hot(1, 4)]))
    assert first.is_first.all() and (first.observation["observation"] == 0).all()


def test_environments_end_on_their_own():
    pool = make_pool("CartPole-v1", 4, 1)
    rows, _ = rows_of(pool, 120)
    ends = np.stack([row.is_last for row in rows])
    firsts = np.stack([row.is_first for row in rows])
    np.testing.assert_array_equal(firsts[1:], ends[:-1])
    assert not np.array_equal(ends[:, 0], ends[:, 1]) and (ends.sum(0) > 1).all()
    np.testing.assert_array_equal(pool.episodes, firsts.sum(0) - 1)


def test_pool_agrees_with_single_environments():
    pool = make_pool("CartPole-v1", 2, 7)
    rows, actions = rows_of(pool, 60)
    for index in range(2):
        adapter = make("CartPole-v1")
        episode = 0
        expected = adapter.reset(episode_seed(7, index, 0))["observation"]
        ended = False
        for row, action in zip(rows[1:], actions, strict=True):
            if ended:
                episode += 1
                expected, reward, ended = adapter.reset(episode_seed(7, index, episode))["observation"], 0, False
            else:
                parts, reward, terminated, truncated, _ = adapter.step(action[index])
                expected, ended = parts["observation"], terminated or truncated
            np.testing.assert_array_equal(row.observation["observation"][index], expected)
            assert row.reward[index] == reward and row.is_last[index] == ended
        assert episode > 0


def test_seeds_differ_and_never_change():
    seeds = {episode_seed(seed, index, episode) for seed in range(5) for index in range(5) for episode in range(5)}
    assert len(seeds) == 125 and all(0 <= seed < 2**31 for seed in seeds)
    # Written down once: episodes of saved runs must be the same in every later version.
    assert (episode_seed(0, 0, 0), episode_seed(3, 1, 2)) == (821_328_062, 1_620_210_449)


@pytest.mark.parametrize("environment_id", ["CartPole-v1", "Pendulum-v1", "reverie/RepeatPrevious-v0"])
@pytest.mark.parametrize("stop", [0, 1, 33, 57])
def test_restore_continues_exactly(environment_id, stop):
    source = EnvironmentSource(environment_id, time_limit=30 if environment_id == "Pendulum-v1" else None)
    pool = InProcessPool(source, 3, 5)
    rows, actions = rows_of(pool, 90)
    firsts = np.stack([row.is_first for row in rows])[: stop + 1]
    starts = [int(np.flatnonzero(firsts[:, index])[-1]) for index in range(3)]
    taken = [np.array([step[index] for step in actions[start:stop]]) for index, start in enumerate(starts)]
    again = InProcessPool(source, 3, 5)
    restored = again.restore(firsts.sum(0) - 1, taken)
    expected = rows[stop]
    assert_equal_steps(restored, expected)
    for action, row in zip(actions[stop:], rows[stop + 1 :], strict=True):
        assert_equal_steps(again.step(action), row)
    np.testing.assert_array_equal(again.episodes, pool.episodes)


def test_restore_at_the_end_of_an_episode():
    pool = InProcessPool(EnvironmentSource(Noisy, kwargs={"length": 2}), 1, 0)
    steps = pool.restore(np.array([4]), [np.stack([one_hot(0), one_hot(1)])])
    assert steps.is_last.all() and not steps.is_first.any() and steps.reward.tolist() == [2]
    assert pool.step(one_hot(0)[None]).is_first.all() and pool.episodes.tolist() == [5]


def test_restore_of_an_environment_that_is_not_deterministic():
    pool = InProcessPool(EnvironmentSource(Noisy, kwargs={"length": 2}), 1, 0)
    with pytest.raises(EnvironmentProblem, match="ended after 2 of 3 replayed actions"):
        pool.restore(np.array([0]), [np.stack([one_hot(0)] * 3)])
    assert pool.start_new_episodes(np.array([1])).is_first.all()


def test_start_new_episodes():
    pool = InProcessPool(EnvironmentSource("CartPole-v1"), 2, 0)
    steps = pool.start_new_episodes(np.array([4, 9]))
    assert pool.episodes.tolist() == [4, 9] and steps.is_first.all()
    for index, episode in enumerate((4, 9)):
        expected = make("CartPole-v1").reset(episode_seed(0, index, episode))["observation"]
        np.testing.assert_array_equal(steps.observation["observation"][index], expected)


def test_misuse():
    pool = InProcessPool(EnvironmentSource("CartPole-v1"), 2, 0)
    with pytest.raises(EnvironmentProblem, match="never reset"):
        pool.step(np.zeros((2, 2), np.float32))
    pool.reset()
    with pytest.raises(EnvironmentProblem, match=r"shape \(2,\), but the pool takes \(2, 2\)"):
        pool.step(np.zeros(2, np.float32))
    with pytest.raises(EnvironmentProblem, match="not finite"):
        pool.step(np.full((2, 2), np.nan, np.float32))
    with pytest.raises(EnvironmentProblem, match="2 indices of 0 or more"):
        pool.start_new_episodes(np.array([0, -1]))
    with pytest.raises(EnvironmentProblem, match="actions of 1 environments"):
        pool.restore(np.array([0, 0]), [np.zeros((0, 2))])
    pool.close()
    pool.close()
    with pytest.raises(EnvironmentProblem, match="closed"):
        pool.reset()
    for settings in ({"num_envs": 0, "seed": 0}, {"num_envs": 1, "seed": -1}):
        with pytest.raises(ConfigError):
            make_pool("CartPole-v1", **settings)
    with pytest.raises(ConfigError, match="vectorization is 'threads'"):
        make_pool("CartPole-v1", 1, 0, "threads")


def test_an_object_is_one_environment_in_this_process():
    environment = gymnasium.make("CartPole-v1")
    assert make_pool(environment, 1, 0).vectorization == "in-process"
    with pytest.raises(ConfigError, match="single object"):
        make_pool(environment, 2, 0)
    with pytest.raises(ConfigError, match="cannot be copied"):
        make_pool(environment, 1, 0, "workers")


def test_errors_of_the_environment_surface():
    pool = InProcessPool(EnvironmentSource(Raises), 1, 0)
    pool.reset()
    with pytest.raises(EnvironmentProblem, match="the_lost_key") as caught:
        for _ in range(3):
            pool.step(one_hot(0)[None])
    assert isinstance(caught.value.__cause__, KeyError)


def test_render():
    pool = InProcessPool(EnvironmentSource(Frames), 2, 0, render=True)
    pool.reset()
    assert [frame.shape for frame in pool.render()] == [(100, 100, 3)] * 2
    assert InProcessPool(EnvironmentSource(Frames), 2, 0).render() is None


def test_automatic_choice(monkeypatch):
    monkeypatch.setattr(vectorize_module, "processors", lambda: 2)
    with make_pool("CartPole-v1", 2, 0) as cheap:
        assert cheap.vectorization == "in-process" and isinstance(cheap, InProcessPool)
        assert 0 < cheap.step_seconds < 1e-3
    with make_pool(Slow, 2, 0) as expensive:
        assert expensive.vectorization == "workers" and isinstance(expensive, WorkerPool)
        assert expensive.step_seconds > 3e-3
    with make_pool(Slow, 1, 0) as single:
        assert single.vectorization == "in-process" and single.step_seconds is None
    monkeypatch.setattr(vectorize_module, "processors", lambda: 1)
    with make_pool(Slow, 2, 0) as lonely:
        assert lonely.vectorization == "in-process"


class Computes(Slow):
    """Computes for 2 ms of the processor's time a step, however long that takes on a machine that others use."""

    def step(self, action):
        begin = time.process_time()
        while time.process_time() - begin < 0.002:
            pass
        return Noisy.step(self, action)


def test_what_a_step_computes_or_waits_counts(monkeypatch):
    monkeypatch.setattr(vectorize_module, "processors", lambda: 2)
    assert 0.002 < vectorize_module.measure_step_seconds(as_source(Computes), 0) < 0.003
    assert vectorize_module.measure_step_seconds(as_source(Slow), 0) > 0.003
    assert vectorize_module.choose_place(as_source(Computes), 2, 0)[0] == "workers"


def test_the_time_of_other_programs_does_not_count(monkeypatch):
    """The wall clock runs three hundred times as fast as the processor's, as if many others were running."""
    real = time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: 300 * real())
    monkeypatch.setattr(vectorize_module, "MEASURING_LIMIT_SECONDS", 300.0)
    assert vectorize_module.measure_step_seconds(as_source("CartPole-v1"), 0) < 1e-3


def test_measuring_takes_few_steps(monkeypatch):
    monkeypatch.setattr(vectorize_module, "processors", lambda: 2)
    taken = []

    class Counts(Noisy):
        def step(self, action):
            taken.append(action)
            return super().step(action)

    assert vectorize_module.choose_place(as_source(Counts), 2, 0)[0] == "in-process"
    assert len(taken) <= vectorize_module.MOST_MEASURED_STEPS + 1
