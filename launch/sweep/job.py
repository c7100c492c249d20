"""One start of one job: the training process, how it is stopped, and how its outcome is judged.

The run directory decides the outcome; the exit code only tells a crash from a kill.
"""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path

import psutil

from launch import train
from launch.sweep.notes import exit_text, last_output, read_note, write_note
from launch.sweep.plan import Job, Plan
from launch.sweep.status import JobStatus, job_status
from stn.config.source import TRAIN
from stn.runs.process import follow_parent

MARK = "STN_ATTEMPT"
SAVING_S = 60.0
"""Seconds in which ranks whose launcher was killed must have saved."""
OUTPUT = Path(os.path.realpath("/proc/self/fd/1"))
"""The file of this process's output; a Slurm task's also has that of earlier starts."""


def training_command(plan: Plan, job: Job) -> list[str]:
    """Return the command line that trains a job's seeds on as many devices as the sweep gives it."""
    arguments = ["--config", str(plan.cell_file(job)), "--seeds", job.seeds]
    # Absolute, since the folder may have been moved and we may run in another one.
    arguments += ["--runs", str(plan.experiment.parent.absolute()), "--name", plan.experiment.name]
    if (plan.sweep.gpus or 0) > 1:
        return train.command([*arguments, "--processes", str(plan.sweep.gpus)])
    threads = [] if plan.sweep.gpus else ["--train.threads", str(plan.sweep.cpus)]
    return [sys.executable, str(TRAIN), *arguments, *threads]


class Attempt:
    """A training process of one job, whose output goes to a log file, or to the output of this process."""

    def __init__(self, plan: Plan, job: Job, log: Path | None, devices: dict[str, str]) -> None:
        self.plan, self.job, self.devices = plan, job, devices
        self.log = log or OUTPUT
        self.stop_requested = False
        self.mark = uuid.uuid4().hex
        """Marks, in their environment, the process and all that it starts."""
        no_gpus = {} if plan.sweep.gpus else {"CUDA_VISIBLE_DEVICES": ""}
        with log.open("a") if log else nullcontext() as output:
            self.child = subprocess.Popen(
                training_command(plan, job),
                stdout=output,
                stderr=subprocess.STDOUT,
                env=train.environment() | no_gpus | devices | {MARK: self.mark},
                start_new_session=True,  # Ctrl-C reaches the launcher alone, which passes it on as SIGTERM
                preexec_fn=partial(follow_parent, os.getpid()),
            )

    def stop(self) -> None:
        """Ask the process to save a checkpoint and exit."""
        if not self.stop_requested:
            self.stop_requested = True
            self.child.terminate()

    def processes(self) -> list[psutil.Process]:
        """Return the process and its ranks, which have sessions of their own and may outlive it."""
        marked = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark:
                    marked.append(process)
        return marked

    def kill(self) -> None:
        """Kill the process and all that it has started."""
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()

    def _wait(self) -> int:
        """Wait for the process and for ranks that save after their launcher was killed; return its exit code."""
        code = self.child.wait()
        if psutil.wait_procs(self.processes(), timeout=SAVING_S)[1]:
            self.kill()
            psutil.wait_procs(self.processes())
        return code

    def outcome(self) -> str:
        """Return done, failed, stopped, killed (not its own fault) or left to another process, which trains it."""
        code = self._wait()
        status = job_status(self.plan, self.job)
        if not status.missing:
            return "failed" if status.failed else "done"
        if status.state == "running":
            return "left to another process"
        if status.run_status.get("state") == "stopped" and code == 0:
            return "stopped"
        killed = self.stop_requested or code <= 0 or code >= 128
        note, output = read_note(self.plan, self.job), last_output(self.log)
        how = {"end": f"{exit_text(code)}\n{output}"} if killed else {"error": output or exit_text(code)}
        write_note(self.plan, self.job, note | how)
        return "killed" if killed else "failed"


def record_start(plan: Plan, job: Job, log: Path) -> bool:
    """Record one more start; False if the job has used up its starts without progress and is given up."""
    status, note = job_status(plan, job), read_note(plan, job)
    progress = [len(status.rows), status.run_status.get("step", 0)]
    idle = note.get("idle", 0) + 1 if note.get("progress") == progress else 0
    end = note.get("end") or last_output(log)  # if this process was killed as well, the log ends with Slurm's message
    note = {"starts": note.get("starts", 0) + 1, "progress": progress, "idle": idle}
    given_up = idle > plan.sweep.restarts
    if given_up:
        note["error"] = f"given up after {idle} starts without progress; the last one: {end}"
    write_note(plan, job, note)
    return not given_up


def reset_job(plan: Plan, status: JobStatus, drop_failed: bool = False) -> None:
    """Clear a job's failure record; with drop_failed also the result rows of its failed seeds, in every block."""
    if read_note(plan, status.job):
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
    if not record_start(plan, job, OUTPUT):
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
    # After SIGTERM the scheduler requeues the job or does not; a job that a person stopped stays stopped.
    killed = outcome == "killed" and not received
    out_of_time = outcome in ("stopped", "killed") and set(received) == {signal.SIGUSR1}
    if killed or out_of_time:
        requeue()
    return 1 if outcome == "failed" else 0
