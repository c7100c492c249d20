"""A short training as a process that can be killed, paused or disturbed."""

import ctypes
import os
import runpy
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from tests.chaos.outcome import Outcome
from tests.support.paths import ROOT

WORDS = [
    *("--arch", "stn_c0", "--net", "tutorial", "--precision", "fp64", "--seeds", "0-1", "--steps", "12"),
    *("--batch-size", "4", "--limit-train", "32", "--limit-test", "16", "--log.wandb", "disabled"),
    *("--eval.every", "4 steps", "--checkpoint.every", "2 steps", "--log.every", "1 steps"),
    *("--log.no-pictures", "--train.threads", "1"),
]
IMPORTED_BY_TRAIN = ("commands.finish", "data.sources", "evaluation.transformer_metrics", "models.nets",
                     "models.wirings", "multiseed.checks.equivalence", "tracking.log", "training.blocks",
                     "training.checkpointer", "training.fingerprint", "training.runtime")  # fmt: skip


def prepare() -> None:
    """Import torch and read the images, for all trainings that are forked from this process."""
    for name in IMPORTED_BY_TRAIN:
        import_module(f"stn.{name}")
    from stn.config.dataset import build_dataset

    build_dataset("mnist").load(None)


def die_with_parent() -> None:
    """Get SIGKILL when the process that started this one ends, however it ends (Linux)."""
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def start(runs: Path, *more: str, before: Callable[[], object] | None = None) -> int:
    """Fork a training into ``runs`` and return its pid; ``before()`` is called in it, to inject a fault."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        die_with_parent()
        os.setsid()
        for number in (1, 2):
            os.dup2(os.open(runs.parent / f"{runs.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.argv = ["train.py", *WORDS, *more, "--runs", str(runs)]
        if before:
            before()
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def end_of(pid: int, timeout_s: float = 120) -> int:
    """Wait for a process and return its exit code (minus the signal that killed it)."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError("a training did not end")


def left_of(pid: int) -> list[int]:
    """Return the processes of a training's session that are still there."""
    left = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(folder.name)) == pid:
                left.append(int(folder.name))
        except ProcessLookupError:
            continue
    return left


class Setting(NamedTuple):
    """What all faults of a kind are injected into."""

    folder: Path
    expected: Outcome
    whole_s: float
    """Seconds that an undisturbed training takes."""
    seed: int


class Injected(NamedTuple):
    number: int
    """How many faults were injected."""
    faults: list[str]
    """What was wrong afterwards."""


def undisturbed(folder: Path, seed: int = 0, *more: str) -> Setting:
    """Run a training that nothing happens to."""
    runs, begin = folder / "undisturbed", time.monotonic()
    assert end_of(start(runs, *more)) == 0, runs.with_name("undisturbed.log").read_text()
    return Setting(folder, Outcome.read(runs), time.monotonic() - begin, seed)


def faults_after(runs: Path, expected: Outcome, code: int, pid: int) -> list[str]:
    """Return what is wrong with a run directory and the last of its processes, which ended with ``code``."""
    found = Outcome.read(runs).faults(expected) + [f"exit code {code}"] * (code != 0)
    return found + [f"processes left: {left}" for left in [left_of(pid)] if left]


def rerun(runs: Path, expected: Outcome) -> list[str]:
    """Run the same command again, undisturbed, and return what is wrong afterwards."""
    pid = start(runs)
    return faults_after(runs, expected, end_of(pid), pid)


def judged(runs: Path, found: list[str], count: int = 1) -> Injected:
    """Return the faults under the name of their run; the directory of a run without any is removed."""
    if not found:
        clear(runs)
    return Injected(count, [f"{runs.name}: {fault}" for fault in found])


def clear(runs: Path) -> None:
    shutil.rmtree(runs, ignore_errors=True)
    runs.with_name(f"{runs.name}.log").unlink(missing_ok=True)
