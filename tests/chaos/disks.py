"""A disk that is full, fails once or becomes read-only at a chosen operation, and is mended afterwards."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from tests.chaos.operations import spread, watch
from tests.chaos.outcome import Outcome, read_log
from tests.chaos.victim import Injected, Setting, end_of, judged, rerun, start

ERRORS = ("ENOSPC", "EIO", "EROFS")


def _fail_from(number: int, error: str, runs: Path) -> Callable[[], None]:
    """Return what makes the file operation of this number fail and, but for EIO, those after it."""
    code = getattr(errno, error)

    def act(name: str, path: Path, write_part: Callable[[float], None]) -> None:
        nonlocal number
        number -= 1
        if number > 0 or (error == "ENOSPC" and name == "unlink") or (error == "EIO" and number < 0):
            return
        if error == "ENOSPC":
            write_part(0.5)
        raise OSError(code, os.strerror(code))

    return lambda: watch(runs, act)


def cases(setting: Setting, every: int) -> list[tuple[int, str]]:
    return spread(setting, ERRORS, every)


def inject(setting: Setting, case: tuple[int, str]) -> Injected:
    """Let the disk fail from one operation on, and run the command again when it is mended."""
    number, error = case
    runs = setting.folder / f"{error}-{number}"
    code = end_of(start(runs, before=_fail_from(number, error, runs)))
    log, found = read_log(runs), []
    told = [line for line in log.splitlines() if line.startswith("error: ")]
    if code == 0:  # what failed was not needed, as the release of the lease
        found += Outcome.read(runs).faults(setting.expected)
    elif code != 1 or len(told) != 1:
        found.append(f"exit code {code} and {len(told)} lines instead of exit code 1 and one")
    return judged(runs, found + rerun(runs, setting.expected))
