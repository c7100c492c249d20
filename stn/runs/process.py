"""This process on its machine: the cores it may use, and the parent it must not outlive."""

import ctypes
import os
import signal
import sys


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def follow_parent(parent: int) -> None:
    """Get SIGTERM when the parent process dies (Linux)."""
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)
        if os.getppid() != parent:  # dead already
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)


def follow_launcher() -> None:
    """Get SIGTERM when accelerate's launcher dies (Linux).

    The launcher does not forward signals to a single process, which would go on training unseen, next to the
    copy that the user starts again.
    """
    if "ACCELERATE_MIXED_PRECISION" in os.environ:
        follow_parent(os.getppid())
