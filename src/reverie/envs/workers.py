"""One worker process: the handle on this side, and the program on the other side.

A worker is started as a new Python program rather than with `multiprocessing.Process`, so that a script without
`if __name__ == "__main__"` works, and so that thread limits are set before numpy is imported. Both sides talk through
a socket pair; what they send is pickled in memory, between processes of one program.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reverie import errors
from reverie.envs.calls import WATCH, Call, Calls
from reverie.envs.episodes import EpisodeRunner, Moment, Task
from reverie.envs.make import EnvironmentSource

# One thread each: many workers with several threads each only get in each other's way. The last is Mesa's renderer,
# where 0 means that no further threads are started.
THREAD_LIMITS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "LP_NUM_THREADS": "0",
}
PROGRAM = (
    "import importlib, json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "module, _, name = sys.argv[3].partition(':'); "
    "getattr(importlib.import_module(module), name)(int(sys.argv[1]))"
)
# How often a silent worker is looked at, in case its end went unnoticed because a child of its own holds the socket.
LOOK_SECONDS = 0.25
# How long a process may take to end once its connection is closed.
ENDING_SECONDS = 1.0
# Importing and making an environment takes longer than a step.
LEAST_STARTING_SECONDS = 60.0


class WorkerTraceback(Exception):
    """The traceback of an error in a worker, as text."""


class WorkerDied(Exception):
    """A worker process ended, or was ended because it did not answer; the message says how."""


@dataclass(frozen=True)
class Assignment:
    """What a worker runs.

    Attributes:
        source: recipe for the environments, from `EnvironmentSource.for_worker`.
        seed: seed of the pool.
        indices: indices of the worker's environments within the pool.
        render: whether to prepare rendering.
        info: names of numbers of the steps' info to pass on.
    """

    source: bytes
    seed: int
    indices: tuple[int, ...]
    render: bool
    info: tuple[str, ...] = ()


class Worker:
    """Handle of one worker process.

    Args:
        assignment: what the worker runs; the first message that its program gets.
        timeout: seconds after which a worker that does not answer counts as dead, or None.
        program: `module:function`, called with the descriptor of the worker's end; see `serve`.
        name: what to call the worker in messages.

    Attributes:
        deaths: deaths since the worker last completed a step; kept by the pool.
    """

    def __init__(
        self,
        assignment: Any,
        timeout: float | None,
        program: str = "reverie.envs.workers:main",
        name: str = "the worker process of an environment",
    ) -> None:
        self.assignment = assignment
        self.name = name
        self._program = program
        self.deaths = 0
        self._timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Any = None
        # Number of the last request. An interrupt may leave an answer unread; its number tells that it is an old one.
        self._requests = 0

    @property
    def pid(self) -> int | None:
        """Process id, or None if the worker does not run."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the process; `receive_started` waits until its environments are made."""
        from multiprocessing import Pipe

        self.kill()
        self._connection, other = Pipe(duplex=True)
        search_path = [entry or os.getcwd() for entry in sys.path]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(other.fileno()), json.dumps(search_path), self._program],
                stdin=subprocess.DEVNULL,
                pass_fds=(other.fileno(),),
                env={**os.environ, **THREAD_LIMITS},
                process_group=0,
            )
        finally:
            other.close()
        self.send(self.assignment)

    def receive_started(self) -> Any:
        """The interface of the worker's environments and their time limit, once they are made.

        Raises:
            WorkerDied: if the process ends before.
            ReverieError: if an environment cannot be made.
        """
        timeout = None if self._timeout is None else max(self._timeout, LEAST_STARTING_SECONDS)
        return self._receive(timeout)

    def send(self, message: Any) -> None:
        """Send a request; a death shows when the answer is received."""
        if self._connection is None:
            return
        self._requests += 1
        try:
            self._connection.send((self._requests, message))
        except OSError:
            # A broken socket is not an error yet; `receive` finds out how the process ended.
            return
        except BaseException:
            # Half a message may be on its way, so nothing sensible can follow it.
            self.kill()
            raise

    def receive(self) -> Any:
        """The answer to the last request.

        Raises:
            WorkerDied: if the process has ended or does not answer in time.
            EnvironmentInterrupted: if it does not answer although somebody has asked to stop.
            ReverieError: if an environment raised; the cause holds the traceback as text.
        """
        return self._receive(self._timeout)

    def kill(self) -> None:
        """End the process at once, if it runs, and what its environments have started."""
        self.signal_end()
        if self._process is not None:
            self._process.wait()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None

    def signal_end(self) -> None:
        """Tell the process and what its environments have started to end, from any thread, and do not wait."""
        process = self._process
        if process is not None:
            # The group outlives the process as long as something of it runs. macOS refuses where nothing does.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

    def stop(self, deadline: float) -> None:
        """Let the process end by itself until `deadline` (of `time.monotonic`), then end it."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(max(0.0, deadline - time.monotonic()))
        self.kill()

    def hang_up(self) -> None:
        """Close the connection, whereupon the process closes its environments and ends."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _receive(self, timeout: float | None) -> Any:
        if self._connection is None or self._process is None:
            raise WorkerDied("was not running")
        call = Call(self.name, time.monotonic(), here=False)
        number = 0
        outer = WATCH.enter(call)
        try:
            while number != self._requests:
                number, answer = self._next_answer(timeout, call)
        finally:
            WATCH.leave(outer)
        if answer[0] == "error":
            _, kind, message, text = answer
            raise getattr(errors, kind, errors.EnvironmentProblem)(message) from WorkerTraceback(f"\n{text}")
        return answer[1]

    def _next_answer(self, timeout: float | None, call: Call) -> tuple[int, Any]:
        """The next answer that comes, with the number of its request."""
        deadline = None if timeout is None else call.began + timeout
        assert self._process is not None
        try:
            while not self._connection.poll(self._look_seconds(deadline)):
                if self._process.poll() is not None and not self._connection.poll(0):
                    raise EOFError
                if deadline is not None and time.monotonic() >= deadline:
                    self.kill()
                    raise WorkerDied(f"did not answer within {timeout:g} seconds")
                if WATCH.overdue(call):
                    self.kill()
                    raise WATCH.give_up(call)
        except (EOFError, OSError):
            raise WorkerDied(self._how_it_ended()) from None
        try:
            numbered: tuple[int, Any] = self._connection.recv()
        except (EOFError, OSError):
            raise WorkerDied(self._how_it_ended()) from None
        except BaseException:
            # Half an answer may have been read, so nothing sensible can follow it.
            self.kill()
            raise
        return numbered

    @staticmethod
    def _look_seconds(deadline: float | None) -> float:
        return LOOK_SECONDS if deadline is None else max(0.0, min(LOOK_SECONDS, deadline - time.monotonic()))

    def _how_it_ended(self) -> str:
        assert self._process is not None
        try:
            code = self._process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return "closed its connection"
        self.kill()
        if code < 0:
            try:
                return f"was ended by {signal.Signals(-code).name}"
            except ValueError:
                return f"was ended by signal {-code}"
        return f"ended with exit code {code}"


def main(descriptor: int) -> None:
    """Program of a worker: make the environments, then answer requests until the connection closes.

    Args:
        descriptor: file descriptor of the worker's end of the socket pair.
    """
    runners: list[EpisodeRunner] = []
    try:
        serve(descriptor, lambda request: _handle(request, runners))
    finally:
        for runner in runners:
            runner.adapter.close()


def serve(descriptor: int, handle: Callable[[Any], Any]) -> None:
    """Answers requests until the connection closes.

    Args:
        descriptor: file descriptor of the worker's end of the socket pair.
        handle: carries out a request and returns the answer; an error that it raises is sent to the other side.
    """
    from multiprocessing.connection import Connection

    # The parent decides what an interrupt from the keyboard means, and ends its workers by closing the connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Calls.protects_exit = False
    os.set_inheritable(descriptor, False)
    connection = Connection(descriptor)
    try:
        while True:
            number, request = connection.recv()
            connection.send((number, _answer(request, handle)))
    except (EOFError, OSError):
        pass


def _make_runners(assignment: Assignment, runners: list[EpisodeRunner]) -> Any:
    """Fill `runners` and return the interface of the environments and their time limit."""
    source = EnvironmentSource.from_worker(assignment.source)
    for index in assignment.indices:
        adapter = source.make(render=assignment.render)
        runners.append(EpisodeRunner(adapter, assignment.seed, index, info=assignment.info))
    return runners[0].adapter.interface, runners[0].adapter.time_limit


def _handle(request: Assignment | str | list[Task | None], runners: list[EpisodeRunner]) -> Any:
    """Carry out an assignment, `"render"`, or a list with a task or None for each environment."""
    if isinstance(request, Assignment):
        return _make_runners(request, runners)
    if isinstance(request, str):
        return [runner.adapter.render() for runner in runners]
    moments: list[Moment | None] = [
        None if task is None else runner.run(task) for runner, task in zip(runners, request, strict=True)
    ]
    return moments


def _answer(request: Any, handle: Callable[[Any], Any]) -> tuple[Any, ...]:
    """The result of a request, or the error that it raises."""
    try:
        return "done", handle(request)
    except errors.ReverieError as error:
        return "error", type(error).__name__, str(error), traceback.format_exc()
    except BaseException as error:  # noqa: BLE001 (whatever it is, the parent must hear of it)
        sentence = f"a worker process raised {type(error).__name__}: {error}"
        return "error", "EnvironmentProblem", sentence, traceback.format_exc()
