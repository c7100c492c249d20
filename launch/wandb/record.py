"""What W&B is to have of a run directory: from config.yaml, metrics.jsonl and results.jsonl.

Owns wandb-sync.json beside them, which spares questions: it keeps what the server has said that it has, and
may be deleted. Must not know the network.
"""

import json
from contextlib import suppress
from typing import Any

from stn.config.schema import Config
from stn.config.yaml_files import load_yaml
from stn.runs.directory import Row, RunDir
from stn.runs.files import read_json, read_rows, write_atomic
from stn.tracking.wandb_run import KINDS, position, run_id


class Seed:
    """What the record has of a seed."""

    def __init__(self, config: Config, sig: str, seed: int, rows: list[Row], result: Row | None) -> None:
        self.config, self.sig, self.seed, self.rows, self.result = config, sig, seed, rows, result
        self.id, self.last = run_id(config, sig, seed), max(map(position, rows), default=-1)

    def is_on(self, server: dict[str, Any]) -> bool:
        """Whether the server has all of it."""
        run = server.get(self.id)
        if run is None or (run.historyKeys or {}).get("lastStep", -1) < self.last:
            return False
        ended = self.result is None or run.state in ("finished", "failed")
        return ended and (self.result is None or run.summary.get("status") == self.result.get("status"))


class Record:
    """A run directory, as it is now."""

    def __init__(self, run: RunDir, place: str, elsewhere: set[int]) -> None:
        self.run, self.marker = run, run.path / "wandb-sync.json"
        self.config, self.sig = load_yaml(run.config), run.path.parent.name
        self.project = self.config.log.wandb_project
        self.place = f"{place}/{self.project}"
        self.stamp: list[list[int]] | None = [
            [f.stat().st_size, f.stat().st_mtime_ns] for f in (run.metrics, run.results) if f.exists()
        ]
        known = read_json(self.marker)
        known = known if known.get("place") == self.place else {}  # not what another server has
        self.done: dict[str, str] = known.get("done", {})
        self.seeds: list[Seed] = []
        if self.config.log.wandb == "disabled" or known.get("stamp") == self.stamp:
            return
        results = run.rows()
        rows: dict[int, list[Row]] = {seed: [] for seed in results}
        for row in read_rows(run.metrics):
            if row.get("kind") in KINDS:
                rows.setdefault(row["seed"], []).append(row)
        for seed, own in sorted(rows.items()):
            result = results.get(seed)
            left_behind = result is None and seed in elsewhere  # another block of seeds began it anew
            if not left_behind and (result is None or self.done.get(str(seed)) != result.get("status")):
                self.seeds.append(Seed(self.config, self.sig, seed, own, result))

    def mark(self, server: dict[str, Any]) -> bool:
        """Keep what the server has said; whether that is everything."""
        there = [seed for seed in self.seeds if seed.is_on(server)]
        self.done |= {str(s.seed): s.result.get("status", "") for s in there if s.result}
        whole = len(there) == len(self.seeds)
        if there:
            known = {"place": self.place, "stamp": self.stamp if whole else None, "done": self.done}
            with suppress(OSError):  # somebody else's directory: the server is asked again next time
                write_atomic(self.marker, json.dumps(known) + "\n")
        return whole

    def drop(self, seed: Seed) -> None:
        """Leave a seed out, so that the directory is looked at again next time."""
        self.seeds.remove(seed)
        self.stamp = None
