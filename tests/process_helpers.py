"""What tests ask about the processes of this machine."""

import subprocess
import time


def ends(pid, seconds=10.0):
    """Whether the process is gone soon; a zombie that nobody has waited for has ended, too."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
        if not state or state.startswith("Z"):
            return True
        time.sleep(0.05)
    return False
