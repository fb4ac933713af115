"""Ctrl-C and SIGTERM as a request to stop at the next good moment."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from reverie.envs.calls import WATCH
from reverie.errors import EnvironmentInterrupted


class Interruption:
    """Whether somebody has asked to stop.

    Attributes:
        requested: true from the first Ctrl-C or SIGTERM on.
    """

    def __init__(self) -> None:
        self.requested = False

    @contextlib.contextmanager
    def listen(self, say: Callable[[str], None]) -> Iterator[None]:
        """Within the block the first signal only sets `requested`; a second one raises KeyboardInterrupt.

        An environment that does not come back after the first one is left by `EnvironmentInterrupted`, which ends the
        block. While it takes long without a signal, `say` names it. Until `end`, environments that are closed later
        have little time, too.

        Does nothing outside the main thread, where Python receives no signals.

        Args:
            say: shows a line; called at the first signal.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: Any) -> None:
            if self.requested:
                raise KeyboardInterrupt
            self.requested = True
            WATCH.request_stop()
            say("stopping: writing a checkpoint (press Ctrl-C again to stop without)")

        WATCH.withdraw_stop()
        previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with WATCH.looking(say):
                yield
        except EnvironmentInterrupted as problem:
            say(str(problem))
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def end(self) -> None:
        """Once environments are closed, the request no longer concerns what comes after."""
        WATCH.withdraw_stop()
