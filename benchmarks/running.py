"""The processes of a form while they are measured in turns with those of other forms (turns.py is their side)."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import psutil
from measure import DISTURBED, others_s
from measured import Form

from stn.runs.cores import SETTINGS

PATIENCE_S = 300
"""Seconds beyond a turn's own after which a process counts as stuck."""


def command(job: dict[str, Any]) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name(job.get("script", "one_form.py"))), json.dumps(job)]


def cpu_s(process: subprocess.Popen) -> float:
    """Return the CPU time of a process and its children."""
    found = 0.0
    with suppress(psutil.Error):
        for part in (family := psutil.Process(process.pid), *family.children(recursive=True)):
            with suppress(psutil.Error):
                found += sum(part.cpu_times()[:4])
    return found


class Running:
    """Started processes that wait for their turns; RuntimeError says why they ended instead."""

    def __init__(self, form: Form, job: dict[str, Any]) -> None:
        environ = (SETTINGS if form.kind == "fused" else {}) | dict(os.environ)  # as train.py sets it
        self.form, self.job = form, job
        self._turns: list[dict[str, Any]] = []
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by close)
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._stderr}
        start, before = time.perf_counter(), others_s()
        words = command(asdict(form) | job)
        self._parts = [subprocess.Popen(words, text=True, env=environ, **pipes) for _ in range(form.processes)]
        try:
            self._lines()
        except BaseException:  # an interrupt: nobody else knows these processes
            self.close()
            raise
        self.ready_s = time.perf_counter() - start
        self.others_at_start = self._others(start, before, 0.0)

    def _others(self, start: float, before: float, own: float) -> float:
        """Return the cores that other programs have used meanwhile."""
        ours = sum(map(cpu_s, self._parts)) - own
        return max(0.0, others_s() - before - ours) / (time.perf_counter() - start)

    def _lines(self) -> list[str]:
        """Return the next line of each process."""
        timer = threading.Timer(PATIENCE_S + self.job["seconds"], self.kill)
        timer.start()
        try:
            lines = [part.stdout.readline() for part in self._parts if part.stdout]
        finally:
            timer.cancel()
        if not all(lines):
            self._fail()
        return lines

    def _tell(self, word: str) -> None:
        for part in self._parts:
            with suppress(OSError):  # it has ended, which _lines tells
                print(word, file=part.stdin, flush=True)

    def _fail(self) -> NoReturn:
        self.kill()
        codes = [part.wait() for part in self._parts]
        self._stderr.seek(0)
        errors = self._stderr.read().strip().splitlines()
        self.close()
        raise RuntimeError(errors[-1] if errors else f"exit codes {codes}")

    def kill(self) -> None:
        for part in self._parts:
            part.kill()

    def close(self) -> None:
        """Leave no process and no file open; it may be called twice."""
        self.kill()
        for part in self._parts:
            part.wait()
            for pipe in (part.stdin, part.stdout):
                if pipe:
                    with suppress(OSError):  # what was written last has no reader any more
                        pipe.close()
        self._stderr.close()

    def turn(self) -> None:
        """Let the processes train together for a while; again, as often as the job allows, if others disturbed them."""
        tries = [self._turn()]
        while tries[-1]["others_cores"] > DISTURBED and len(tries) <= self.job["again"]:
            tries.append(self._turn())
        self._turns.append(min(tries, key=lambda turn: turn["others_cores"]))

    def _turn(self) -> dict[str, Any]:
        start, before, own = time.perf_counter(), others_s(), sum(map(cpu_s, self._parts))
        self._tell("go")
        speeds = [json.loads(line) for line in self._lines()]
        self._tell("halt")
        self._lines()
        return {"speeds": speeds, "others_cores": self._others(start, before, own)}

    def end(self) -> dict[str, Any]:
        """Let the processes end, and return what was measured; the first turn is left out."""
        for part in self._parts:
            if part.stdin:
                part.stdin.close()
        answers = [json.loads(line) for line in self._lines()]
        if any(part.wait() for part in self._parts):
            self._fail()
        self.close()
        counted = self._turns[1:] or self._turns
        speeds = [[turn["speeds"][i] for turn in self._turns] for i in range(len(self._parts))]
        parts = [
            answer | {key: [turn[key] for turn in turns] for key in ("images_per_s", "images_per_cpu_s")}
            for answer, turns in zip(answers, speeds, strict=True)
        ]
        cpu_speed = statistics.mean(statistics.median(part["images_per_cpu_s"][-len(counted) :]) for part in parts)
        return {
            "images_per_s": statistics.median(sum(s["images_per_s"] for s in turn["speeds"]) for turn in counted),
            "images_per_cpu_s": cpu_speed,
            "peak_mb": max(part["peak_mb"] for part in parts),
            "others_cores": round(statistics.mean(turn["others_cores"] for turn in counted), 3),
            "ready_s": round(self.ready_s, 3),
            "processes": parts,
        }


def measure(form: Form, job: dict[str, Any]) -> dict[str, Any]:
    """Measure a form by itself."""
    running = Running(form, job)
    try:
        for _ in range(job["turns"]):
            running.turn()
        return running.end()
    finally:
        running.close()
