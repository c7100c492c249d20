"""One start of one job: the training process, how it is asked to stop, and what its end means.

The run directory decides what an end means; the exit code only tells a crash from a kill.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from launch import train
from launch.sweep.plan import Job, Plan
from launch.sweep.status import JobStatus, job_status, last_lines
from stn.runs.files import read_json, write_atomic
from stn.runs.process import follow_parent


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
    """A training process of one job, whose output goes to a log file, or to the output of this process."""

    def __init__(self, plan: Plan, job: Job, log: Path | None, devices: dict[str, str]) -> None:
        self.plan, self.job, self.devices = plan, job, devices
        self.log = log or Path(os.path.realpath("/proc/self/fd/1"))
        self.stop_requested = False
        with log.open("a") if log else nullcontext() as output:
            self.child = subprocess.Popen(
                training_command(plan, job),
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | ({} if plan.sweep.gpus else {"CUDA_VISIBLE_DEVICES": ""}) | devices,
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
        """Return done, failed, stopped, killed (not its own fault) or left to another process, which trains it."""
        code = self.child.wait()
        status = job_status(self.plan, self.job)
        if not status.missing:
            return "failed" if status.failed else "done"
        if status.state == "running":
            return "left to another process"
        if status.run_status.get("state") == "stopped" and code == 0:
            return "stopped"
        killed = code < 0 or code >= 128
        if self.stop_requested or killed or code == 0:
            return "killed"
        error = "\n".join(line for line in last_lines(self.log)[-15:] if line.strip())
        note = read_json(self.plan.note_file(self.job))
        write_note(self.plan, self.job, note | {"error": error or f"exit code {code}"})
        return "failed"


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


def run_as_task(plan: Plan, job: Job, requeue: Callable[[], None]) -> int:
    """Train a job as a task of a scheduler; requeue it if its time is over or its training was killed."""
    received: list[int] = []
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: received.append(number))
    if not record_start(plan, job):
        print(f"{job.title}: given up after {plan.sweep.restarts} restarts without progress", flush=True)
        return 1
    print(f"{job.title} ({job.id})", flush=True)
    attempt = Attempt(plan, job, None, {})
    while attempt.child.poll() is None:
        if received:
            attempt.stop()
        time.sleep(0.1)
    outcome = attempt.outcome()
    print(f"{job.title}: {outcome}", flush=True)
    # After SIGTERM the scheduler decides what becomes of the job; what a person stopped stays stopped.
    killed = outcome == "killed" and not received
    out_of_time = outcome in ("stopped", "killed") and set(received) == {signal.SIGUSR1}
    if killed or out_of_time:
        requeue()
    return 1 if outcome == "failed" else 0
