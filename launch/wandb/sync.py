"""python -m launch wandb-sync PATH...: run directories to W&B, from a machine that reaches it.

Owns the order of things: ask, send what is lacking, ask again, and mark what has arrived. May be called again
at any time, and interrupted. Must not know W&B's own files, which lose rows in a kill, nor how seeds are trained.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from launch.wandb.client import PAGE, Server, one_line, scratch
from launch.wandb.record import Record
from stn.runs.directory import RunDir, find_runs

Say = Callable[[str], None]
AT_ONCE = 8
"""Seeds sent at once: most of the time goes by with waiting for answers."""
PATIENCE_S = 15.0
"""The server counts what it was sent a few seconds later."""


class Synced(NamedTuple):
    rows: int
    """Rows sent now."""
    seeds: int
    """Seeds that they are of, or that were only finished."""
    problems: int
    """Run directories and seeds that are left, each with a line that says why."""


def _records(runs: list[RunDir], place: str, leave_out: Say) -> Iterator[Record]:
    finished: dict[Path, set[int]] = {}
    for run in runs:
        if run.path.parent not in finished:
            finished[run.path.parent] = set(run.finished())
        try:
            yield Record(run, place, finished[run.path.parent])
        except ValueError as error:
            leave_out(f"{run.path} is left out: {error}")


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    """Of one project each, with about a page of seeds."""
    batch: list[Record] = []
    for record in records:
        if batch and (sum(len(r.seeds) for r in batch) >= PAGE or record.project != batch[0].project):
            yield batch
            batch = []
        if record.seeds:
            batch.append(record)
    if batch:
        yield batch


def _bring_up(server: Server, batch: list[Record], leave_out: Say) -> tuple[list[int], list[Record]]:
    """Send what the server lacks: the number of rows of each such seed, and the records that they are of."""
    known = server.ask(batch[0].project, [seed.id for record in batch for seed in record.seeds])
    left = [record for record in batch if not record.mark(known)]
    lacking = [(record, seed) for record in left for seed in record.seeds if not seed.is_on(known)]
    sent = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = [pool.submit(server.send, seed) for _, seed in lacking]
        try:
            for (record, seed), job in zip(lacking, jobs, strict=True):
                try:
                    sent.append(job.result())
                except Exception as error:  # each layer of the client has kinds of its own
                    server.ask(record.project, [seed.id])  # leaves with its own error where no seed is to blame
                    leave_out(f"{record.run.path}, seed {seed.seed} is left out: {one_line(error)}")
                    record.drop(seed)
                seed.rows = []  # there may be thousands
        finally:
            pool.shutdown(cancel_futures=True)
    return sent, left


def _confirm(server: Server, records: list[Record]) -> list[str]:
    """Mark what has arrived; a line for each run directory of which the server does not say so."""
    deadline, left = time.monotonic() + PATIENCE_S, records
    while left:
        asked, left = left, []
        for batch in _batches(iter(asked)):
            known = server.ask(batch[0].project, [seed.id for record in batch for seed in record.seeds])
            left += [record for record in batch if not record.mark(known)]
        if time.monotonic() > deadline:
            break
        time.sleep(1.0 if left else 0)
    text = "sent, but the server does not say that it has all of it; call again to see"
    return [f"{record.run.path}: {text}" for record in left]


def sync(runs: list[RunDir], say: Say) -> Synced:
    """Send what the server lacks; OSError where it does not answer or nobody is logged in."""
    sent: list[int] = []
    left: list[Record] = []
    problems: list[str] = []

    def leave_out(text: str) -> None:
        problems.append(text)
        say(text)

    with scratch() as folder:
        server = Server(folder)
        for batch in _batches(_records(runs, server.place, leave_out)):
            rows, records = _bring_up(server, batch, leave_out)
            sent, left = sent + rows, left + records
        for text in _confirm(server, left):
            leave_out(text)
    return Synced(sum(sent), len(sent), len(problems))


def find(paths: list[str]) -> list[RunDir]:
    """The run directories that these are, or that lie below, with something to send."""
    return [run for run in find_runs(paths) if run.metrics.exists() or run.results.exists()]
