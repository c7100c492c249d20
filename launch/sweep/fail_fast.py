"""--fail-fast N: once N jobs of a submission have failed, no other starts; the rule is a file that all jobs read."""

import json
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import Field

from launch.sweep.plan import Plan
from launch.sweep.status import JobStatus, job_statuses, plural
from stn.config.fields import Positive, Section
from stn.runs.files import read_json, write_atomic


class FailFast(Section):
    """fail-fast.json: the rule of the last submission."""

    most: Positive
    """Failed jobs at which no other starts."""
    on: Annotated[str, Field(pattern=r"^[\w-]+$")] = "local"
    """The back end of that submission."""
    before: Annotated[list[str], Field(default_factory=list)]
    """Ids of jobs that had failed earlier and were not submitted again: they do not count."""


def _file(plan: Plan) -> Path:
    return plan.folder / "fail-fast.json"


def write_rule(plan: Plan, most: int | None, on: str, submitted: list[JobStatus], all_jobs: list[JobStatus]) -> None:
    """Record the rule of a submission in place of the one before; None: every job runs."""
    if most is None:
        _file(plan).unlink(missing_ok=True)
        return
    ids = {status.job.id for status in submitted}
    before = [status.job.id for status in all_jobs if status.state == "failed" and status.job.id not in ids]
    write_atomic(_file(plan), json.dumps({"most": most, "on": on, "before": before}) + "\n")


def _read_rule(plan: Plan) -> FailFast | None:
    with suppress(ValueError):  # damaged: it stops nothing
        return FailFast(**read_json(_file(plan)))
    return None


def retry_command(plan: Plan) -> str:
    """Return the command that runs what was left."""
    rule = _read_rule(plan)
    on = f" --on {rule.on}" if rule and rule.on != "local" else ""
    return f"python -m launch retry {shlex.quote(str(plan.experiment))}{on}"


def why_not_start(plan: Plan, statuses: list[JobStatus] | None = None) -> str | None:
    """Return why no other job of the sweep starts, None if it may."""
    rule = _read_rule(plan)
    if rule is None:
        return None
    statuses = job_statuses(plan) if statuses is None else statuses
    failed = [status for status in statuses if status.state == "failed" and status.job.id not in rule.before]
    if len(failed) < rule.most:
        return None
    return f"{plural(len(failed), 'job')} failed (--fail-fast {rule.most})"
