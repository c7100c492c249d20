"""python -m launch wandb-sync PATH...: upload run directories to W&B, from a machine that reaches it.

Asks the server what it has, sends the rest, asks again, and marks what has arrived; safe to repeat and to interrupt. It
reads our own record: W&B's files lose rows when a process is killed.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from launch.wandb.client import RunUpload, Server, one_line, scratch
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
    """Seeds of which rows were sent, or the end alone."""
    problems: int
    """Run directories and seeds that were left out, each with a line that says why."""


def uploadable_runs(paths: list[str]) -> list[RunDir]:
    """Return the run directories in or below these paths that have something to send."""
    return [run for run in find_runs(paths) if run.metrics.exists() or run.results.exists()]


def sync(runs: list[RunDir], say: Say, **place: str) -> Synced:
    """Send what the server lacks, to a ``wandb_project`` or ``wandb_entity`` instead of the runs' own if it is given.

    Raises OSError if it does not answer or nobody is logged in.
    """
    sent: list[int] = []
    unconfirmed: list[RunUpload] = []
    problems: list[str] = []
    disabled = 0

    def leave_out(text: str) -> None:
        problems.append(text)
        say(text)

    with scratch() as folder:
        server = Server(folder)
        for records in _read_records(runs, server.address, leave_out, place):
            disabled += sum(record.config.log.wandb == "disabled" for record in records)
            incomplete = _confirm(server, records)
            sent += _send(server, incomplete, leave_out)
            unconfirmed += incomplete
        deadline = time.monotonic() + PATIENCE_S
        while unconfirmed := _confirm(server, unconfirmed):
            if time.monotonic() > deadline:
                break
            time.sleep(1.0)
    for record in unconfirmed:
        text = "sent, but the server does not say that it has all of it; run the same command again to check"
        leave_out(f"{record.path}: {text}")
    if disabled:
        say(f"{disabled} run directories are not sent: their config.yaml says log.wandb: disabled")
    return Synced(sum(sent), len(sent), len(problems))


def _read_records(runs: list[RunDir], address: str, leave_out: Say, place: dict[str, str]) -> Iterator[list[RunUpload]]:
    """Yield the records of the run directories, experiment by experiment."""
    experiments: dict[tuple[Path, str], list[RunDir]] = {}
    for run in runs:
        try:  # its folder does not name the signature if it was moved
            experiments.setdefault((run.path.parent, run.sig or run.find_sig(run.rows().values())), []).append(run)
        except (ValueError, OSError) as error:
            leave_out(f"{run.path} is left out: {error}")
    for experiment in experiments.values():
        records = []
        finished: set[int] = set()
        for run in experiment[0].blocks() if experiment[0].sig else experiment:
            with suppress(OSError):  # said below, if it is to be sent
                finished |= run.rows().keys()
        for run in experiment:
            try:
                records.append(RunUpload(run, address, finished, **place))
            except (ValueError, OSError) as error:
                leave_out(f"{run.path} is left out: {error}")
        yield records


def _confirm(server: Server, records: list[RunUpload]) -> list[RunUpload]:
    """Ask the server what it has and remember that; return the records of which it lacks something."""
    for (project, entity), group in groupby(records, key=lambda record: (record.project, record.entity)):
        batch = list(group)
        server_runs = server.runs(project, [seed.id for record in batch for seed in record.seeds], entity)
        for record in batch:
            record.confirm(server_runs)
    return [record for record in records if record.seeds]


def _send(server: Server, records: list[RunUpload], leave_out: Say) -> list[int]:
    """Send what the server lacks of these records; return how many rows that were, seed by seed."""
    seeds = [seed for record in records for seed in record.seeds]
    sent = []
    with ThreadPoolExecutor(PARALLEL) as pool:
        futures = [pool.submit(server.send, seed) for seed in seeds]
        try:
            for seed, future in zip(seeds, futures, strict=True):
                try:
                    sent.append(future.result())
                except Exception as error:  # each layer of the client has its own classes
                    # Raises if it is the server that fails, not this seed.
                    server.runs(seed.run.project, [seed.id], seed.run.entity)
                    leave_out(f"{seed.run.path}, seed {seed.seed} is left out: {one_line(error)}")
                    seed.run.seeds.remove(seed)
                    seed.run.stamp = None  # so that the run directory is read again next time
                seed.rows = []  # frees thousands of rows
        finally:
            pool.shutdown(cancel_futures=True)
    return sent
