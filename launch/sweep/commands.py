"""The commands of a sweep: sweep, retry, status, and one task of a job array."""

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from launch.sweep import expand
from launch.sweep import plan as plans
from launch.sweep.backends import BACKENDS, find_backend
from launch.sweep.fail_fast import retry_command, why_not_start, write_rule
from launch.sweep.job import reset_job, run_as_task
from launch.sweep.plan import Plan
from launch.sweep.status import STATES, cell_table, job_statuses, plural, render_cells
from stn.config.flags.launcher import refuse_copies
from stn.runs.files import read_text
from stn.runs.lease import Lease
from stn.tracking.console import console, say, warn

SweepName = Annotated[
    tyro.conf.Positional[str],
    tyro.conf.arg(name="sweep", help="Name, file or folder of a started sweep."),
]
Runs = Annotated[str, tyro.conf.arg(help="Folder for run directories.")]
On = Annotated[
    str, tyro.conf.arg(metavar="{" + ",".join(BACKENDS) + "}", help="Where jobs run: this machine, or Slurm's queue.")
]


@dataclass(frozen=True)
class Submission:
    """Where the jobs of a sweep run, and how many of them at a time."""

    on: On = "local"
    dry_run: bool = False
    """Print what would run and write nothing; with --on slurm the script."""
    max_parallel: int | None = None
    """Jobs at a time, at most."""
    fail_fast: int | None = None
    """Start no further job once this many have failed; running jobs finish."""
    runs: Runs = "runs"

    @contextmanager
    def lock(self, folder: Path) -> Iterator[Lease]:
        """Check the flags, and serialise submissions of one sweep; a dry run takes no lock."""
        find_backend(self.on)
        refuse_copies(os.environ)
        for flag, number in (("--max-parallel", self.max_parallel), ("--fail-fast", self.fail_fast)):
            if number is not None and number < 1:
                raise ValueError(f"{flag} must be 1 or more, not {number}")
        lease = Lease(folder / ".claim")
        if not self.dry_run:
            lease.take(say)
        try:
            yield lease
        finally:
            lease.release()

    def run(self, plan: Plan, states: set[str], lock: Lease, drop_failed: bool = False) -> int:
        """Run the jobs that are in one of these states and not in the back end's queue already."""
        backend = find_backend(self.on)
        active = backend.active_jobs(plan, release_held=not self.dry_run)
        all_jobs = job_statuses(plan)
        statuses = [status for status in all_jobs if status.state in states and status.job.id not in active]
        statuses = [status for status in statuses if status.missing or drop_failed]
        jobs = [status.job for status in statuses]
        if not jobs:
            say("nothing to do: every seed has its result, or is queued or running")
            return 0
        if self.dry_run:
            say(backend.preview(plan, jobs, self.max_parallel))
            return 0
        backend.check(plan)  # before a failure record is cleared
        write_rule(plan, self.fail_fast, self.on, statuses, all_jobs)
        for status in statuses:
            reset_job(plan, status, drop_failed)
        (plan.folder / "logs").mkdir(exist_ok=True)
        if backend.runs_here:
            lock.release()
        code = backend.submit(plan, jobs, self.max_parallel)
        if backend.runs_here:
            print_status(plan)
            write_report(plan)
        return code


Flags = tyro.conf.OmitArgPrefixes[Submission]


def start_sweep(file: tyro.conf.Positional[str], /, submission: Flags, only_missing: bool = False) -> int:
    """Expand a sweep file, run what is not finished and write the report; the same command again resumes.

    Args:
        file: A file, or a name of configs/sweeps/.
        only_missing: Skip jobs that have failed or that another process is training.
    """
    with submission.lock(plans.plan_folder(plans.read_sweep(file), submission.runs)) as lock:
        change = expand.expand(file, submission.runs)
        expand.print_change(change)
        if not submission.dry_run:
            expand.write(change)
        states = {"waiting", "stopped"} if only_missing else {"waiting", "stopped", "failed", "running"}
        return submission.run(change.plan, states, lock)


def retry(sweep_name: SweepName, /, submission: Flags) -> int:
    """Run again what is missing or has failed, and nothing else."""
    plan = plans.find_plan(sweep_name, submission.runs)
    with submission.lock(plan.folder) as lock:
        return submission.run(plan, {"waiting", "stopped", "failed"}, lock, drop_failed=True)


def print_status(plan: Plan) -> None:
    """Print which seeds are done, running, waiting, stopped or failed, the errors, and whether the sweep was ended."""
    statuses = job_statuses(plan)
    cells = cell_table(statuses)
    console.print(render_cells(plan.sweep.name, cells, {state: sum(cell[state] for cell in cells) for state in STATES}))
    for cell in cells:
        name = f"{cell['arch']} {cell['dataset']} {cell['setting']}".strip()
        for seed, reason in cell["reasons"].items():
            say(f"failed, {name} seed {seed}: {reason or 'no reason was recorded'}")
        for error in cell["errors"]:
            say(f"failed, {name}:\n{error}")
    left = sum(status.state in ("waiting", "stopped") for status in statuses)
    if left and (reason := why_not_start(plan, statuses)):
        say(f"ended early: {reason}, {plural(left, 'job')} left; fix the cause, then run: {retry_command(plan)}")


def write_report(plan: Plan) -> None:
    """Write the report at the end of a sweep on this machine, if any seed has a result; its failure is a warning."""
    again = f"python -m launch report {shlex.quote(str(plan.experiment))}"
    if not any(status.rows for status in job_statuses(plan)):
        say(f"no report: no seed has a result yet; later: {again}")
        return
    try:
        from launch.report import build  # numpy and matplotlib take a second

        build.compare([str(plan.experiment)])
    except Exception as error:  # a report's error must not hide that the sweep has ended
        warn(f"no report ({type(error).__name__}: {error}); again with: {again}")


def status(
    sweep_name: SweepName,
    /,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    runs: Runs = "runs",
) -> int:
    """Print which seeds are done, running, waiting, stopped or failed, from the sweep's files.

    Args:
        as_json: Print JSON, for scripts.
    """
    plan = plans.find_plan(sweep_name, runs)
    if as_json:
        statuses = job_statuses(plan)
        cells = cell_table(statuses)
        totals = {state: sum(cell[state] for cell in cells) for state in STATES}
        facts = {"sweep": plan.sweep.name, "totals": totals, "ended_early": why_not_start(plan, statuses)}
        print(json.dumps(facts | {"cells": cells}, indent=1))
    else:
        print_status(plan)
    return 0


def run_task(
    folder: tyro.conf.Positional[Path],
    jobs: tyro.conf.Positional[Path],
    index: tyro.conf.Positional[int],
    /,
    gpus: int,
    cpus: int,
    on: On = "slurm",
) -> int:
    """Run one task of a job array; the array's script calls it."""
    plan, lines = plans.load_plan(folder), read_text(jobs).splitlines()
    if not 0 <= index < len(lines):
        raise ValueError(f"{jobs} has no job {index}; it has {plural(len(lines), 'job')}, from 0")
    job_id = lines[index]
    # The devices of the submission, even if the sweep file was edited since.
    plan = plan._replace(sweep=plan.sweep.model_copy(update={"gpus": gpus, "cpus": cpus}))
    restarted = int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0  # preempted, or out of time: it has begun
    if not restarted and (reason := why_not_start(plan)):
        print(f"{job_id} is left: {reason}")
        return 0
    for job in plan.jobs:
        if job.id == job_id:
            return run_as_task(plan, job, find_backend(on).requeue)
    print(f"{job_id} is no longer part of sweep {plan.sweep.name}")
    return 0
