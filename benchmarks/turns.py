"""A process's part in measuring programs in turns: it trains when it is told to, and answers with its speed.

Nothing here imports more than Python's own modules, so that a peer's start is its own.
"""

import json
import select
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO


class Turns:
    """Counts the steps of a training loop while it is this process's turn, and keeps it waiting in between.

    A turn's first step only warms up. After its answer a process trains on until all have answered: the processes of
    one form share the machine to the end.
    """

    def __init__(self, seconds: float, answers: TextIO | None = None) -> None:
        self._seconds, self._answers = seconds, answers or sys.stdout
        self._warm = self._answered = False
        self._start = self._cpu = 0.0
        self._images = 0

    def wait(self) -> bool:
        """Say that this process is ready and wait; return whether it has a turn."""
        print("ready", file=self._answers, flush=True)
        self._warm = self._answered = False
        return bool(sys.stdin.readline())

    def enough(self, images: int, synchronise: Callable[[], Any] = lambda: None) -> bool:
        """Count a step of so many images and return whether to stop; ``synchronise`` ends work that still runs."""
        if self._answered:
            if not select.select([sys.stdin], [], [], 0)[0]:
                return False
            sys.stdin.readline()
            synchronise()  # what still runs would disturb the turn of another
            return not self.wait()
        if not self._warm:
            synchronise()
            self._start, self._cpu, self._images, self._warm = time.perf_counter(), time.process_time(), 0, True
            return False
        self._images += images
        if time.perf_counter() - self._start >= self._seconds:
            synchronise()
            seconds, cpu_s = time.perf_counter() - self._start, time.process_time() - self._cpu
            speeds = {"images_per_s": self._images / seconds, "images_per_cpu_s": self._images / cpu_s}
            print(json.dumps(speeds), file=self._answers, flush=True)
            self._answered = True
        return False
