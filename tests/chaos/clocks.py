"""Clocks that jump by an hour or a day, either way, whenever they are asked; only the monotonic ones go on."""

import os
import random
import signal
import time
from collections.abc import Callable

from tests.chaos import copies
from tests.chaos.operations import count_of
from tests.chaos.victim import Injected, Setting, end_of, faults_after, judged, start

JUMPS = (0, 0, 3600, -3600, 86400, -86400)


def _jumping(name: str) -> Callable[[], None]:
    """Return what makes the clock of a process jump at every look at it."""

    def prepare() -> None:
        rng, clock, offset = random.Random(name), time.time, 0

        def jumped() -> float:
            nonlocal offset
            offset += rng.choice(JUMPS)
            return clock() + offset

        time.time = jumped

    return prepare


def cases(setting: Setting, size: int) -> list[tuple[int, int]]:
    """Return a number for each case, and the number of fsyncs of a run."""
    writes = count_of(setting, "fsync")
    return [(i, writes) for i in range(size)]


def inject(setting: Setting, case: tuple[int, int]) -> Injected:
    """Kill or pause a training while clocks jump, and let another one, with other jumps, finish."""
    number, writes = case
    runs, rng = setting.folder / f"jumps-{number}", random.Random(f"{setting.seed} {number}")
    jumps = [_jumping(f"{setting.seed} {number} {copy}") for copy in (0, 1)]
    if number % 2:
        return copies.depose(setting, runs, rng.randint(1, writes), jumps)
    first = start(runs, before=jumps[0])
    time.sleep(rng.uniform(0.1, 1.0) * setting.whole_s)
    os.kill(first, signal.SIGKILL)
    end_of(first)
    second = start(runs, before=jumps[1])
    return judged(runs, faults_after(runs, setting.expected, end_of(second), second))
