"""What a run directory has to send to W&B, and what the server has. Failures are one-line OSErrors.

wandb-sync.json in the run directory remembers what the server has confirmed, which saves requests; it may be deleted.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from stn.config.yaml_files import load_yaml
from stn.runs.directory import Row, RunDir
from stn.runs.files import read_json, write_atomic
from stn.tracking.pictures import ending
from stn.tracking.wandb_run import (
    KINDS,
    SeedRun,
    bound_exit,
    confusion_position,
    logged_in,
    position,
    run_id,
    summary_marks,
)

PAGE = 50
"""Runs asked for in one request."""
TIMEOUT_S = 20
UPLOAD = {
    "x_disable_stats": True,  # of this machine, which trains nothing
    "x_disable_machine_info": True,
    "x_save_requirements": False,
    "disable_git": True,
    "disable_code": True,
    "finish_timeout_raises": True,
}


class RunUpload:
    """The seeds of a run directory that the server has not confirmed."""

    def __init__(self, run: RunDir, address: str, finished_elsewhere: set[int], **place: str) -> None:
        self.path, self.marker = run.path, run.path / "wandb-sync.json"
        self.config, self.sig = load_yaml(run.config), run.sig or run.find_sig(run.rows().values())
        if not self.config.log.name:
            raise ValueError("its config.yaml has no log.name")
        log = self.config.log.model_copy(update=place)  # of this upload alone: the file stays as it is
        self.config = self.config.model_copy(update={"log": log})
        self.project, self.entity = self.config.log.wandb_project, self.config.log.wandb_entity
        if self.entity:
            address = f"{address.rpartition('/')[0]}/{self.entity}"
        self.address = f"{address}/{self.project}"
        files = [file.stat() for file in (run.metrics, run.results, run.status) if file.exists()]
        self.stamp: list[list[int]] | None = [[stat.st_size, stat.st_mtime_ns] for stat in files]
        known = read_json(self.marker)
        if known.get("place") != self.address:  # confirmed by another server
            known = {}
        done = known.get("done")
        self.done: dict[str, str] = done if isinstance(done, dict) else {}
        self.seeds: list[SeedUpload] = []
        if self.config.log.wandb == "disabled" or known.get("stamp") == self.stamp:
            return
        self.directory, self.end = run, ending(run)
        results = run.rows()
        rows: dict[int, list[Row]] = {seed: [] for seed in results}
        for row in run.read_metrics():
            if row["kind"] in KINDS:
                rows.setdefault(row["seed"], []).append(row)
        # A seed without a result here may have been trained anew in another block, whose rows then count.
        for seed in sorted(rows.keys() - (finished_elsewhere - results.keys())):
            record = SeedUpload(self, seed, rows[seed], results.get(seed))
            if record.result is None or self.done.get(str(seed)) != record.mark:
                self.seeds.append(record)

    def confirm(self, server_runs: dict[str, Any]) -> None:
        """Remember which seeds the server has, and drop them."""
        complete = [seed for seed in self.seeds if seed.is_complete(server_runs)]
        self.seeds = [seed for seed in self.seeds if seed not in complete]
        self.done |= {str(seed.seed): seed.mark for seed in complete if seed.result}
        known = {"place": self.address, "stamp": None if self.seeds else self.stamp, "done": self.done}
        if complete:
            with suppress(OSError):  # a read-only directory: the server is asked again next time
                write_atomic(self.marker, json.dumps(known) + "\n")


@dataclass(eq=False)
class SeedUpload:
    """The rows and the result of one seed."""

    run: RunUpload
    seed: int
    rows: list[Row]
    result: Row | None

    def __post_init__(self) -> None:
        self.id = run_id(self.run.config, self.run.sig, self.seed)
        self.last = max([*map(position, self.rows), confusion_position(self.result)])
        config, run = self.run.config, self.run.directory
        self.marks = summary_marks(config, run, self.result, self.run.end) if self.result else {}
        """Entries of the run's summary once all has arrived."""
        self.mark = " ".join(self.marks.values())

    def is_complete(self, server_runs: dict[str, Any]) -> bool:
        """Whether the server has all rows and, if the seed has ended, its result."""
        run = server_runs.get(self.id)
        if run is None or (run.historyKeys or {}).get("lastStep", -1) < self.last:
            return False
        if self.result is None:
            return True
        has = {key: run.summary.get(key) for key in self.marks}
        return run.state in ("finished", "failed", "preempted") and has == self.marks


def one_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


@contextmanager
def scratch() -> Iterator[str]:
    """Give W&B a temporary folder for its own files, none of which are needed afterwards."""
    os.environ.setdefault("WANDB_SILENT", "true")  # we print our own messages
    with tempfile.TemporaryDirectory(prefix="wandb-sync-", ignore_cleanup_errors=True) as folder:
        os.environ["WANDB_DIR"] = folder
        yield folder


class Server:
    """A connection to W&B's server, as the user who is logged in."""

    def __init__(self, folder: str) -> None:
        import wandb  # takes half a second

        if not logged_in(wandb):
            raise PermissionError("not logged in to W&B: run `wandb login` on this machine first")
        self.wandb, self.folder = wandb, folder
        bound_exit()
        with self.one_line_errors():
            self.api = wandb.Api(timeout=TIMEOUT_S)
            self.entity = self.api.settings["entity"] or self.api.default_entity
        self.address = f"{self.api.settings['base_url']}/{self.entity}"

    @contextmanager
    def one_line_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each layer of the client has its own classes
            text = "W&B does not answer; nothing is lost, run the same command again"
            raise ConnectionError(f"{text}: {one_line(error)}") from None

    def runs(self, project: str, ids: list[str], entity: str | None = None) -> dict[str, Any]:
        """Return the runs that the server has of these ids."""
        runs: dict[str, Any] = {}
        self.api.flush()
        with self.one_line_errors(), suppress(ValueError):  # ValueError: the project does not exist yet
            for i in range(0, len(ids), PAGE):
                page = {"name": {"$in": ids[i : i + PAGE]}}  # W&B's filters call the id a name
                answer = self.api.runs(f"{entity or self.entity}/{project}", filters=page, per_page=PAGE, lazy=False)
                runs |= {run.id: run for run in answer}
        return runs

    def send(self, seed: SeedUpload) -> int:
        """Send what the server lacks of a seed and return the number of rows; an unfinished seed's run stays open."""
        finish = {"x_update_finish_state": seed.result is not None}
        config, sig = seed.run.config, seed.run.sig
        directory, options = seed.run.directory, UPLOAD | finish
        run = SeedRun(self.wandb, config, sig, seed.seed, "online", directory, self.folder, **options)
        sent = run.send(seed.rows)
        run.finish(seed.result, seed.run.end)
        return sent
