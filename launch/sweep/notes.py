"""The note on a job outside its run directory: its starts, its progress, how it was killed or failed."""

import json
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from launch.sweep.plan import Job, Plan
from stn.runs.files import last_lines, read_json, write_atomic
from stn.runs.records import Count, Record, valid


class Note(Record):
    """A file of jobs/."""

    starts: Count = 0
    progress: list[int] | None = None
    """Rows and steps at the last start."""
    idle: Count = 0
    """Starts in a row without progress."""
    end: str | None = None
    """How the last start was killed, and its last output."""
    error: str | None = None


def exit_text(code: int) -> str:
    """Describe an exit code, of a process or of a launcher that passes on how its process was killed."""
    if 0 <= code < 128:
        return f"exit code {code}"
    with suppress(ValueError):
        name = signal.Signals(abs(code) % 128).name
        return f"killed by {name}" + ", perhaps out of memory" * (name == "SIGKILL")
    return f"killed by signal {abs(code) % 128}"


def last_output(log: Path) -> str:
    return "\n".join(line for line in last_lines(log)[-15:] if line.strip())


def read_note(plan: Plan, job: Job) -> dict[str, Any]:
    """Return a job's note; {} if it is missing or damaged."""
    return next(iter(valid([read_json(plan.note_file(job))], Note)), {})


def write_note(plan: Plan, job: Job, note: dict[str, Any]) -> None:
    """Replace a job's note."""
    write_atomic(plan.note_file(job), json.dumps(note) + "\n")
