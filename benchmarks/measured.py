"""Measuring forms of training: networks, forms, and rows of rounds; each measurement in fresh processes."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from measure import DISTURBED, console, others_s

from stn.runs.cores import SETTINGS

SIX = ("cnn", "stn_c0", "stn_c0_coord", "stn_cx", "stn_dlx", "stn_slx")
NETWORKS = {"tutorial": ("stn_c0", "tutorial", "mnist"), **{arch: (arch, "finnveden_r", "mnist_r") for arch in SIX}}
MAY_FAIL = ("vmap",)
"""Forms that some versions of torch cannot run: grid_sample under vmap, with torch 2.11."""
PATIENCE_S = 300
"""Seconds beyond its stretches after which a process counts as stuck."""


@dataclass(frozen=True)
class Form:
    kind: str
    processes: int = 1
    seeds: int = 1
    workers: int = 0
    precision: str = "fp32"
    graph: bool = False
    script: str = "one_form.py"

    def __str__(self) -> str:
        seeds = f" {self.seeds} seed{'s' * (self.seeds > 1)}"
        more = {"loader": f" {self.workers} workers", "vmap": seeds, "fused": seeds, "jax": seeds}.get(self.kind, "")
        return self.kind + more + f" {self.precision}" * (self.precision != "fp32") + " graph" * self.graph


@dataclass
class Row:
    form: Form
    rounds: list[dict[str, Any]] = field(default_factory=list)
    """The measurements of one form, a value per round, or its error."""

    @property
    def speeds(self) -> list[float]:
        return [r["images_per_s"] for r in self.rounds if "error" not in r]

    @property
    def median(self) -> float:
        return statistics.median(self.speeds or [0.0])

    def most(self, key: str) -> float:
        return max((r[key] for r in self.rounds if "error" not in r), default=0.0)

    def over(self, other: "Row | None") -> float | None:
        """Return the median ratio of images/s, from the rounds that have both."""
        pairs = [
            p for p in zip(self.rounds, other.rounds if other else [], strict=False) if not any("error" in r for r in p)
        ]
        return statistics.median(a["images_per_s"] / b["images_per_s"] for a, b in pairs) if pairs else None


def best(rows: list[Row], kind: str | None = None, **like: Any) -> Row | None:
    """Return the fastest row whose form has these fields."""
    like |= {"kind": kind} if kind else {}
    fits = [row for row in rows if row.speeds and like.items() <= asdict(row.form).items()]
    return max(fits, key=lambda row: row.median, default=None)


def command(job: dict[str, Any]) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name(job.get("script", "one_form.py"))), json.dumps(job)]


def measure(form: Form, job: dict[str, Any]) -> dict[str, Any]:
    """Start the processes of a form, release them together and return the sum of their images/s."""
    words, pipe = command(asdict(form) | job), subprocess.PIPE
    environ = (SETTINGS if form.kind == "fused" else {}) | dict(os.environ)  # as train.py sets it
    start, before = time.perf_counter(), others_s()
    with tempfile.TemporaryFile("w+") as stderr_file, ExitStack() as pipes:
        started = [
            pipes.enter_context(
                subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=stderr_file, text=True, env=environ)
            )
            for _ in range(form.processes)
        ]
        timer = threading.Timer(PATIENCE_S + job["seconds"] * job["stretches"], lambda: [p.kill() for p in started])
        timer.start()
        try:
            ready = [p.stdout.readline() for p in started if p.stdout]
            ready_s = time.perf_counter() - start
            for p in started:
                print("go", file=p.stdin, flush=True) if all(ready) else p.kill()
            answers = [p.stdout.read() for p in started if p.stdout]
            codes = [p.wait() for p in started]
        finally:
            timer.cancel()
            for p in started:
                p.kill()
        stderr_file.seek(0)
        errors = stderr_file.read().strip().splitlines()
    if any(codes):
        raise RuntimeError(errors[-1] if errors else f"exit codes {codes}")
    parts = [json.loads(answer) for answer in answers]
    counted = [part["images_per_s"][1 : -1 if form.processes > 1 else None] for part in parts]
    speed, peak = sum(map(statistics.median, counted)), max(part["peak_mb"] for part in parts)
    cpu_speed = statistics.mean(statistics.median(part["images_per_cpu_s"][1:]) for part in parts)
    others = max(0.0, others_s() - before) / (time.perf_counter() - start)
    found = {"images_per_s": speed, "images_per_cpu_s": cpu_speed, "peak_mb": peak, "others_cores": round(others, 3)}
    return found | {"ready_s": round(ready_s, 3), "processes": parts}


Measure = Callable[[Form, dict[str, Any]], dict[str, Any]]


def measure_round(name: str, rows: list[Row], job: dict[str, Any], measure: Measure = measure) -> None:
    """Measure every form once; on a GPU the first round ends with other precisions of the fastest form."""
    for row in rows:
        try:
            measurement = measure(row.form, job)
            for _ in range(job["again"]):
                if measurement["others_cores"] > DISTURBED:
                    measurement = min(measurement, measure(row.form, job), key=lambda result: result["others_cores"])
            row.rounds.append(measurement)
        except (RuntimeError, OSError, ValueError) as error:
            row.rounds.append({"error": str(error)})
            console.print(f"{name}, {row.form} failed: {error}")
        fastest = best(rows, "fused")
        if fastest and job["cuda"] and row is rows[-1] and row.form.precision == "fp32":
            rows += [Row(replace(fastest.form, precision=precision)) for precision in ("tf32", "bf16")]


def text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
