"""Whatever the code of an environment does: raise, exit, hang, change settings of the process."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction

import gymnasium
import numpy as np
import pytest
import torch
from env_helpers import Bad, Noisy, Own, Returns, leave, nap, one_hot, spin

from reverie.envs import EnvironmentSource, InProcessPool, WorkerPool, calls, make
from reverie.errors import EnvironmentInterrupted, EnvironmentProblem
from reverie.training.interruption import Interruption


def bad(where, deed):
    return make(lambda: Bad(where, deed))


def use(adapter, where):
    """Calls the method."""
    adapter.reset(0)
    if where == "step":
        adapter.step(one_hot(0))
    if where == "render":
        adapter.render()


def own():
    raise Own("of its own")


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        (leave, "SystemExit: the license has run out"),
        (lambda: sys.exit(0), "SystemExit: 0"),
        (own, "Own: of its own"),
        (lambda: os._exit(0), r"os\._exit\(0\)"),
        (lambda: 1 / 0, "ZeroDivisionError"),
    ],
)
@pytest.mark.parametrize("where", ["make", "reset", "step", "render"])
def test_what_an_environment_raises_is_its_problem(where, deed, words):
    with pytest.raises(EnvironmentProblem, match=words):
        use(bad(where, deed), where)
    assert os._exit is calls._REAL_EXIT


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["make", "reset", "step", "render"])
def test_the_users_own_interrupt_comes_through(where):
    with pytest.raises(KeyboardInterrupt):
        use(bad(where, interrupt), where)


def test_a_process_that_an_environment_forks_may_end():
    ended = []

    def fork():
        child = os.fork()
        if child == 0:
            os._exit(5)
        ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    use(bad("step", fork), "step")
    assert ended == [5]


def full():
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("deed", "words"), [(leave, "SystemExit"), (full, "OSError"), (own, "Own"), (lambda: os._exit(1), "_exit")]
)
def test_an_error_in_close_is_a_warning(deed, words):
    adapter = bad("close", deed)
    with pytest.warns(RuntimeWarning, match=f"close of .*{words}.*nothing else is lost"):
        adapter.close()
    with pytest.warns(RuntimeWarning, match=words), InProcessPool(EnvironmentSource(lambda: Bad("close", deed)), 1, 0):
        pass


def test_sys_exit_in_a_worker_is_a_sentence():
    with WorkerPool(EnvironmentSource(Bad, kwargs={"where": "step", "deed": leave}), 2, 0, num_workers=1) as pool:
        pool.reset()
        with pytest.raises(EnvironmentProblem, match="step of .* raised SystemExit: the license has run out"):
            pool.step(np.stack([one_hot(0)] * 2))
        assert pool.failed and pool.reset().is_first.all() and not pool.failed


def results(terminated=False, truncated=False, reward=1.0):
    adapter = make(lambda: Returns(step_result=(np.zeros(1, np.float32), reward, terminated, truncated, {})))
    adapter.reset(0)
    return adapter.step(one_hot(0))[1:4]


@pytest.mark.parametrize("flag", ["False", "", 0, 1, None, 0.0, np.array([True]), np.array([True, False]), [True], b""])
@pytest.mark.parametrize("name", ["terminated", "truncated"])
def test_flags_are_true_or_false(name, flag):
    with pytest.raises(EnvironmentProblem, match=f"{name} of .* must be True or False"):
        results(**{name: flag})


@pytest.mark.parametrize("flag", [True, np.True_, np.array(True), torch.tensor(True)])
def test_kinds_of_true(flag):
    terminated, truncated = results(terminated=flag)[1:]
    assert terminated is True and truncated is False


@pytest.mark.parametrize(
    "reward", ["1", b"1", "nan", None, 1j, np.array(["2"]), np.datetime64(1, "s"), [1, 2], float("nan")]
)
def test_rewards_are_numbers(reward):
    with pytest.raises(EnvironmentProblem, match="must be one finite number"):
        results(reward=reward)


@pytest.mark.parametrize("reward", [2, 2.0, np.float16(2), np.array([2]), Fraction(2), torch.tensor(2.0)])
def test_kinds_of_two(reward):
    assert results(reward=reward)[0] == 2.0


class Changes(Noisy):
    """Changes settings of the whole process, and counts on them afterwards."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        os.chdir(folder)

    def step(self, action):
        assert os.path.samefile(os.getcwd(), self.folder)
        assert torch.zeros(1).dtype == torch.float64 and not torch.is_grad_enabled()
        return super().step(action)


def test_settings_of_the_process_stay_apart(tmp_path):
    here = os.getcwd()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    adapters = [make(Changes, kwargs={"folder": str(tmp_path / name)}) for name in "ab"]
    for adapter in adapters:
        adapter.reset(0)
    for adapter in adapters:
        adapter.step(one_hot(0))
        assert os.getcwd() == here and torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32
    with torch.no_grad():
        adapters[0].step(one_hot(0))
        assert not torch.is_grad_enabled()


def swallow():
    while True:
        with contextlib.suppress(Exception):  # as clients of simulators that try again and again
            time.sleep(0.01)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(calls, "GRACE_SECONDS", 0.3)
    yield
    calls.WATCH.withdraw_stop()


def asked_to_stop(number=signal.SIGTERM):
    timer = threading.Timer(0.2, os.kill, (os.getpid(), number))
    timer.start()
    return timer


@pytest.mark.parametrize("deed", [lambda: time.sleep(600), spin, swallow])
@pytest.mark.parametrize("where", ["make", "reset", "step", "render"])
def test_one_signal_ends_what_hangs_in_this_process(impatient, where, deed):
    said, interruption = [], Interruption()
    begun = time.monotonic()
    with interruption.listen(said.append):
        asked_to_stop(signal.SIGINT if where == "step" else signal.SIGTERM)
        with pytest.raises(EnvironmentInterrupted, match="did not finish after the request to stop"):
            use(bad(where, deed), where)
        assert interruption.requested and time.monotonic() - begun < 5
    assert said[0].startswith("stopping")
    assert calls.WATCH.call is None


def test_one_signal_ends_what_hangs_in_close(impatient):
    pool = InProcessPool(EnvironmentSource(lambda: Bad("close", spin)), 3, 0)
    interruption = Interruption()
    begun = time.monotonic()
    with interruption.listen(lambda text: None):
        asked_to_stop()
        time.sleep(0.4)
    with pytest.warns(RuntimeWarning, match="close of .* did not finish"):
        pool.close()
    assert time.monotonic() - begun < 5
    interruption.end()
    assert calls.WATCH.stop_since is None


def test_close_has_a_time_limit(monkeypatch):
    monkeypatch.setattr("reverie.envs.adapter.CLOSING_SECONDS", 0.2)
    adapter = bad("close", spin)
    with pytest.warns(RuntimeWarning, match="close of .* did not finish within 0.2 seconds"):
        adapter.close()
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def test_one_signal_ends_what_hangs_in_a_worker(impatient):
    source = EnvironmentSource(Bad, kwargs={"where": "step", "deed": spin})
    with Interruption().listen(lambda text: None), WorkerPool(source, 2, 0, num_workers=2) as pool:
        pool.reset()
        begun = time.monotonic()
        asked_to_stop()
        with pytest.raises(EnvironmentInterrupted, match=r"worker process of environments \[0\]"):
            pool.step(np.stack([one_hot(0)] * 2))
        assert pool.worker_pids == [None, None]
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("workers", [False, True])
def test_slow_calls_are_named(monkeypatch, workers):
    monkeypatch.setattr(calls, "SLOW_SECONDS", 0.2)
    source = EnvironmentSource(Bad, kwargs={"where": "step", "deed": nap})
    said = []
    with Interruption().listen(said.append), (WorkerPool if workers else InProcessPool)(source, 1, 0) as pool:
        pool.reset()
        said.clear()
        pool.step(one_hot(0)[None])
    assert len(said) == 1 and ("worker process" if workers else "step of") in said[0] and "so far" in said[0]


def test_a_slow_step_ends_by_itself_where_there_is_time(impatient):
    adapter = bad("step", lambda: time.sleep(0.3))
    with Interruption().listen(lambda text: None):
        asked_to_stop()
        use(adapter, "step")


def test_environments_in_workers_need_no_torch():
    program = "import sys; import reverie.envs; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_properties_that_raise_are_problems():
    class Property(gymnasium.Env):
        action_space = gymnasium.spaces.Discrete(2)

        @property
        def observation_space(self):
            raise RuntimeError("not yet")

    with pytest.raises(EnvironmentProblem, match="RuntimeError: not yet"):
        make(Property)
