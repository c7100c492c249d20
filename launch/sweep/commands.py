"""The commands of a sweep: start, retry, status, and a Slurm task."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Literal

import tyro

from launch.sweep import expand, local, slurm, task
from launch.sweep import plan as plans
from launch.sweep import status as standings
from launch.sweep.job import reset_job
from launch.sweep.local import plural
from launch.sweep.plan import Job, Plan
from launch.sweep.table import cells_table
from stn.config.seed_list import format_seeds, parse_seeds
from stn.runs.lease import Lease
from stn.tracking.console import console, say

Runs = Annotated[str, tyro.conf.arg(help="Folder for run directories.")]
On = Annotated[Literal["local", "slurm"], tyro.conf.arg(help="Where jobs run: this machine, or Slurm's queue.")]
Most = Annotated[int | None, tyro.conf.arg(help="Jobs at a time, at most.")]


def start_sweep(
    file: tyro.conf.Positional[str],
    /,
    on: On = "local",
    dry_run: bool = False,
    only_missing: bool = False,
    max_parallel: Most = None,
    runs: Runs = "runs",
) -> int:
    """Expand a sweep file and run what is not finished; the same command again goes on.

    Args:
        file: A file, or a name of configs/sweeps/.
        dry_run: Say what would run, write nothing. With --on slurm: the script.
        only_missing: Leave out what has failed and what somebody is training just now.
    """
    _check_most(max_parallel)
    path = plans.find_sweep(file)
    states = ("waiting", "stopped") if only_missing else ("waiting", "stopped", "failed", "running")
    with nullcontext() if dry_run else _alone(plans.folder_of(plans.read_sweep(path), runs)):
        change = expand.expand(path, runs)
        _tell(change)
        if not dry_run:
            expand.write(change)
        jobs = _todo(change.plan, states, on, dry_run)
        if dry_run or on == "slurm":
            return _launch(change.plan, jobs, on, max_parallel, dry_run)
    return _launch(change.plan, jobs, on, max_parallel)


def _check_most(most: int | None) -> None:
    if most is not None and most < 1:
        raise ValueError(f"max_parallel is 1 or more, not {most}")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two people may submit one sweep; not at one moment."""
    lease = Lease(folder / ".claim")
    lease.take(say, patience_s=30.0)
    try:
        yield
    finally:
        lease.release()


def _tell(change: expand.Change) -> None:
    plan = change.plan
    total = sum(len(parse_seeds(job.seeds)) for job in plan.jobs)
    sizes = (len(change.cells), "cell"), (total, "seed"), (len(plan.jobs), "job")
    say(f"{plan.sweep.name}: {', '.join(plural(n, word) for n, word in sizes)}")
    if len(change.added) < len(plan.jobs) or change.removed:
        for what, jobs in (("new since last time", change.added), ("no longer part of it", change.removed)):
            if jobs:
                say(f"{what}: {plural(len(jobs), 'job')}")
                for label in dict.fromkeys(job.label for job in jobs):
                    seeds = [seed for job in jobs if job.label == label for seed in parse_seeds(job.seeds)]
                    say(f"  {label}: seeds {format_seeds(seeds)}")


def _todo(plan: Plan, states: tuple[str, ...], on: str, dry: bool, again: bool = False) -> list[Job]:
    """Jobs in one of these states that do not wait in Slurm's queue, with what stood in their way forgotten."""
    queued = slurm.in_queue(plan, release=not dry) if on == "slurm" else set()
    found = [one for one in standings.look(plan) if one.state in states and one.job.id not in queued]
    found = [one for one in found if again or one.missing]
    for one in [] if dry else found:
        if again:
            standings.forget_failed(one)
        reset_job(plan, one)
    return [one.job for one in found]


def _launch(plan: Plan, jobs: list[Job], on: str, most: int | None, dry: bool = False) -> int:
    if not jobs:
        say("nothing to do: every seed has its result, or is being seen to")
        return 0
    if on == "slurm":
        for line in slurm.submit(plan, jobs, most, dry):
            say(line)
        return 0
    if dry:
        for job in jobs:
            say(f"{job.id}  {job.label} seeds {job.seeds}")
        return 0
    return local.run(plan, jobs, most)


def retry(
    sweep_name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(name="sweep")],
    /,
    on: On = "local",
    dry_run: bool = False,
    max_parallel: Most = None,
    runs: Runs = "runs",
) -> int:
    """Run again what is missing or has failed, and nothing else.

    Args:
        sweep_name: Name, file or folder of a sweep that has been started.
        dry_run: Say what would run, write nothing. With --on slurm: the script.
    """
    _check_most(max_parallel)
    plan = plans.find_plan(sweep_name, runs)
    with nullcontext() if dry_run else _alone(plan.folder):
        jobs = _todo(plan, ("waiting", "stopped", "failed"), on, dry_run, again=True)
        if dry_run or on == "slurm":
            return _launch(plan, jobs, on, max_parallel, dry_run)
    return _launch(plan, jobs, on, max_parallel)


def status(
    sweep_name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(name="sweep")],
    /,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    runs: Runs = "runs",
) -> int:
    """Where a sweep stands, from its files.

    Args:
        sweep_name: Name, file or folder of a sweep that has been started.
        as_json: As JSON, for scripts.
    """
    plan = plans.find_plan(sweep_name, runs)
    cells = standings.cells(standings.look(plan))
    totals = {state: sum(cell[state] for cell in cells) for state in standings.STATES}
    if as_json:
        print(json.dumps({"sweep": plan.sweep.name, "totals": totals, "cells": cells}, indent=1))
        return 0
    console.print(cells_table(plan, cells, totals))
    for cell in cells:
        for error in cell["errors"]:
            say(f"failed, {cell['arch']} {cell['dataset']} {cell['setting']}:\n{error}")
    return 0


def run_task(
    folder: tyro.conf.Positional[Path],
    jobs: tyro.conf.Positional[Path],
    index: tyro.conf.Positional[int],
    /,
    gpus: int,
    cpus: int,
) -> int:
    """One task of a Slurm array (for slurm's scripts)."""
    return task.task(plans.load_plan(folder), jobs, index, gpus, cpus)
