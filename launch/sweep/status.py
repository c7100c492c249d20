"""Which seeds of a sweep are done, running, waiting, stopped or failed, read from files alone."""

import statistics
from pathlib import Path
from typing import Any, NamedTuple

from launch.sweep.plan import Job, Plan
from stn.config.seed_list import format_seeds, parse_seeds
from stn.runs.directory import Row, RunDir
from stn.runs.files import parse_rows, read_json

STATES: tuple[str, ...] = ("done", "running", "waiting", "stopped", "failed")
RunStatus = tuple[RunDir, Row]
"""A run directory and the content of its status.json."""


class JobStatus(NamedTuple):
    """The result rows of one job, and the state of its seeds without one."""

    job: Job
    rows: dict[int, Row]
    state: str
    """One of STATES."""
    runs: list[RunDir]
    """Run directories that may hold seeds of the job; the one with the newest status is last."""
    run_status: Row
    """The newest status.json among them."""
    error: str | None

    @property
    def missing(self) -> list[int]:
        """Seeds without a result row."""
        return [seed for seed in parse_seeds(self.job.seeds) if seed not in self.rows]

    @property
    def failed(self) -> list[int]:
        """Seeds whose result row says that they failed: their loss became non-finite."""
        return [seed for seed, row in sorted(self.rows.items()) if row.get("status") == "failed"]

    def counts(self) -> dict[str, int]:
        """Return the number of seeds in each state."""
        counts: dict[str, int] = dict.fromkeys(STATES, 0)
        counts["failed"] = len(self.failed)
        counts["done"] = len(self.rows) - counts["failed"]
        if self.missing:
            counts[self.state] += len(self.missing)
        return counts


def _read_experiment(folder: Path, wanted: set[int]) -> tuple[dict[int, Row], list[RunStatus]]:
    """Return an experiment's result rows, and its run directories that may hold some of these seeds."""
    rows: dict[int, Row] = {}
    run_statuses: list[RunStatus] = []
    for run in (RunDir(path) for path in sorted(folder.glob("*"), reverse=True) if path.is_dir()):
        if run.seeds is None or run.seeds & wanted:
            rows |= run.rows()  # the run directory that sorts first wins
            run_statuses.append((run, run.read_status()))
    return rows, run_statuses


def _status_of(plan: Plan, job: Job, known_rows: dict[int, Row], run_statuses: list[RunStatus]) -> JobStatus:
    seeds = set(parse_seeds(job.seeds))
    rows = {seed: known_rows[seed] for seed in sorted(seeds) if seed in known_rows}
    related = [
        (run, status)
        for run, status in run_statuses
        if (run.path.name == job.block if run.seeds is None else run.seeds & seeds)
    ]
    related.sort(key=lambda pair: pair[1].get("time", 0))
    newest = related[-1][1] if related else {}
    error = None
    if len(rows) == len(seeds):
        state = "failed" if any(row.get("status") == "failed" for row in rows.values()) else "done"
    elif any(run.lease.is_live() for run, status in related if status.get("state") != "finished"):
        state = "running"
    else:
        error = read_json(plan.note_file(job)).get("error")
        if error is None and newest.get("state") == "failed":
            error = newest.get("reason")
        state = "failed" if error is not None else "stopped" if related else "waiting"
    return JobStatus(job, rows, state, [run for run, _ in related], newest, error)


def job_statuses(plan: Plan, jobs: list[Job] | None = None) -> list[JobStatus]:
    """Return the status of these jobs, or of all jobs of the sweep."""
    jobs = plan.jobs if jobs is None else jobs
    by_sig: dict[str, list[Job]] = {}
    for job in jobs:
        by_sig.setdefault(job.sig, []).append(job)
    statuses = {}
    for sig, members in by_sig.items():
        wanted = {seed for job in members for seed in parse_seeds(job.seeds)}
        rows, run_statuses = _read_experiment(plan.experiment / sig, wanted)
        statuses |= {job: _status_of(plan, job, rows, run_statuses) for job in members}
    return [statuses[job] for job in jobs]


def job_status(plan: Plan, job: Job) -> JobStatus:
    return job_statuses(plan, [job])[0]


def accuracy(row: Row) -> float | None:
    """Return the test accuracy of a row, or the validation accuracy where the test set was not touched."""
    return row.get("test_acc", row.get("val_acc"))


def cell_table(statuses: list[JobStatus]) -> list[dict[str, Any]]:
    """Return a row per cell: seeds by state, the missing and failed ones, and the mean accuracy so far."""
    jobs_of_cell: dict[tuple[str, str, str, str], list[JobStatus]] = {}
    for status in statuses:
        job = status.job
        jobs_of_cell.setdefault((job.arch, job.dataset, job.setting, job.sig), []).append(status)
    return [
        {"arch": arch, "dataset": dataset, "setting": setting, "sig": sig} | _cell(jobs)
        for (arch, dataset, setting, sig), jobs in jobs_of_cell.items()
    ]


def _cell(statuses: list[JobStatus]) -> dict[str, Any]:
    counts = [status.counts() for status in statuses]
    rows = [row for status in statuses for row in status.rows.values() if row.get("status") == "finished"]
    accuracies = [value for row in rows if (value := accuracy(row)) is not None]
    return {state: sum(count[state] for count in counts) for state in STATES} | {
        "missing": format_seeds([seed for status in statuses for seed in status.missing]),
        "failed_seeds": format_seeds([seed for status in statuses for seed in status.failed]),
        "n": len(accuracies),
        "mean": statistics.fmean(accuracies) if accuracies else None,
        "sd": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        "errors": sorted({status.error for status in statuses if status.error}),
    }


def last_lines(path: Path, size: int = 1 << 16) -> list[str]:
    """Return the lines in the last ``size`` bytes of a file; an empty list if there is no file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []


def last_metrics(run: RunDir) -> dict[str, Row]:
    """Return the newest row of each kind. Pose rows, at the end of a block, are long and need a longer tail."""
    rows: dict[str, Row] = {}
    for size in (1 << 16, 1 << 23):
        rows = {row.get("kind", ""): row for row in parse_rows(last_lines(run.metrics, size))}
        if "pose" not in rows or {"train", "eval"} <= rows.keys():
            break
    return rows
