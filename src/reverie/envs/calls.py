"""Calls of an environment's code: what comes out of them, how long they may last, and what they leave unchanged here.

An environment is somebody else's code. It may raise anything, end the process, never return, or change settings that
belong to the whole process. Every call of it goes through `Calls.run`, which turns all of this into an
`EnvironmentProblem` and keeps the settings of the environment and of the library apart.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from reverie.errors import EnvironmentInterrupted, EnvironmentProblem, ReverieError

T = TypeVar("T")

GRACE_SECONDS = 1.5
"""How long a call may last once somebody has asked to stop."""
LATER_SECONDS = 0.1
"""The same after a first call has been given up: other environments hang in the same way."""
CLOSING_SECONDS = 30.0
"""How long closing an environment may take in this process when nobody has asked to stop."""
SLOW_SECONDS = 60.0
"""A call of this length is named on the screen."""
LOOK_SECONDS = 0.1
"""How often to look at the call that is running."""


class Abandoned(BaseException):
    """Leaves a call that lasts too long; no environment catches it by `except Exception`."""


class ProcessExit(BaseException):
    """An environment in this process has called `os._exit`."""


@dataclass(slots=True)
class Call:
    """A call that the main thread waits for.

    Attributes:
        what: the call in words, such as `step of CartPole-v1`.
        began: when, in seconds of `time.monotonic`.
        limit: seconds after which it is given up even if nobody has asked to stop.
        here: whether the code runs in this process, so that only a signal can leave it.
        named: whether the screen shows already that it is slow.
    """

    what: str
    began: float
    limit: float = float("inf")
    here: bool = True
    named: bool = False


class Watch:
    """Looks at the call that the main thread is in, and makes it end where it hangs.

    Signals concern the process as a whole, so there is one watch for all environments, `WATCH`.

    Attributes:
        call: the running call of the main thread, or None.
        stop_since: when somebody asked to stop, in seconds of `time.monotonic`, or None.
    """

    def __init__(self) -> None:
        self.call: Call | None = None
        self.stop_since: float | None = None
        self._patience = GRACE_SECONDS
        self._running = False

    def request_stop(self) -> None:
        """From now on no call may last longer than `GRACE_SECONDS`."""
        self.stop_since = time.monotonic()

    def withdraw_stop(self) -> None:
        """Calls may last as long as they like again."""
        self.stop_since, self._patience = None, GRACE_SECONDS

    def overdue(self, call: Call) -> bool:
        """Whether a call has lasted too long."""
        now = time.monotonic()
        if self.stop_since is None:
            return now - call.began > call.limit
        return now - max(call.began, self.stop_since) > self._patience

    def give_up(self, call: Call) -> EnvironmentProblem:
        """The error for a call that was left because it lasted too long; the calls after it are given less time."""
        self._patience = LATER_SECONDS
        if self.stop_since is None:
            return EnvironmentProblem(f"{call.what} did not finish within {call.limit:g} seconds, so it was given up")
        return EnvironmentInterrupted(f"{call.what} did not finish after the request to stop, so it was given up")

    def enter(self, call: Call) -> Call | None:
        """From now on this is the running call, if this is the main thread; returns the one that was, for `leave`."""
        outer = self.call
        if threading.get_ident() == threading.main_thread().ident:
            self.call = call
        return outer

    def leave(self, outer: Call | None) -> None:
        """Undoes `enter`."""
        if threading.get_ident() == threading.main_thread().ident:
            self.call = outer

    @contextlib.contextmanager
    def looking(self, say: Callable[[str], None] | None = None) -> Iterator[None]:
        """Within the block slow calls are named, and calls that hang in this process are left by a signal.

        Does nothing outside the main thread, where Python receives no signals, on Windows, which cannot send one to a
        thread, and within another such block.

        Args:
            say: shows a line.
        """
        main = threading.main_thread()
        if self._running or threading.current_thread() is not main or not hasattr(signal, "pthread_kill"):
            yield
            return
        ended = threading.Event()
        previous = signal.signal(signal.SIGALRM, self._leave)
        looker = threading.Thread(target=self._look, args=(main.ident, ended, say), daemon=True)
        self._running = True
        looker.start()
        try:
            yield
        finally:
            self._running = False
            ended.set()
            looker.join()  # no signal of it comes after this
            signal.signal(signal.SIGALRM, previous)

    def _look(self, thread: int, ended: threading.Event, say: Callable[[str], None] | None) -> None:
        while not ended.wait(LOOK_SECONDS):
            call = self.call
            if call is None:
                continue
            if call.here and self.overdue(call):
                signal.pthread_kill(thread, signal.SIGALRM)
            elif say is not None and not call.named and time.monotonic() - call.began > SLOW_SECONDS:
                call.named = True
                say(f"{call.what} has taken more than {SLOW_SECONDS:g} seconds so far")

    def _leave(self, number: int, frame: Any) -> None:
        """Runs in the main thread, which may meanwhile have left the call that was looked at."""
        call = self.call
        if call is not None and call.here and self.overdue(call):
            self.call = None  # wherever in the call the exception strikes, it is raised once
            raise Abandoned


WATCH = Watch()


class Calls:
    """Runs the code of one environment.

    Args:
        name: what to call the environment in messages.
    """

    protects_exit = True
    """Whether `os._exit` is refused; a worker process may end, which its pool notices."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._own: dict[str, Any] = {}

    def run(self, method: str, function: Callable[..., T], *args: Any, limit: float = float("inf"), **kwargs: Any) -> T:
        """What a function of the environment returns.

        The working directory, and PyTorch's gradient mode and default dtype, are the library's again afterwards. What
        the environment has made of them is set again for its next call.

        Args:
            method: the name of the function in messages.
            function: the function.
            args: its arguments.
            limit: seconds after which the call is given up.
            kwargs: its keyword arguments.

        Raises:
            KeyboardInterrupt: the user's own Ctrl-C.
            EnvironmentInterrupted: the call lasted too long after somebody had asked to stop.
            EnvironmentProblem: the function has raised anything else, `SystemExit` included, or called `os._exit`.
        """
        global _process
        call = Call(f"{method} of {self.name}", time.monotonic(), limit)
        ours = _settings()
        if self._own:
            _set({**ours, **self._own})
        if self.protects_exit:
            _process, os._exit = os.getpid(), _refuse_exit
        outer = WATCH.enter(call)
        try:
            try:
                return function(*args, **kwargs)
            finally:
                WATCH.leave(outer)
        except (KeyboardInterrupt, ReverieError):
            raise
        except Abandoned as error:
            raise WATCH.give_up(call) from error
        except BaseException as error:
            raise self._raised(method, error) from error
        finally:
            os._exit = _REAL_EXIT
            theirs = _settings()
            self._own = {} if theirs == ours else {key: value for key, value in theirs.items() if value != ours[key]}
            if self._own:
                _set(ours)

    def _raised(self, method: str, error: BaseException) -> EnvironmentProblem:
        did = str(error) if isinstance(error, ProcessExit) else f"raised {type(error).__name__}: {error}"
        return EnvironmentProblem(
            f"{method} of {self.name} {did} (on the command line, REVERIE_TRACEBACK=1 shows where)"
        )


_REAL_EXIT = os._exit
_process = os.getpid()


def _refuse_exit(status: int) -> NoReturn:
    """Takes the place of `os._exit` while an environment runs; a process that it has forked may end."""
    if os.getpid() != _process:
        _REAL_EXIT(status)
    raise ProcessExit(f"tried to end the whole process with os._exit({status})")


def _settings() -> dict[str, Any]:
    """What belongs to the whole process or thread, and an environment may change."""
    torch: Any = sys.modules.get("torch")  # environments in workers do not need it
    try:
        directory = os.getcwd()
    except OSError:  # it has been removed
        directory = None
    if torch is None:
        return {"directory": directory, "gradients": True, "dtype": None}
    return {"directory": directory, "gradients": torch.is_grad_enabled(), "dtype": torch.get_default_dtype()}


def _set(settings: dict[str, Any]) -> None:
    """Makes `_settings` those."""
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.set_grad_enabled(settings["gradients"])
        torch.set_default_dtype(settings["dtype"] or torch.float32)
    if settings["directory"] is not None:
        with contextlib.suppress(OSError):  # it has been removed
            os.chdir(settings["directory"])
