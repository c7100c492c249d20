"""A copy of a run that is paused at one of its writes, deposed by a second copy, and woken again."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from stn.runs import lease
from tests.chaos.operations import recorded, watch
from tests.chaos.victim import Injected, Setting, end_of, faults_after, judged, start

LEASE_S = 1.0
Prepare = Callable[[], None]


def _nothing() -> None:
    pass


def short_lease() -> None:
    lease.LEASE_S = LEASE_S


def _with_short_lease(more: Prepare) -> Prepare:
    def prepare() -> None:
        short_lease()
        more()

    return prepare


def _pause_at(number: int, runs: Path, more: Prepare, at: str) -> Prepare:
    """Return what makes a process stop before its operation of this number, of those that begin with ``at``."""

    def act(operation: str, path: Path, _: object) -> None:
        nonlocal number
        counts = f"{operation} {path.name}".startswith(at)
        number -= counts
        if counts and number == 0:
            os.kill(os.getpid(), signal.SIGSTOP)

    def prepare() -> None:
        watch(runs, act)
        more()

    return _with_short_lease(prepare)


def cases(setting: Setting, every: int) -> list[tuple[int, str]]:
    """Return every N-th fsync, and the two moments at which a woken copy could harm metrics.jsonl."""
    syncs = sum(line.startswith("fsync ") for line in recorded(setting))
    metrics = [(1, "fsync .metrics.jsonl."), (5, "write metrics.jsonl")]  # before it is replaced; before a row is added
    return metrics + [(number, "fsync ") for number in range(1, syncs + 1, every)]


def inject(setting: Setting, case: tuple[int, str]) -> Injected:
    """Pause a copy at an operation while another finishes its run."""
    number, at = case
    runs = setting.folder / f"paused-{number}-{at.strip().replace(' ', '-')}"
    return depose(setting, runs, number, [_nothing, _nothing], at)


def depose(setting: Setting, runs: Path, write: int, more: list[Prepare], at: str = "fsync ") -> Injected:
    """Pause a copy, let a second one finish, and wake the first; ``more`` is called in each before it trains."""
    first = start(runs, before=_pause_at(write, runs, more[0], at))
    _, status = os.waitpid(first, os.WUNTRACED)
    if not os.WIFSTOPPED(status):  # it had fewer writes than the run that they were counted in
        return judged(runs, [f"ended before write {write}"] * (os.waitstatus_to_exitcode(status) != 0), 0)
    try:
        second = end_of(start(runs, before=_with_short_lease(more[1])))
    finally:  # also if a person interrupts: a stopped process would stay for ever
        os.kill(first, signal.SIGCONT)
    found = faults_after(runs, setting.expected, end_of(first), first)
    return judged(runs, found + [f"exit code {second} of the second copy"] * (second != 0))
