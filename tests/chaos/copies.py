"""A copy of a run that is paused at one of its writes, deposed by a second copy, and woken again."""

import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

from stn.runs import lease
from tests.chaos.victim import Outcome, clear, end_of, start, undisturbed

LEASE_S = 1.0


def _short_lease() -> None:
    lease.LEASE_S = LEASE_S


def _pause_at(write: int) -> Callable[[], None]:
    """Return what makes a process stop before its fsync number ``write``."""

    def prepare() -> None:
        _short_lease()
        fsync, count = os.fsync, 0

        def counted(handle: int) -> None:
            nonlocal count
            count += 1
            if count == write:
                os.kill(os.getpid(), signal.SIGSTOP)
            fsync(handle)

        os.fsync = counted

    return prepare


def _stopped(pid: int) -> bool:
    """Wait until a process stops or ends; whether it has stopped."""
    _, status = os.waitpid(pid, os.WUNTRACED)
    return os.WIFSTOPPED(status)


def paused_copies(folder: Path, writes: Iterable[int]) -> tuple[int, int, list[str]]:
    """Pause a copy at each of these writes while another finishes its run.

    Return how many were paused, the number of runs, and what was wrong afterwards.
    """
    expected, paused, faults = undisturbed(folder), 0, []
    for write in writes:
        runs = folder / f"paused-{write}"
        first = start(runs, before=_pause_at(write))
        if not _stopped(first):
            break  # a run has fewer writes
        paused += 1
        try:
            second = end_of(start(runs, before=_short_lease))
        finally:  # also if a person interrupts: a stopped process would stay for ever
            os.kill(first, signal.SIGCONT)
        codes = (second, end_of(first))
        found = Outcome.read(runs).faults(expected) + [f"exit codes {codes}"] * (codes != (0, 0))
        faults += [f"{runs.name}: {fault}" for fault in found]
        if not found:
            clear(runs)
    return paused, paused, faults
