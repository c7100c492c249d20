"""Where a sweep stands, from files alone. Must not know how jobs are run, nor torch."""

import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from launch.sweep.plan import Job, Plan
from stn.config.seed_list import format_seeds, parse_seeds
from stn.runs.directory import Row, RunDir
from stn.runs.files import parse_rows, read_json, write_atomic

STATES: tuple[str, ...] = ("done", "running", "waiting", "stopped", "failed")


class JobStatus(NamedTuple):
    """One job: its result rows, and the state of the seeds that have none."""

    job: Job
    rows: dict[int, Row]
    state: str
    """done, running, waiting, stopped or failed."""
    runs: list[RunDir]
    """Run directories that may hold seeds of the job, the one with the newest status last."""
    status: Row
    """Of that one."""
    error: str | None

    @property
    def missing(self) -> list[int]:
        return [seed for seed in parse_seeds(self.job.seeds) if seed not in self.rows]

    @property
    def failed(self) -> list[int]:
        """Seeds that have failed by themselves: their loss was no number."""
        return [seed for seed, row in sorted(self.rows.items()) if row.get("status") == "failed"]

    def counts(self) -> dict[str, int]:
        """Seeds by state."""
        counts: dict[str, int] = dict.fromkeys(STATES, 0)
        counts["failed"] = len(self.failed)
        counts["done"] = len(self.rows) - counts["failed"]
        if self.missing:
            counts[self.state] += len(self.missing)
        return counts


# ---- what is known of a job beside its run directory


def note_file(plan: Plan, job: Job) -> Path:
    return plan.folder / "jobs" / f"{job.sig}_{job.block}.json"


def read_note(plan: Plan, job: Job) -> dict[str, Any]:
    return read_json(note_file(plan, job))


def write_note(plan: Plan, job: Job, note: dict[str, Any]) -> None:
    write_atomic(note_file(plan, job), json.dumps(note) + "\n")


# ---- an experiment's run directories


Block = tuple[RunDir, Row]
"""A run directory with its status."""


def _experiment(folder: Path, wanted: set[int]) -> tuple[dict[int, Row], list[Block]]:
    """Result rows of an experiment, and its run directories that may hold some of these seeds."""
    rows: dict[int, Row] = {}
    blocks: list[Block] = []
    for run in (RunDir(path) for path in sorted(folder.glob("*"), reverse=True) if path.is_dir()):
        if run.seeds is None or run.seeds & wanted:
            rows |= run.rows()  # the first one's row counts
            blocks.append((run, run.read_status()))
    return rows, blocks


def _judge(plan: Plan, job: Job, known: dict[int, Row], blocks: list[Block]) -> JobStatus:
    own = set(parse_seeds(job.seeds))
    rows = {seed: known[seed] for seed in sorted(own) if seed in known}
    near = [
        (run, said) for run, said in blocks if (run.path.name == job.block if run.seeds is None else run.seeds & own)
    ]
    near.sort(key=lambda block: block[1].get("time", 0))
    status = near[-1][1] if near else {}
    error = None
    if len(rows) == len(own):
        state = "failed" if any(row.get("status") == "failed" for row in rows.values()) else "done"
    elif any(run.lease.is_live() for run, said in near if said.get("state") != "finished"):
        state = "running"
    else:
        error = read_note(plan, job).get("error")
        if error is None and status.get("state") == "failed":
            error = status.get("reason")
        state = "failed" if error is not None else "stopped" if near else "waiting"
    return JobStatus(job, rows, state, [run for run, _ in near], status, error)


def look(plan: Plan, jobs: list[Job] | None = None) -> list[JobStatus]:
    """How jobs stand; all of a sweep unless told otherwise."""
    asked: dict[str, list[Job]] = {}
    for job in plan.jobs if jobs is None else jobs:
        asked.setdefault(job.sig, []).append(job)
    found = {}
    for sig, members in asked.items():
        wanted = {seed for job in members for seed in parse_seeds(job.seeds)}
        known, blocks = _experiment(plan.experiment / sig, wanted)
        found |= {job: _judge(plan, job, known, blocks) for job in members}
    return [found[job] for job in (plan.jobs if jobs is None else jobs)]


# ---- the table of cells


def accuracy(row: Row) -> float | None:
    return row.get("test_acc", row.get("val_acc"))


def cells(standings: list[JobStatus]) -> list[dict[str, Any]]:
    """A row per cell: seeds by state, those without a result, the mean so far."""
    groups: dict[tuple[str, str, str, str], list[JobStatus]] = {}
    for one in standings:
        groups.setdefault((one.job.arch, one.job.dataset, one.job.setting, one.job.sig), []).append(one)
    table = []
    for (arch, dataset, setting, sig), members in groups.items():
        counts = {state: sum(one.counts()[state] for one in members) for state in STATES}
        rows = [row for one in members for row in one.rows.values() if row.get("status") == "finished"]
        values = [value for row in rows if (value := accuracy(row)) is not None]
        table.append(
            {"arch": arch, "dataset": dataset, "setting": setting, "sig": sig}
            | counts
            | {
                "missing": format_seeds([seed for one in members for seed in one.missing]),
                "failed_seeds": format_seeds([seed for one in members for seed in one.failed]),
                "n": len(values),
                "mean": statistics.fmean(values) if values else None,
                "sd": statistics.stdev(values) if len(values) > 1 else None,
                "errors": sorted({one.error for one in members if one.error}),
            }
        )
    return table


def tail(path: Path, size: int = 1 << 16) -> list[str]:
    """The last lines of a file that may be long."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []


def last_metrics(run: RunDir) -> dict[str, Row]:
    """The newest row of each kind. Poses, at the end of a block, are long: there the tail is a longer one."""
    rows: dict[str, Row] = {}
    for size in (1 << 16, 1 << 23):
        rows = {row.get("kind", ""): row for row in parse_rows(tail(run.metrics, size))}
        if "pose" not in rows or {"train", "eval"} <= rows.keys():
            break
    return rows


def forget_failed(standing: JobStatus) -> None:
    """Drop the rows of seeds that have failed, in whatever block they are, so that they are trained again."""
    failed = set(standing.failed)
    for run in standing.runs:
        if failed & set(run.rows()):
            run.forget(failed)
