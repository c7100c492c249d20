"""The machine's CPU cores: how many this process may use, and how many of them other programs keep busy."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from stn.config.flags.launcher import launched

SHORTEST_S = 0.3
"""Seconds over which other programs are watched at least: CPU times tick every 0.01 s."""
SETTINGS = {"GOMP_SPINCOUNT": "30000", "THP_MEM_ALLOC_ENABLE": "1"}
"""What libraries read at their start, where the user does not decide.

Turns that a waiting thread spins, against libgomp's 300,000: 3 % slower alone, 1.6 times as fast beside a busy program
(two cores, medians). Huge pages for PyTorch's tensors of 2 MB and more: 1.02 to 1.06 times as fast.
"""


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(_usable_cores())


def _usable_cores() -> set[int]:
    return os.sched_getaffinity(0) if sys.platform == "linux" else set(range(os.cpu_count() or 1))


def free_cores(say: Callable[[str], None]) -> int:
    """Return the cores that other programs leave, at least one; say so if that isn't all."""
    busy = 0 if cores() == 1 else Neighbours().busy_cores()
    if busy:
        say(f"other programs keep {busy} of {cores()} cores busy")
    return max(1, cores() - busy)


def share_cores() -> "Neighbours":
    """Watch other programs from now on, and let waiting threads give up their core sooner: before torch is imported."""
    for name, value in SETTINGS.items():
        if name != "GOMP_SPINCOUNT" or "OMP_WAIT_POLICY" not in os.environ:
            os.environ.setdefault(name, value)
    return Neighbours()


class Neighbours:
    """Measures how busy other programs keep these cores, without this launcher's processes and niced programs."""

    def __init__(self) -> None:
        self._cores = _usable_cores()
        self._start_s, self._before_s = time.monotonic(), self._others_s()

    def _others_s(self) -> float:
        """Return the CPU seconds that other programs have used on these cores."""
        # Niced programs yield to this process, unless it is niced as well.
        kinds = ("user", "system", "nice") if os.name == "posix" and os.nice(0) > 0 else ("user", "system")
        every = [core for i, core in enumerate(psutil.cpu_times(percpu=True)) if i in self._cores]
        total_s = sum(getattr(core, kind, 0.0) for core in every for kind in kinds)
        with suppress(psutil.Error):
            root = psutil.Process(os.getppid() if launched() else os.getpid())
            for process in (root, *root.children(recursive=True)):
                with suppress(psutil.Error):
                    times = process.cpu_times()
                    total_s -= times.user + times.system
        return total_s

    def busy_cores(self) -> int:
        """Return how many of these cores other programs have used, rounded."""
        time.sleep(max(0.0, self._start_s + SHORTEST_S - time.monotonic()))
        elapsed_s = time.monotonic() - self._start_s
        share = (self._others_s() - self._before_s) / elapsed_s
        return max(0, min(len(self._cores), int(share + 0.5)))
