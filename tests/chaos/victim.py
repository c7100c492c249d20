"""A short training as a process that can be killed or paused, and what must hold of its directory afterwards."""

import json
import os
import runpy
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORDS = [
    *("--arch", "stn_c0", "--net", "tutorial", "--precision", "fp64", "--seeds", "0-1", "--steps", "12"),
    *("--batch-size", "4", "--limit-train", "32", "--limit-test", "16", "--log.wandb", "disabled"),
    *("--eval.every", "4 steps", "--checkpoint.every", "2 steps", "--log.every", "1 steps"),
    *("--log.no-pictures", "--train.threads", "1"),
]
CLOCK = ("wall_s", "images_per_s")
"""Fields that a clock decides."""


def start(runs: Path, *more: str, before: object = None) -> int:
    """Fork a training into ``runs`` and return its pid; ``before()`` is called in it, to inject a fault."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        for number in (1, 2):
            os.dup2(os.open(runs.parent / f"{runs.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        sys.argv = ["train.py", *WORDS, *more, "--runs", str(runs)]
        if callable(before):
            before()
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 1
    finally:
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


def _without_clock(row: dict) -> dict:
    return {key: value for key, value in row.items() if key not in CLOCK}


@dataclass
class Outcome:
    """What a finished run directory holds, without clocks."""

    results: list[dict]
    metrics: list[dict]
    files: list[str]

    @classmethod
    def read(cls, runs: Path) -> "Outcome":
        (run,) = [path for path in runs.glob("*/*/*") if path.is_dir()]

        def rows(name: str) -> list[dict]:
            return [_without_clock(json.loads(line)) for line in (run / name).read_text().splitlines()]

        files = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
        return cls(rows("results.jsonl"), rows("metrics.jsonl"), [f for f in files if not f.startswith(".claim")])

    def faults(self, expected: "Outcome") -> list[str]:
        """Return in what this differs from an undisturbed run."""
        faults = []
        seeds = [row.get("seed") for row in self.results]
        if lost := {row["seed"] for row in expected.results} - set(seeds):
            faults.append(f"rows lost: {sorted(lost)}")
        if len(set(seeds)) < len(seeds):
            faults.append("rows doubled")
        if self.results != expected.results:
            faults.append("rows differ")
        if len(self.metrics) != len(expected.metrics):
            faults.append(f"{len(self.metrics)} rows of metrics instead of {len(expected.metrics)}")
        elif self.metrics != expected.metrics:
            faults.append("metrics differ")
        if extra := set(self.files) - set(expected.files):
            faults.append(f"left over: {', '.join(sorted(extra))}")
        if missing := set(expected.files) - set(self.files):
            faults.append(f"missing: {', '.join(sorted(missing))}")
        return faults


def undisturbed(folder: Path) -> Outcome:
    """Run a training that nothing happens to."""
    runs = folder / "undisturbed"
    assert end_of(start(runs)) == 0, (folder / "undisturbed.log").read_text()
    return Outcome.read(runs)


def clear(runs: Path) -> None:
    shutil.rmtree(runs, ignore_errors=True)
    runs.with_name(f"{runs.name}.log").unlink(missing_ok=True)
