"""python -m tests.chaos: inject faults into short trainings and print what survived."""

import argparse
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

MARK = "STN_CHAOS"
"""Variable of the environment by which all processes of a campaign are found."""


class Kind(NamedTuple):
    """A kind of fault: a row of the table."""

    title: str
    module: str
    ci: int
    """Size in CI: the number of faults, or of every how many-th of all."""
    option: str
    together: bool = True
    """Whether several of its trainings may run at a time."""


KINDS = {
    "kills": Kind("kill at a random moment", "kills", 12, "--kills"),
    "copies": Kind("copy paused at a write, deposed, woken", "copies", 24, "--every"),
    "crashes": Kind("death of the process or its machine at a file operation", "crashes", 36, "--every"),
    "damage": Kind("damaged file of a stopped, killed or finished run", "damage", 12, "--every"),
    "disks": Kind("disk full, failing or read-only at a file operation", "disks", 48, "--every"),
    "clocks": Kind("clocks that jump by hours and days", "clocks", 4, "--kills"),
    "seeds": Kind("one of two seeds diverges", "seeds", 3, "--kills"),
    "parts": Kind("batch divided over ranks or into parts", "parts", 3, "--kills", together=False),
    "ranks": Kind("one of two ranks killed, or told to stop", "ranks", 2, "--kills", together=False),
    "launchers": Kind("launcher of two ranks killed", "launchers", 1, "--kills", together=False),
}


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return int(text)


def _kinds(text: str) -> list[str]:
    names = text.split(",")
    if wrong := [name for name in names if name not in KINDS]:
        raise argparse.ArgumentTypeError(f"no kind '{wrong[0]}'; there are {', '.join(KINDS)}")
    return names


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    listed = "\n".join(f"  {name}: {kind.title}" for name, kind in KINDS.items())
    parser.epilog, parser.formatter_class = f"kinds of fault:\n{listed}", argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", type=_kinds, default=list(KINDS), help="kinds of fault, with commas between")
    parser.add_argument("--kills", type=_positive, help="random moments of each kind that has some")
    parser.add_argument("--every", type=_positive, help="inject at every N-th of all operations or damages")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments and values (default: 0)")
    parser.add_argument("--jobs", type=_positive, default=2, help="trainings at a time (default: 2)")
    return parser.parse_args()


def campaign(chosen: argparse.Namespace, folder: Path) -> tuple[Table, list[str]]:
    """Inject the chosen kinds; return the table of what was injected, and all faults that were found."""
    from tests.chaos.victim import Setting, undisturbed

    table = Table("fault", "injected", "faults", "seconds", title=f"seed {chosen.seed}, in {folder}")
    total: list[str] = []
    for name in chosen.only:
        kind, start, at = KINDS[name], time.monotonic(), folder / name
        module: Any = __import__(f"tests.chaos.{kind.module}", fromlist=["inject"])
        at.mkdir()
        size = (chosen.kills if kind.option == "--kills" else chosen.every) or kind.ci
        setting: Setting = getattr(module, "undisturbed", undisturbed)(at, chosen.seed)
        inject = partial(_inject, module.inject, setting)
        injected = run_all(inject, module.cases(setting, size), chosen.jobs if kind.together else 1)
        faults = [fault for result in injected for fault in result.faults]
        count = sum(result.number for result in injected)
        seconds = f"{time.monotonic() - start:.0f}"
        table.add_row(kind.title, str(count), str(len(faults)), seconds)
        print(f"{name}: {count} injected, {len(faults)} faults, {seconds} s", file=sys.stderr, flush=True)
        total += [f"{name}/{fault}" for fault in faults]
    return table, total


def _inject(inject: Callable, setting: Any, case: Any) -> Any:
    """Inject a fault; that a training did not end, or left what cannot be read, is a fault as well."""
    from tests.chaos.victim import Injected

    try:
        return inject(setting, case)
    except Exception as error:
        return Injected(1, [f"{case}: {type(error).__name__}: {error}"])


def run_all(inject: Callable, cases: list, jobs: int) -> list:
    """Inject every case, several at a time in processes that are forked from this one."""
    if jobs == 1:
        return [inject(case) for case in cases]
    with multiprocessing.get_context("fork").Pool(jobs, _quiet) as pool:
        return pool.map(inject, cases, chunksize=1)


def _quiet() -> None:
    from tests.chaos.victim import die_with_parent

    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def kill_what_is_left(mark: str) -> None:
    """Kill all processes that a campaign has started, but not itself."""
    from tests.support.machine import processes_with

    for pid in processes_with(MARK, mark).keys() - {os.getpid()}:
        os.kill(pid, signal.SIGKILL)


def main() -> int:
    chosen, mark = options(), uuid.uuid4().hex
    os.environ |= {"OMP_NUM_THREADS": "1", MARK: mark}
    from tests.chaos.outcome import SECRETS
    from tests.chaos.victim import prepare

    os.environ |= SECRETS
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: nothing is left behind
    prepare()
    folder = Path(tempfile.mkdtemp(prefix="stn-chaos-"))
    try:
        table, faults = campaign(chosen, folder)
    except KeyboardInterrupt:
        print(f"interrupted; what there was is in {folder}")
        return 130
    finally:
        kill_what_is_left(mark)
    Console().print(table)
    for fault in faults:
        print(fault)
    if not faults:
        shutil.rmtree(folder)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
