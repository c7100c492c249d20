"""One start of one job: the training process, how it is asked to stop, and what its end means.

The run directory decides what an end means; the exit code only tells a crash from a kill.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from launch import train
from launch.sweep.plan import Job, Plan
from launch.sweep.status import JobStatus, job_status, last_lines
from stn.runs.files import read_json, write_atomic
from stn.runs.process import follow_parent

ERROR_LINES = 15
"""Last lines of a failed job's output that are kept as its error."""


def training_command(plan: Plan, job: Job) -> list[str]:
    """Return the command line that trains a job's seeds on as many devices as the sweep gives it."""
    arguments = ["--config", str(plan.cell_file(job)), "--seeds", job.seeds]
    # Absolute, since the folder may have been moved and we may run in another one.
    arguments += ["--runs", str(plan.experiment.parent.absolute()), "--name", plan.experiment.name]
    if (plan.sweep.gpus or 0) > 1:
        return train.command([*arguments, "--processes", str(plan.sweep.gpus)])
    threads = [] if plan.sweep.gpus else ["--train.threads", str(plan.sweep.cpus)]
    return [sys.executable, str(train.ROOT / "train.py"), *arguments, *threads]


class Attempt:
    """A training process of one job."""

    def __init__(self, plan: Plan, job: Job, output: IO[Any] | None, log: Path, env: dict[str, str] | None = None):
        self.plan, self.job, self.log = plan, job, log
        self.stop_requested = False
        self.child = subprocess.Popen(
            training_command(plan, job),
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            env=os.environ | ({} if plan.sweep.gpus else {"CUDA_VISIBLE_DEVICES": ""}) | (env or {}),
            start_new_session=True,  # Ctrl-C reaches the launcher alone, which passes it on as SIGTERM
            preexec_fn=partial(follow_parent, os.getpid()),
        )

    def stop(self) -> None:
        """Ask the process to save a checkpoint and exit."""
        if not self.stop_requested:
            self.stop_requested = True
            self.child.terminate()

    def kill(self) -> None:
        """Kill the process and all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)

    def outcome(self) -> str:
        """Return finished, failed, stopped, elsewhere (another process trains it) or died (not its own fault)."""
        code = self.child.wait()
        status = self.status()
        if not status.missing:
            return "failed" if status.failed else "finished"
        if status.state == "running":
            return "elsewhere"
        if status.run_status.get("state") == "stopped" and code == 0:
            return "stopped"
        killed = code < 0 or code >= 128
        if self.stop_requested or killed or code == 0:
            return "died"
        error = "\n".join(line for line in last_lines(self.log)[-ERROR_LINES:] if line.strip())
        note = read_json(self.plan.note_file(self.job))
        write_note(self.plan, self.job, note | {"error": error or f"exit code {code}"})
        return "failed"

    def status(self) -> JobStatus:
        return job_status(self.plan, self.job)


def write_note(plan: Plan, job: Job, note: dict[str, Any]) -> None:
    """Write what is known of a job beside its run directory."""
    write_atomic(plan.note_file(job), json.dumps(note) + "\n")


def record_start(plan: Plan, job: Job) -> bool:
    """Record one more start; False if the job has used up its starts without progress and is given up."""
    status, note = job_status(plan, job), read_json(plan.note_file(job))
    progress = [len(status.rows), status.run_status.get("step", 0)]
    idle = note.get("idle", 0) + 1 if note.get("progress") == progress else 0
    note = {"starts": note.get("starts", 0) + 1, "progress": progress, "idle": idle}
    given_up = idle > plan.sweep.restarts
    if given_up:
        note["error"] = f"given up after {idle} starts without progress"
    write_note(plan, job, note)
    return not given_up


def reset_job(plan: Plan, status: JobStatus, drop_failed: bool = False) -> None:
    """Clear a job's failure record; with drop_failed also the result rows of its failed seeds, in every block."""
    if read_json(plan.note_file(status.job)):
        write_note(plan, status.job, {})
    failed = set(status.failed) if drop_failed else set()
    for run in status.runs:
        if failed & set(run.rows()):
            run.forget(failed)
        if status.missing and run.read_status().get("state") == "failed":
            run.write_end("stopped")
