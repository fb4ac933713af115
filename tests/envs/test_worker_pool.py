import os
import signal
import subprocess
import sys
import time
import warnings

import gymnasium
import numpy as np
import pytest
from env_helpers import Exits, ExitsInReset, Frames, Hangs, Noisy, Raises, one_hot
from test_pool import assert_equal_steps, random_actions, rows_of

from process_helpers import ends
from reverie.envs import EnvironmentSource, InProcessPool, WorkerPool
from reverie.envs.workers import Assignment, Worker, WorkerDied
from reverie.errors import ConfigError, EnvironmentProblem, SpaceError


def workers(environment, num_envs, seed=0, **settings):
    kwargs = settings.pop("kwargs", {})
    return WorkerPool(EnvironmentSource(environment, kwargs=kwargs), num_envs, seed, **settings)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("environment_id", ["CartPole-v1", "reverie/CatchPixels-v0"])
def test_same_steps_as_in_process(environment_id):
    with workers(environment_id, 3, seed=4, num_workers=2) as pool:
        expected = InProcessPool(EnvironmentSource(environment_id), 3, 4)
        assert pool.interface == expected.interface and pool.vectorization == "workers"
        assert len(pool.worker_pids) == 2
        for left, right in zip(rows_of(pool, 100)[0], rows_of(expected, 100)[0], strict=True):
            assert_equal_steps(left, right)
        np.testing.assert_array_equal(pool.episodes, expected.episodes)
        assert pool.render() is None
        # Restoring and starting anew are the same, too.
        width = pool.interface.action_width
        taken = [np.tile(one_hot(0, width), (count, 1)) for count in (3, 1, 0)]
        episodes = np.array([2, 0, 5])
        assert_equal_steps(pool.restore(episodes, taken), expected.restore(episodes, taken))
        assert_equal_steps(pool.start_new_episodes(episodes), expected.start_new_episodes(episodes))


def test_killed_worker_is_restarted_and_its_episode_truncated():
    generator = np.random.default_rng(0)
    with workers(Noisy, 2, num_workers=2, kwargs={"length": 20}) as pool:
        reference = InProcessPool(EnvironmentSource(Noisy, kwargs={"length": 20}), 2, 0)
        before = pool.reset()
        reference.reset()
        for _ in range(3):
            actions = random_actions(pool, generator)
            before, _ = pool.step(actions), reference.step(actions)
        victim = pool.worker_pids[0]
        os.kill(victim, signal.SIGKILL)
        with pytest.warns(RuntimeWarning, match=r"environments \[0\] .* was ended by SIGKILL; it is restarted"):
            after = pool.step(actions)
        expected = reference.step(actions)
        assert after.is_last.tolist() == [True, False] and not after.is_terminal.any() and not after.is_first.any()
        assert after.reward.tolist() == [0, 4]
        np.testing.assert_array_equal(after.observation["observation"][0], before.observation["observation"][0])
        np.testing.assert_array_equal(after.observation["observation"][1], expected.observation["observation"][1])
        assert pool.worker_pids[0] != victim and pool.episodes.tolist() == [0, 0]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            following = pool.step(actions)
        assert following.is_first.tolist() == [True, False] and pool.episodes.tolist() == [1, 0]
        fresh = InProcessPool(EnvironmentSource(Noisy), 2, 0).start_new_episodes(np.array([1, 0]))
        np.testing.assert_array_equal(following.observation["observation"][0], fresh.observation["observation"][0])


def test_every_death_is_announced():
    with workers(Noisy, 1, num_workers=1) as pool, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        pool.reset()
        for _ in range(3):
            os.kill(pool.worker_pids[0], signal.SIGKILL)
            for _ in range(3):
                pool.step(np.array([[1, 0]], np.float32))
    assert [str(warning.message).partition("(restart ")[2][0] for warning in seen] == ["1", "2", "3"]


def test_environments_that_share_a_dead_worker(tmp_path):
    with workers(ExitsInReset, 2, num_workers=1, kwargs={"flag": str(tmp_path / "died")}) as pool:
        pool.reset()
        actions = np.stack([one_hot(0)] * 2)
        assert not pool.step(actions).is_last.any()
        assert pool.step(actions).is_last.all()
        # The reset of one environment ends the process: the beginnings are repeated in the new one.
        with pytest.warns(RuntimeWarning, match="ended with exit code 7"):
            steps = pool.step(actions)
        assert steps.is_first.all() and not steps.is_last.any() and pool.episodes.tolist() == [1, 1]
        expected = InProcessPool(EnvironmentSource(Noisy), 2, 0).start_new_episodes(np.array([1, 1]))
        np.testing.assert_array_equal(steps.observation["observation"], expected.observation["observation"])


def test_a_worker_that_dies_again_and_again_is_given_up():
    with workers(Exits, 1, kwargs={"at": 1}) as pool:
        pool.reset()
        with warnings.catch_warnings(record=True) as caught, pytest.raises(EnvironmentProblem, match="the 5th time"):
            warnings.simplefilter("always")
            for _ in range(20):
                pool.step(one_hot(0)[None])
        assert len(caught) == 4


def test_deaths_are_forgotten_after_a_step():
    with workers(Exits, 1, kwargs={"at": 2}) as pool:
        pool.reset()
        with pytest.warns(RuntimeWarning, match="exit code 7"):
            rows = [pool.step(one_hot(0)[None]) for _ in range(18)]
        # Begin, step, die: six times.
        assert [bool(row.is_last[0]) for row in rows] == [False, True, False] * 6


def test_errors_of_the_environment_surface_with_their_traceback():
    with workers(Raises, 2, num_workers=2) as pool:
        pool.reset()
        with pytest.raises(EnvironmentProblem, match="raised KeyError: 'the_lost_key'") as caught:
            for _ in range(3):
                pool.step(np.stack([one_hot(0)] * 2))
        assert 'raise KeyError("the_lost_key")' in str(caught.value.__cause__)
        # Nothing died, and questions and answers are still in step.
        assert pool.reset().is_first.all()


def test_errors_while_making_surface():
    with pytest.raises(SpaceError, match="Text"):
        workers(TextEnvironment, 2)
    with pytest.raises(EnvironmentProblem, match="ZeroDivisionError"):
        workers(lambda: 1 / 0, 1)
    with pytest.raises(EnvironmentProblem, match="exit code 3 while it made"):
        workers(lambda: os._exit(3), 1)
    with pytest.raises(ConfigError, match="num_workers is 0"):
        workers("CartPole-v1", 1, num_workers=0)


class TextEnvironment(Noisy):
    def __init__(self):
        super().__init__()
        self.observation_space = gymnasium.spaces.Text(4)


def test_timeout(tmp_path):
    with workers(Hangs, 1, timeout=0.5, kwargs={"flag": str(tmp_path / "hung")}) as pool:
        pool.reset()
        pool.step(one_hot(0)[None])
        pool.step(one_hot(0)[None])
        with pytest.warns(RuntimeWarning, match="did not answer within 0.5 seconds"):
            steps = pool.step(one_hot(0)[None])
        assert steps.is_last.all() and not steps.is_terminal.any()
        assert pool.step(one_hot(0)[None]).is_first.all()


class StartsAProgram(Noisy):
    """Plays a game that is a program of its own, as ViZDoom's are; `path` gets its process id."""

    def __init__(self, path):
        super().__init__()
        self.program = subprocess.Popen(["sleep", "600"])
        with open(path, "w") as file:
            file.write(str(self.program.pid))


@pytest.mark.parametrize("killed", [False, True])
def test_what_environments_have_started_ends_with_their_process(tmp_path, killed):
    source = EnvironmentSource(StartsAProgram, kwargs={"path": str(tmp_path / "pid")})
    worker = Worker(Assignment(source.for_worker(), 0, (0,), False), None)
    worker.start()
    worker.receive_started()
    program = int((tmp_path / "pid").read_text())
    assert not ends(program, 0.2)
    if killed:
        os.kill(worker.pid, signal.SIGKILL)
        worker.send("anything")
        with pytest.raises(WorkerDied, match="SIGKILL"):
            worker.receive()
    else:
        worker.kill()
    assert worker.pid is None and ends(program)


def test_render_and_close():
    pool = workers(Frames, 3, num_workers=2, render=True)
    pool.reset()
    assert [frame.shape for frame in pool.render()] == [(100, 100, 3)] * 3
    pids = pool.worker_pids
    pool.close()
    pool.close()
    assert not any(is_running(pid) for pid in pids)
    with pytest.raises(EnvironmentProblem, match="closed"):
        pool.reset()


def test_render_survives_a_death():
    with workers(Frames, 2, num_workers=2, render=True) as pool:
        pool.reset()
        os.kill(pool.worker_pids[1], signal.SIGKILL)
        assert pool.render() is None
        with pytest.warns(RuntimeWarning, match="restarted"):
            steps = pool.step(np.stack([one_hot(0)] * 2))
        assert steps.is_last.tolist() == [False, True]
        assert pool.step(np.stack([one_hot(0)] * 2)).is_first.tolist() == [False, True]
        assert len(pool.render()) == 2


def test_an_interrupt_does_not_mix_up_answers(monkeypatch):
    with workers(Noisy, 2, num_workers=2) as pool:
        expected = pool.reset()
        receive = Worker.receive

        def interrupted(self):
            raise KeyboardInterrupt

        monkeypatch.setattr(Worker, "receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.step(np.stack([one_hot(0)] * 2))
        monkeypatch.setattr(Worker, "receive", receive)
        with pytest.raises(EnvironmentProblem, match="whose last step failed"):
            pool.step(np.stack([one_hot(0)] * 2))
        assert_equal_steps(pool.reset(), expected)


def test_one_thread_each_and_sigint_is_left_to_the_parent():
    with workers(ThreadLimit, 1) as pool:
        assert pool.reset().observation["observation"].tolist() == [[1]]
        os.kill(pool.worker_pids[0], signal.SIGINT)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pool.step(one_hot(0)[None])


class ThreadLimit(Noisy):
    def _draw(self):
        return np.array([float(os.environ["OMP_NUM_THREADS"])], np.float32)


SCRIPT = """
import time, gymnasium, numpy as np
from reverie.envs import make_pool

class Mine(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}
    def step(self, action):
        return np.zeros(1, np.float32), 1.0, False, False, {}

gymnasium.register("Mine-v0", entry_point="__main__:Mine")
pool = make_pool("Mine-v0", 2, 0, "workers", num_workers=2)
pool.reset()
pool.step(np.eye(2, dtype=np.float32))
print(*pool.worker_pids, flush=True)
time.sleep(60)
"""


def test_unguarded_script_with_its_own_id_and_the_end_of_the_parent(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    parent = subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2 and all(is_running(pid) for pid in pids)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    deadline = time.monotonic() + 10
    while any(_runs(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_runs(pid) for pid in pids)


def _runs(pid):
    """True unless the process is gone or a zombie that nobody has collected."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
