"""The run directory: the names in it, and how its files are written.

    runs/<name>/<sig>/<seeds>/
        config.yaml      the resolved configuration
        env.json         versions, device, commit, command line
        metrics.jsonl    a row per seed and log interval or evaluation, and of poses at the end
        results.jsonl    a row per finished or failed seed
        status.json      running, stopped, finished or failed
        checkpoints/     seed-<n>/step-<n>.safetensors while it runs, seed-<n>/final.safetensors
        predictions/     seed-<n>.safetensors: the answer to every test image, and images.safetensors
        pictures/        PNGs, drawn at the end
        stop             create it, and the run saves and exits

A file is written under a temporary name, flushed and, if the lease is still held, renamed. A copy that was paused and
deposed can do harm only between that check and the rename, two system calls. metrics.jsonl alone grows in place: a copy
that starts replaces it and keeps it open, so what a deposed copy appends goes to a file that nobody reads.
How result rows are published is in results.py.
"""

import hashlib
import json
import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stn.config.seed_list import format_seeds, parse_seeds
from stn.runs.files import named_in_errors, read_json, read_rows, temporary_file
from stn.runs.records import Metric, Row, Status, valid
from stn.runs.results import Results, lines


def block_name(seeds: str) -> str:
    """Return the directory name of a block: its seeds, or their number and a hash where that is too long."""
    if len(seeds) <= 100:
        return seeds
    return f"{len(parse_seeds(seeds))}-seeds-{hashlib.sha256(seeds.encode()).hexdigest()[:8]}"


class RunDir(Results):
    """One block of seeds of one experiment."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(Path(path))
        self.config, self.env = self.path / "config.yaml", self.path / "env.json"
        self.metrics, self.status, self.stop = (self.path / name for name in ("metrics.jsonl", "status.json", "stop"))
        self.checkpoints, self.pictures = self.path / "checkpoints", self.path / "pictures"
        self._metrics_fd: int | None = None

    @classmethod
    def of(cls, runs: str, name: str, sig: str, seeds: list[int]) -> "RunDir":
        return cls(Path(runs) / name / sig / block_name(format_seeds(seeds)))

    def final(self, seed: int) -> Path:
        """Return the file of a seed's final weights."""
        return self.checkpoints / f"seed-{seed}" / "final.safetensors"

    # ---- who writes

    def stop_reason(self) -> str | None:
        """Return why training here should stop, if it should."""
        return self.lease.lost or ("stop file" if self.stop.exists() else None)

    # ---- metrics and status

    def read_metrics(self) -> list[Row]:
        """Return the undamaged rows of metrics.jsonl."""
        return valid(read_rows(self.metrics), Metric)

    def add_metrics(self, rows: list[Row]) -> None:
        """Append rows to metrics.jsonl, in the file that cut_metrics has opened."""
        if self._metrics_fd is None:
            self.cut_metrics([], 0)
        if self._metrics_fd is not None:
            with named_in_errors(self.metrics), open(self._metrics_fd, "a", encoding="utf-8", closefd=False) as file:
                file.write(lines(rows))

    def sync_metrics(self) -> None:
        """fsync metrics.jsonl: rows that a checkpoint relies on must survive a crash."""
        if self._metrics_fd is not None:
            with named_in_errors(self.metrics):
                os.fsync(self._metrics_fd)

    def cut_metrics(self, seeds: list[int], step: int) -> None:
        """Drop what these seeds logged after a step from metrics.jsonl, and open it to append."""
        self.close_metrics()
        kept = [row for row in self.read_metrics() if row["seed"] not in seeds or row["step"] <= step]
        with self.unless_deposed(), temporary_file(self.metrics, lines(kept)) as temporary:
            if self.may_write():
                self._metrics_fd = os.open(temporary, os.O_WRONLY | os.O_APPEND)
                temporary.replace(self.metrics)

    def close_metrics(self) -> None:
        if self._metrics_fd is not None:
            os.close(self._metrics_fd)
            self._metrics_fd = None

    def write_status(self, state: str, **more: Any) -> None:
        """Write status.json, unless the lease is lost."""
        status = {"state": state, "time": time.time(), "host": socket.gethostname(), "pid": os.getpid(), **more}
        self.replace(self.status, json.dumps(status, indent=1) + "\n")

    def write_end(self, state: str, **more: Any) -> None:
        """Write a final or stopped state, keeping the progress in the status."""
        before = {key: value for key, value in self.read_status().items() if key in ("seeds", "step", "steps")}
        self.write_status(state, **before | more)

    def read_status(self) -> Row:
        """Return what status.json says, {} if it is missing or damaged."""
        return next(iter(valid([read_json(self.status)], Status)), {})


def find_runs(paths: Iterable[str]) -> list[RunDir]:
    """Return the run directories among and below these paths."""
    runs: dict[str, RunDir] = {}
    for path in paths:
        for folder, subfolders, files in os.walk(Path(path).resolve()):
            if "config.yaml" in files:
                subfolders.clear()  # W&B and exports keep files of that name deeper down
                runs[folder] = RunDir(folder)
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
    return list(runs.values())
