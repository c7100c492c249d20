"""The run directory: the names in it, and how its files are written.

    runs/<name>/<sig>/<seeds>/
        config.yaml      the resolved configuration
        env.json         versions, device, commit, command line
        metrics.jsonl    a row per seed and log interval or evaluation, and of poses at the end
        results.jsonl    a row per finished or failed seed
        status.json      running, stopped, finished or failed
        checkpoints/     seed-<n>/step-<n>.safetensors while it runs, seed-<n>/final.safetensors
        pictures/        PNGs, drawn at the end
        stop             create it, and the run saves and exits

A file is written under a temporary name, flushed and, if the lease is still held, renamed. A copy that was paused and
deposed can do harm only between that check and the rename, two system calls. metrics.jsonl alone grows in place: a copy
that starts replaces it and keeps it open, so what a deposed copy appends goes to a file that nobody reads.
The rows of a block are published as one act (.rows/pending-*), then each under a name that can be created only once
(.rows/<seed>), then in results.jsonl.
"""

import hashlib
import json
import os
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from stn.config.seed_list import format_seeds, parse_seeds
from stn.runs.files import publish, read_json, read_rows, temporary_file, write_atomic
from stn.runs.lease import Lease

Row = dict[str, Any]


def _lines(rows: list[Row]) -> str:
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)


def block_name(seeds: str) -> str:
    """Return the directory name of a block: its seeds, or their number and a hash where that is too long."""
    if len(seeds) <= 100:
        return seeds
    return f"{len(parse_seeds(seeds))}-seeds-{hashlib.sha256(seeds.encode()).hexdigest()[:8]}"


class RunDir:
    """One block of seeds of one experiment."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config, self.env = self.path / "config.yaml", self.path / "env.json"
        self.metrics, self.results = self.path / "metrics.jsonl", self.path / "results.jsonl"
        self.status, self.stop = self.path / "status.json", self.path / "stop"
        self.checkpoints, self.pictures = self.path / "checkpoints", self.path / "pictures"
        self.published = self.path / ".rows"
        self._metrics_fd: int | None = None
        self.lease = Lease(self.path / ".claim")

    @classmethod
    def of(cls, runs: str, name: str, sig: str, seeds: list[int]) -> "RunDir":
        return cls(Path(runs) / name / sig / block_name(format_seeds(seeds)))

    @cached_property
    def seeds(self) -> set[int] | None:
        """The seeds in its name; None if the name is a hash of them."""
        with suppress(ValueError):
            return set(parse_seeds(self.path.name))
        return None

    # ---- who writes

    def stop_reason(self) -> str | None:
        """Return why training here should stop, if it should."""
        return self.lease.lost or ("stop file" if self.stop.exists() else None)

    def may_write(self) -> bool:
        """Whether we still hold the lease; re-reads the directory."""
        return not self.lease.token or self.lease.held()

    def replace(self, path: Path, content: bytes | str) -> bool:
        """Replace a file of this directory, unless the lease is lost; return whether it was replaced."""
        return write_atomic(path, content, self.may_write)

    # ---- results: .rows/SEED can be created once and decides whose row counts; results.jsonl is written from it

    def rows(self) -> dict[int, Row]:
        """Return the result rows of this block by seed, including those not yet in results.jsonl."""
        rows = {row["seed"]: row for row in read_rows(self.results) if isinstance(row.get("seed"), int)}
        for path in self.published.glob("*"):
            if path.name.isdigit() and int(path.name) not in rows and (row := read_json(path)):
                rows[int(path.name)] = row
        return rows

    def blocks(self) -> list["RunDir"]:
        """Return the run directories of the experiment."""
        return [RunDir(path) for path in sorted(self.path.parent.glob("*")) if path.is_dir()]

    def finished(self) -> dict[int, Row]:
        """Return the result rows by seed, of all blocks of the experiment."""
        return {seed: row for run in reversed(self.blocks()) for seed, row in run.rows().items()}

    def _holders(self, seed: int) -> list["RunDir"]:
        """Return the other blocks that have a row of this seed; any block may if its name is a hash."""
        others = [run for run in self.blocks() if run.path.name != self.path.name]
        return [run for run in others if (run.seeds is None or seed in run.seeds) and seed in run.rows()]

    def add_results(self, rows: list[Row]) -> None:
        """Publish the rows of a block of seeds: all of them or, after a kill, none."""
        pending = self.published / f"pending-{socket.gethostname()}-{os.getpid()}"
        if self.replace(pending, _lines(rows)):
            self.publish_pending()

    def publish_pending(self) -> None:
        """Publish each pending row; if another block of the experiment has one for its seed, that one stays."""
        for path in self.published.glob("pending-*"):
            for row in read_rows(path):
                if not self._holders(row["seed"]):
                    publish(self.published / str(row["seed"]), _lines([row]))
            path.unlink(missing_ok=True)
        self.mend_results()
        self.settle(set(self.rows()))

    def settle(self, seeds: set[int]) -> None:
        """Keep one row per seed. Two blocks that publish at once both check afterwards, so at least one sees both."""
        for seed in seeds & set(self.rows()):
            for later in sorted([self, *self._holders(seed)], key=lambda run: run.path)[1:]:
                later.forget({seed})

    def mend_results(self) -> None:
        """Write published rows into results.jsonl; repeat if another process overwrote it with older rows."""
        while len(rows := self.rows()) != len(read_rows(self.results)):
            if not self.replace(self.results, _lines([rows[seed] for seed in sorted(rows)])):
                return

    def forget(self, seeds: set[int]) -> None:
        """Delete the rows of these seeds from this block."""
        for seed in seeds:
            (self.published / str(seed)).unlink(missing_ok=True)
        self.replace(self.results, _lines([row for row in read_rows(self.results) if row.get("seed") not in seeds]))
        self.mend_results()

    # ---- metrics and status

    def add_metrics(self, rows: list[Row]) -> None:
        """Append rows to metrics.jsonl: to the file that cut_metrics has opened."""
        if self._metrics_fd is None:
            self.cut_metrics([], 0)
        if self._metrics_fd is not None:
            with open(self._metrics_fd, "a", encoding="utf-8", closefd=False) as file:
                file.write(_lines(rows))

    def sync_metrics(self) -> None:
        """fsync metrics.jsonl: rows that a checkpoint relies on must survive a crash."""
        if self._metrics_fd is not None:
            os.fsync(self._metrics_fd)

    def cut_metrics(self, seeds: list[int], step: int) -> None:
        """Replace metrics.jsonl by itself without what these seeds logged after a step, and open it to append."""
        self.close_metrics()
        kept = [r for r in read_rows(self.metrics) if r.get("seed") not in seeds or r.get("step", 0) <= step]
        with temporary_file(self.metrics, _lines(kept)) as temporary:
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
        return read_json(self.status)


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
