"""Starts training processes quickly: imports everything once, then forks a process for each line it reads.

A line is `{"words": [...], "kill_after": [checkpoints, operations] or null, "seconds": s or null, "errors": path}`. The
process kills itself with SIGKILL at a file operation counted from the start or from its first new checkpoint, or is
killed after so many seconds. The answer is its exit status.
"""

import json
import os
import signal
import sys
import time
import traceback

import reverie.training.curves
import reverie.training.trainer  # noqa: F401
from reverie.cli.main import main

CHANGES = ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.truncate")


def kill_after(checkpoints, operations):
    """Kills this process at a change of the file system; see above."""
    seen = {"checkpoints": 0, "operations": 0}

    def hook(event, arguments):
        writes = event == "open" and isinstance(arguments[1], str) and any(mode in arguments[1] for mode in "wax+")
        if not writes and event not in CHANGES:
            return
        if seen["checkpoints"] >= checkpoints:
            seen["operations"] += 1
            if seen["operations"] > operations:
                os.kill(os.getpid(), signal.SIGKILL)
        if event == "os.rename" and os.path.basename(str(arguments[1])).isdigit():
            seen["checkpoints"] += 1

    sys.addaudithook(hook)


def child(order):
    errors = os.open(order["errors"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    if order["kill_after"]:
        kill_after(*order["kill_after"])
    code = 1
    try:
        code = main(order["words"])
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if pid == 0:
        child(order)
    if order["seconds"]:
        time.sleep(order["seconds"])
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
