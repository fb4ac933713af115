"""TensorBoard's event files, written so that they are read in the order in which they were made.

TensorBoard sorts the files of a run by their names, which begin with the seconds of the clock. Where a clock was set
back, those of a resumed run would sort before the older ones; here a new file always sorts after those that are there.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reverie.safe_files import open_regular

_NAME = re.compile(r"events\.out\.tfevents\.(\d{10})\..+")
_VERSION = "brain.Event:2"


def newest_stamp(folder: Path) -> int | None:
    """Seconds in the name of the event file in a folder that TensorBoard reads last; None without a file."""
    matches = (_NAME.fullmatch(entry.name) for entry in folder.iterdir()) if folder.is_dir() else ()
    return max((int(match[1]) for match in matches if match), default=None)


class EventLog:
    """One new event file.

    Args:
        folder: made if it is not there.
        purge_step: TensorBoard hides what older files have at this step and after it; None hides nothing.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        newest = newest_stamp(folder)
        stamp = int(time.time()) if newest is None else max(int(time.time()), newest + 1)
        name = f"events.out.tfevents.{stamp:010d}.{socket.gethostname()}.{os.getpid()}.0"
        self._file = os.fdopen(open_regular(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb")
        self._records = RecordWriter(self._file)
        self._write(file_version=_VERSION)
        if purge_step is not None:
            self._write(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, values: Iterable[Mapping[str, Any]], step: int) -> None:
        """Appends one event, which then survives a kill.

        Args:
            values: fields of `Summary.Value`.
            step: where TensorBoard shows them.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._write(step=step, summary=Summary(value=[Summary.Value(**value) for value in values]))
        self.flush()

    def add_hyperparameters(self, values: Mapping[str, bool | str | float], metrics: Iterable[str]) -> None:
        """Fills the page of hyperparameters, and a table for those who read text.

        Args:
            values: settings by name.
            metrics: tags that the page shows beside them.
        """
        from torch.utils.tensorboard.summary import hparams, text

        rows = "\n".join(f"| {name} | {value} |" for name, value in values.items())
        table = text("hyperparameters", f"| name | value |\n| --- | --- |\n{rows}")
        for summary in (*hparams(dict(values), dict.fromkeys(metrics, 0.0)), table):
            self._write(step=0, summary=summary)
        self.flush()

    def _write(self, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._records.write(Event(wall_time=time.time(), **fields).SerializeToString())

    def flush(self) -> None:
        """Hands everything to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Flushes and closes the file."""
        self._file.close()
