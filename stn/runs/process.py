"""This process on its machine: the cores it may use, and the parent it must not outlive."""

import ctypes
import os
import signal
import sys


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def follow_parent(parent: int) -> None:
    """Take the death of the process that started this one as SIGTERM (Linux)."""
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)
        if os.getppid() != parent:  # dead already
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)


def follow_launcher() -> None:
    """Take the death of the launcher that started this process as SIGTERM (Linux).

    accelerate's launcher does not pass signals on to a single process, which would train on
    unseen, next to the copy that the user starts again.
    """
    if "ACCELERATE_MIXED_PRECISION" in os.environ:
        follow_parent(os.getppid())
