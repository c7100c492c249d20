"""The run directory: its names, and how files in it are written. Must not know torch.

    runs/<name>/<sig>/<seeds>/
        config.yaml      the resolved configuration
        env.json         versions, device, commit, command line
        metrics.jsonl    a row per seed and log interval or evaluation
        results.jsonl    a row per finished or failed seed
        status.json      running, stopped, finished or failed
        checkpoints/     seed-<n>/step-<n>.safetensors while it runs, seed-<n>/final.safetensors
        pictures/        PNGs, drawn at the end
        stop             create it, and the run saves and leaves

A file is written under a temporary name, flushed and renamed; metrics.jsonl alone grows in
place, and is cut back to the checkpoint on a resume.
"""

import fcntl
import hashlib
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stn.config import format_seeds

Row = dict[str, Any]


def write_atomic(path: Path, content: bytes | str) -> None:
    """The file is the old one or the new one, never a part, whatever is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_rows(path: Path) -> list[Row]:
    """The rows of a JSONL file; a line torn by a kill is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _lines(rows: list[Row]) -> str:
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)


class RunDir:
    """One block of seeds of one experiment."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config, self.env = self.path / "config.yaml", self.path / "env.json"
        self.metrics, self.results = self.path / "metrics.jsonl", self.path / "results.jsonl"
        self.status, self.stop = self.path / "status.json", self.path / "stop"
        self.checkpoints, self.pictures = self.path / "checkpoints", self.path / "pictures"
        self._lock: Any = None

    @classmethod
    def of(cls, runs: str, name: str, sig: str, seeds: list[int]) -> "RunDir":
        block = format_seeds(seeds)
        if len(block) > 100:
            block = f"{len(seeds)}-seeds-{hashlib.sha256(block.encode()).hexdigest()[:8]}"
        return cls(Path(runs) / name / sig / block)

    def lock(self, tell: Callable[[str], None], patience_s: float = 30.0) -> None:
        """Keep a second copy of the same command out; it waits a little for the first to leave."""
        self.path.mkdir(parents=True, exist_ok=True)
        file, deadline = (self.path / ".lock").open("a+"), time.monotonic() + patience_s
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                busy = f"another process ({(self.path / '.lock').read_text().strip()}) is training {self.path}"
                if time.monotonic() > deadline:
                    file.close()
                    raise OSError(busy) from None
                if not told:
                    tell(f"{busy}; waiting up to {patience_s:.0f} s for it to leave")
                told = True
                time.sleep(0.2)
        file.truncate(0)
        file.write(f"{socket.gethostname()}:{os.getpid()}")
        file.flush()
        self._lock = file

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def finished(self) -> dict[int, Row]:
        """Result rows by seed, of this block and of the other blocks of the same experiment."""
        rows: dict[int, Row] = {}
        for results in sorted(self.path.parent.glob("*/results.jsonl")):
            rows |= {row["seed"]: row for row in read_rows(results) if "seed" in row}
        return rows

    def add_result(self, row: Row) -> None:
        """One row per seed: a second one for the same seed replaces the first."""
        others = [r for r in read_rows(self.results) if r.get("seed") != row["seed"]]
        write_atomic(self.results, _lines(sorted([*others, row], key=lambda r: r["seed"])))

    def add_metrics(self, rows: list[Row]) -> None:
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(_lines(rows))

    def sync_metrics(self) -> None:
        """Rows that a checkpoint relies on must not be lost with the machine."""
        with self.metrics.open("a") as file:
            os.fsync(file.fileno())

    def cut_metrics(self, seeds: list[int], step: int) -> None:
        """Forget what these seeds logged after a step: it is about to be trained again."""
        rows = read_rows(self.metrics)
        kept = [r for r in rows if r.get("seed") not in seeds or r.get("step", 0) <= step]
        write_atomic(self.metrics, _lines(kept))

    def write_status(self, state: str, **more: Any) -> None:
        status = {"state": state, "time": time.time(), "host": socket.gethostname(), "pid": os.getpid(), **more}
        write_atomic(self.status, json.dumps(status, indent=1) + "\n")

    def read_status(self) -> Row:
        return json.loads(self.status.read_text()) if self.status.exists() else {}
