"""python -m launch wandb-sync PATH...: upload run directories to W&B, from a machine that reaches it.

Asks the server what it has, sends the rest, asks again, and marks what has arrived; safe to repeat and to interrupt. It
reads our own record: W&B's files lose rows when a process is killed.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from launch.wandb.client import PAGE, Server, one_line, scratch
from launch.wandb.record import RunRecord
from stn.runs.directory import RunDir, find_runs

Say = Callable[[str], None]
PARALLEL = 8
"""Seeds sent at a time: most of the time is spent waiting for answers."""
PATIENCE_S = 15.0
"""Seconds in which the server must confirm: it counts rows a few seconds after it has received them."""


class Synced(NamedTuple):
    rows: int
    """Rows sent now."""
    seeds: int
    """Seeds that rows were sent of, or that were only marked as finished."""
    problems: int
    """Run directories and seeds that were left out, each with a line that says why."""


def _records(runs: list[RunDir], address: str, leave_out: Say) -> Iterator[RunRecord]:
    finished: dict[Path, set[int]] = {}
    for run in runs:
        experiment = run.path.parent
        if experiment not in finished:
            finished[experiment] = set(run.finished())
        try:
            yield RunRecord(run, address, finished[experiment])
        except ValueError as error:
            leave_out(f"{run.path} is left out: {error}")


def _batches(records: Iterator[RunRecord]) -> Iterator[list[RunRecord]]:
    """Yield records of one project, with about a page of seeds."""
    batch: list[RunRecord] = []
    for record in records:
        if batch and (sum(len(r.seeds) for r in batch) >= PAGE or record.project != batch[0].project):
            yield batch
            batch = []
        if record.seeds:
            batch.append(record)
    if batch:
        yield batch


def _ask(server: Server, batch: list[RunRecord]) -> tuple[dict[str, Any], list[RunRecord]]:
    """Return the server's runs of these records, and the records of which it lacks something."""
    runs = server.runs(batch[0].project, [seed.id for record in batch for seed in record.seeds])
    return runs, [record for record in batch if not record.confirm(runs)]


def _send(server: Server, batch: list[RunRecord], leave_out: Say) -> tuple[list[int], list[RunRecord]]:
    """Send what the server lacks; return the number of rows of each such seed, and the records to be confirmed."""
    server_runs, incomplete = _ask(server, batch)
    lacking = [(r, seed) for r in incomplete for seed in r.seeds if not seed.is_complete(server_runs)]
    sent = []
    with ThreadPoolExecutor(PARALLEL) as pool:
        futures = [pool.submit(server.send, seed) for _, seed in lacking]
        try:
            for (record, seed), future in zip(lacking, futures, strict=True):
                try:
                    sent.append(future.result())
                except Exception as error:  # each layer of the client has its own classes
                    server.runs(record.project, [seed.id])  # raises if it is the server that fails, not this seed
                    leave_out(f"{record.run.path}, seed {seed.seed} is left out: {one_line(error)}")
                    record.drop(seed)
                seed.rows = []  # frees thousands of rows
        finally:
            pool.shutdown(cancel_futures=True)
    return sent, incomplete


def _confirm(server: Server, records: list[RunRecord]) -> list[str]:
    """Mark what has arrived; return a line for each run directory that the server does not confirm in time."""
    deadline = time.monotonic() + PATIENCE_S
    while records:
        records = [record for batch in _batches(iter(records)) for record in _ask(server, batch)[1]]
        if time.monotonic() > deadline:
            break
        time.sleep(1.0 if records else 0)
    text = "sent, but the server does not say that it has all of it; run the same command again to check"
    return [f"{record.run.path}: {text}" for record in records]


def sync(runs: list[RunDir], say: Say) -> Synced:
    """Send what the server lacks; raises OSError if it does not answer or nobody is logged in."""
    sent: list[int] = []
    unconfirmed: list[RunRecord] = []
    problems: list[str] = []

    def leave_out(text: str) -> None:
        problems.append(text)
        say(text)

    with scratch() as folder:
        server = Server(folder)
        for batch in _batches(_records(runs, server.address, leave_out)):
            rows, records = _send(server, batch, leave_out)
            sent, unconfirmed = sent + rows, unconfirmed + records
        for text in _confirm(server, unconfirmed):
            leave_out(text)
    return Synced(sum(sent), len(sent), len(problems))


def uploadable_runs(paths: list[str]) -> list[RunDir]:
    """Return the run directories in or below these paths that have something to send."""
    return [run for run in find_runs(paths) if run.metrics.exists() or run.results.exists()]
