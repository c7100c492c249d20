"""python -m launch wandb-sync PATH...: run directories to W&B, from a machine that reaches it.

Owns the conversation with the server, which alone says what it has. May be called again at any time, and
interrupted. Must not know W&B's own files, which lose rows in a kill, nor how seeds are trained.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from launch.wandb_record import Record, Seed
from stn.cli import fail
from stn.rundir import RunDir
from stn.wandb_run import SeedRun, logged_in

Say = Callable[[str], None]
PAGE = 50
"""Runs that the server is asked for at once."""
PATIENCE_S = 15.0
"""The server counts what it was sent a few seconds later."""
UPLOAD = {
    "x_disable_stats": True,  # of this machine, which trains nothing
    "x_disable_machine_info": True,
    "x_save_requirements": False,
    "disable_git": True,
    "disable_code": True,
    "finish_timeout_raises": True,
}


class Synced(NamedTuple):
    rows: int
    """Rows sent now."""
    seeds: int
    """Seeds that they are of, or that were only finished."""
    problems: int
    """Run directories and seeds that are left, each with a line that says why."""


class Server:
    """W&B, as far as it is asked and sent to."""

    def __init__(self, folder: str) -> None:
        import wandb  # imported when it is used: half a second

        if not logged_in(wandb):
            raise PermissionError("not logged in to W&B: run `wandb login` on this machine first")
        self.wandb, self.folder = wandb, folder
        with self._or_one_line():
            self.api = wandb.Api(timeout=20)
            self.entity = self.api.settings["entity"] or self.api.default_entity
        self.place = f"{self.api.settings['base_url']}/{self.entity}"

    @contextmanager
    def _or_one_line(self) -> Iterator[None]:
        try:
            yield
        except (self.wandb.Error, OSError) as error:
            line = next(iter(str(error).splitlines()), type(error).__name__)
            raise ConnectionError(f"W&B does not answer, nothing is lost, try again later: {line}") from None

    def ask(self, project: str, ids: list[str]) -> dict[str, Any]:
        """The runs that it has of these."""
        found: dict[str, Any] = {}
        self.api.flush()
        with self._or_one_line():
            for i in range(0, len(ids), PAGE):
                page = {"name": {"$in": ids[i : i + PAGE]}}  # W&B's filters call the id a name
                try:
                    runs = self.api.runs(f"{self.entity}/{project}", filters=page, per_page=PAGE, lazy=False)
                    found |= {run.id: run for run in runs}
                except ValueError:  # no such project yet
                    return {}
        return found

    def send(self, seed: Seed) -> int:
        """What it lacks of a seed; the number of rows. An unfinished one stays as running as it was."""
        ends = {"x_update_finish_state": seed.result is not None}
        run = SeedRun(self.wandb, seed.config, seed.sig, seed.seed, "online", self.folder, **UPLOAD, **ends)
        sent = run.rows(seed.rows)
        run.finish(seed.result)
        return sent


@contextmanager
def _scratch() -> Iterator[str]:
    """A folder for W&B's own files, none of which are needed afterwards."""
    before = os.environ.get("WANDB_DIR")
    with tempfile.TemporaryDirectory(prefix="wandb-sync-", ignore_cleanup_errors=True) as folder:
        os.environ["WANDB_DIR"] = folder
        try:
            yield folder
        finally:
            os.environ.pop("WANDB_DIR")
            if before is not None:
                os.environ["WANDB_DIR"] = before


def _confirm(server: Server, sent: list[Record], say: Say) -> int:
    """Mark what has arrived; the number of run directories of which the server does not say so."""
    deadline = time.monotonic() + PATIENCE_S
    while sent:
        for project in {record.config.log.wandb_project for record in sent}:
            own = [record for record in sent if record.config.log.wandb_project == project]
            known = server.ask(project, [seed.id for record in own for seed in record.seeds])
            there = [record for record in own if record.mark(known)]
            sent = [record for record in sent if record not in there]
        if time.monotonic() > deadline:
            break
        time.sleep(min(1.0, PATIENCE_S) if sent else 0)
    for record in sent:
        say(f"{record.run.path}: sent, but the server does not say that it has all of it; call again to see")
    return len(sent)


def sync(runs: list[RunDir], say: Say) -> Synced:
    """Send what the server lacks; OSError where it does not answer or nobody is logged in."""
    rows = seeds = problems = 0
    finished: dict[Path, set[int]] = {}
    sent: list[Record] = []
    with _scratch() as folder:
        server = Server(folder)
        for run in runs:
            if run.path.parent not in finished:
                finished[run.path.parent] = set(run.finished())
            try:
                record = Record(run, server.place, finished[run.path.parent])
            except ValueError as error:
                say(f"{run.path} is left out: {error}")
                problems += 1
                continue
            project, ids = record.config.log.wandb_project, [seed.id for seed in record.seeds]
            known = server.ask(project, ids)
            lacking = [seed for seed in record.seeds if not seed.is_on(known)]
            for seed in lacking:
                try:
                    rows += server.send(seed)
                    seeds += 1
                except (server.wandb.Error, TimeoutError) as error:
                    server.ask(project, ids)  # leaves with its own error where it is not this seed's fault
                    say(f"{run.path}, seed {seed.seed} is left out: {error}")
                    record.seeds.remove(seed)
                    problems += 1
                seed.rows = []
            if lacking:
                sent.append(record)
            else:
                record.mark(known)
        problems += _confirm(server, sent, say)
    return Synced(rows, seeds, problems)


def find(paths: list[str]) -> list[RunDir]:
    """The run directories that these are, or that lie below."""
    found: dict[Path, RunDir] = {}
    for path in paths:
        for folder, below, files in os.walk(Path(path).resolve()):
            if "config.yaml" in files:
                below.clear()  # W&B and exports keep files of that name further down
                if "metrics.jsonl" in files or "results.jsonl" in files:
                    found[Path(folder)] = RunDir(folder)
            below.sort()
    return list(found.values())


def main(paths: list[str]) -> int:
    runs = find(paths)
    if not runs:
        fail(f"no run directory in {', '.join(paths) or 'nothing; usage: python -m launch wandb-sync PATH...'}")
    os.environ.setdefault("WANDB_SILENT", "true")  # what is to be said is said here
    try:
        synced = sync(runs, print)
    except OSError as error:
        fail(error, code=1)
    print(f"W&B: {synced.rows:,} rows of {synced.seeds} seeds sent, from {len(runs)} run directories")
    return 1 if synced.problems else 0
