"""Which seeds of a sweep are done, running, waiting, stopped or failed, read from files alone."""

import statistics
from collections import Counter
from contextlib import suppress
from itertools import groupby
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from launch.sweep.notes import read_note
from launch.sweep.plan import Job, Plan
from stn.config.seed_list import format_seeds, parse_seeds
from stn.runs.directory import Row, RunDir
from stn.runs.files import last_lines, parse_rows
from stn.runs.records import Metric, valid

STATES: tuple[str, ...] = ("done", "running", "waiting", "stopped", "failed")


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


def job_status(plan: Plan, job: Job) -> JobStatus:
    return job_statuses(plan, [job])[0]


def job_statuses(plan: Plan, jobs: list[Job] | None = None) -> list[JobStatus]:
    """Return the status of these jobs, or of all jobs of the sweep."""
    statuses = []
    for sig, group in groupby(plan.jobs if jobs is None else jobs, key=lambda job: job.sig):
        cell_jobs = list(group)
        wanted = {seed for job in cell_jobs for seed in parse_seeds(job.seeds)}
        folders = [path for path in sorted((plan.experiment / sig).glob("*"), reverse=True) if path.is_dir()]
        runs = [run for run in map(RunDir, folders) if run.seeds is None or run.seeds & wanted]
        rows = {seed: row for run in runs for seed, row in run.rows().items()}  # the directory that sorts first wins
        run_statuses = [(run, run.read_status(), _asked(run)) for run in runs]
        statuses += [_job_status(plan, job, rows, run_statuses) for job in cell_jobs]
    return statuses


def _asked(run: RunDir) -> set[int]:
    """Return the seeds that a run directory is to train; none if neither its name nor its configuration says so."""
    with suppress(ValueError, OSError):
        return run.asked
    return set()


def _job_status(
    plan: Plan, job: Job, cell_rows: dict[int, Row], run_statuses: list[tuple[RunDir, Row, set[int]]]
) -> JobStatus:
    seeds = parse_seeds(job.seeds)
    rows = {seed: cell_rows[seed] for seed in seeds if seed in cell_rows}
    related = [
        (run, status)
        for run, status, asked in run_statuses
        if run.path.name == job.block or not asked.isdisjoint(seeds)
    ]
    related.sort(key=lambda pair: pair[1].get("time", 0))
    newest = related[-1][1] if related else {}
    error = None
    if len(rows) == len(seeds):
        state = "failed" if any(row.get("status") == "failed" for row in rows.values()) else "done"
    elif any(run.lease.is_live() for run, status in related if status.get("state") != "finished"):
        state = "running"
    else:
        error = read_note(plan, job).get("error")
        if error is None and newest.get("state") == "failed":
            error = newest.get("reason")
        state = "failed" if error is not None else "stopped" if related else "waiting"
    return JobStatus(job, rows, state, [run for run, _ in related], newest, error)


def plural(n: int, word: str) -> str:
    return f"{n:,} {word}{'s' * (n != 1)}"


def accuracy(row: Row) -> float | None:
    """Return the test accuracy of a row, or the validation accuracy where the test set was not touched."""
    return row.get("test_acc", row.get("val_acc"))


def cell_table(statuses: list[JobStatus]) -> list[dict[str, Any]]:
    """Return a row per cell: seeds by state, the missing and failed ones, and the mean accuracy so far."""
    cells = []
    for job, group in groupby(statuses, key=lambda status: status.job._replace(seeds="")):
        jobs = list(group)
        counts: Counter[str] = Counter()
        for status in jobs:
            counts["failed"] += len(status.failed)
            counts["done"] += len(status.rows) - len(status.failed)
            counts[status.state] += len(status.missing)
        rows = [row for status in jobs for row in status.rows.values() if row.get("status") == "finished"]
        accuracies = [value for row in rows if (value := accuracy(row)) is not None]
        cell = {"arch": job.arch, "dataset": job.dataset, "setting": job.setting, "sig": job.sig}
        cell |= {state: counts[state] for state in STATES}
        cell |= {
            "missing": format_seeds([seed for status in jobs for seed in status.missing]),
            "failed_seeds": format_seeds([seed for status in jobs for seed in status.failed]),
            "reasons": {seed: status.rows[seed].get("reason") for status in jobs for seed in status.failed},
            "n": len(accuracies),
            "mean": statistics.fmean(accuracies) if accuracies else None,
            "sd": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
            "errors": sorted({status.error for status in jobs if status.error}),
        }
        cells.append(cell)
    return cells


def render_cells(name: str, cells: list[dict[str, Any]], totals: dict[str, int]) -> Table:
    title = f"{name}: {sum(totals.values()):,} seeds"
    table = Table(box=None, padding=(0, 1), title=title, title_justify="left")
    labels = ["arch", "dataset", *(["setting"] if any(cell["setting"] for cell in cells) else [])]
    for label in labels:
        table.add_column({"dataset": "data set"}.get(label, label))
    for heading in (*STATES, "mean", "SD"):
        table.add_column(heading, justify="right")
    table.add_column("missing seeds", overflow="fold")
    for cell in cells:
        mean, sd = ("-" if cell[key] is None else f"{cell[key]:.2%}" for key in ("mean", "sd"))
        counts = [str(cell[state] or "-") for state in STATES]
        table.add_row(*(Text(cell[label]) for label in labels), *counts, mean, sd, cell["missing"])
    table.add_section()
    counts = [str(totals[state] or "-") for state in STATES]
    table.add_row("all", *[""] * (len(labels) - 1), *counts, style="bold")
    return table


def last_metrics(run: RunDir) -> dict[str, Row]:
    """Return the newest row of each kind. Pose rows, at the end of a block, are long and need a longer tail."""
    rows: dict[str, Row] = {}
    for size in (1 << 16, 1 << 23):
        rows = {row["kind"]: row for row in valid(parse_rows(last_lines(run.metrics, size)), Metric)}
        if "pose" not in rows or {"train", "eval"} <= rows.keys():
            break
    return rows
