"""The death of a process, or of its machine, at each operation by which a run changes its directory."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from tests.chaos.operations import spread, watch
from tests.chaos.victim import Injected, Setting, end_of, judged, rerun, start

DEATHS = ("process", "machine")


def _die_at(number: int, of: str, runs: Path) -> Callable[[], None]:
    """Return what kills a process at its file operation of this number; a write is cut in half."""
    synced_sizes: dict[int, int] = {}
    """Size of each file, by inode, when it was last synced."""

    def act(name: str, path: Path, write_part: Callable[[float], None]) -> None:
        nonlocal number
        number -= 1
        if number == 0:
            write_part(0.5)
            if of == "machine":
                _lose_unsynced(runs, synced_sizes)
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "fsync" and path.is_file():
            synced_sizes[path.stat().st_ino] = path.stat().st_size

    return lambda: watch(runs, act)


def _lose_unsynced(runs: Path, synced_sizes: dict[int, int]) -> None:
    """Cut every file to what was synced of it, as a machine may that loses power."""
    for path in runs.rglob("*"):
        if path.is_file():
            os.truncate(path, min(path.stat().st_size, synced_sizes.get(path.stat().st_ino, 0)))


def cases(setting: Setting, every: int) -> list[tuple[int, str]]:
    return spread(setting, DEATHS, every)


def inject(setting: Setting, case: tuple[int, str]) -> Injected:
    """Let a process die at its operation of this number, and run the command again."""
    number, death = case
    runs = setting.folder / f"{death}-{number}"
    code = end_of(start(runs, before=_die_at(number, death, runs)))
    if code != -signal.SIGKILL:
        return judged(runs, [f"was not killed: exit code {code}"] * (code != 0), 0)
    return judged(runs, rerun(runs, setting.expected))
