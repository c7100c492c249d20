"""What a run directory has to send to W&B: from config.yaml, metrics.jsonl and results.jsonl.

wandb-sync.json beside them remembers what the server has confirmed, which saves requests; it may be deleted.
"""

import json
from contextlib import suppress
from typing import Any

from stn.config.schema import Config
from stn.config.yaml_files import load_yaml
from stn.runs.directory import Row, RunDir
from stn.runs.files import read_json, read_rows, write_atomic
from stn.tracking.wandb_run import KINDS, position, run_id


class SeedRecord:
    """The rows and the result of one seed."""

    def __init__(self, config: Config, sig: str, seed: int, rows: list[Row], result: Row | None) -> None:
        self.config, self.sig, self.seed, self.rows, self.result = config, sig, seed, rows, result
        self.id, self.last = run_id(config, sig, seed), max(map(position, rows), default=-1)

    def is_complete(self, server_runs: dict[str, Any]) -> bool:
        """Whether the server has all rows and, if the seed has ended, its result."""
        run = server_runs.get(self.id)
        if run is None or (run.historyKeys or {}).get("lastStep", -1) < self.last:
            return False
        if self.result is None:
            return True
        return run.state in ("finished", "failed") and run.summary.get("status") == self.result.get("status")


class RunRecord:
    """The seeds of a run directory, as it is now, that the server has not confirmed."""

    def __init__(self, run: RunDir, address: str, finished_elsewhere: set[int]) -> None:
        self.run, self.marker = run, run.path / "wandb-sync.json"
        self.config, self.sig = load_yaml(run.config), run.path.parent.name
        self.project = self.config.log.wandb_project
        self.address = f"{address}/{self.project}"
        files = [file.stat() for file in (run.metrics, run.results) if file.exists()]
        self.stamp: list[list[int]] | None = [[stat.st_size, stat.st_mtime_ns] for stat in files]
        known = read_json(self.marker)
        if known.get("place") != self.address:  # confirmed by another server
            known = {}
        self.done: dict[str, str] = known.get("done", {})
        unchanged = known.get("stamp") == self.stamp
        skip = self.config.log.wandb == "disabled" or unchanged
        self.seeds = [] if skip else self._unconfirmed(finished_elsewhere)

    def _unconfirmed(self, finished_elsewhere: set[int]) -> list[SeedRecord]:
        results = self.run.rows()
        rows: dict[int, list[Row]] = {seed: [] for seed in results}
        for row in read_rows(self.run.metrics):
            if row.get("kind") in KINDS:
                rows.setdefault(row["seed"], []).append(row)
        # A seed without a result here may have been trained anew in another block, whose rows then count.
        for seed in finished_elsewhere - results.keys():
            rows.pop(seed, None)
        confirmed = {seed for seed, result in results.items() if self.done.get(str(seed)) == result.get("status")}
        seeds = sorted(rows.keys() - confirmed)
        return [SeedRecord(self.config, self.sig, seed, rows[seed], results.get(seed)) for seed in seeds]

    def confirm(self, server_runs: dict[str, Any]) -> bool:
        """Remember what the server has; return whether it has everything."""
        complete = [seed for seed in self.seeds if seed.is_complete(server_runs)]
        self.done |= {str(seed.seed): seed.result.get("status", "") for seed in complete if seed.result}
        everything = len(complete) == len(self.seeds)
        if complete:
            known = {"place": self.address, "stamp": self.stamp if everything else None, "done": self.done}
            with suppress(OSError):  # a directory that we cannot write: the server is asked again next time
                write_atomic(self.marker, json.dumps(known) + "\n")
        return everything

    def drop(self, seed: SeedRecord) -> None:
        """Give a seed up for now; without a stamp the directory is read again next time."""
        self.seeds.remove(seed)
        self.stamp = None
