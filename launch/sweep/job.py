"""One start of one job: the child that trains, how it is asked to stop, and what its end means.

What it means is read from the run directory. Must not know who starts jobs, nor torch.
"""

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
from launch.sweep.status import JobStatus, look, read_note, tail, write_note
from stn.runs.process import follow_parent

LINES = 15
"""Last lines of a failed job's output that are kept."""


def command(plan: Plan, job: Job) -> list[str]:
    """The command line that trains a job's seeds, on as many devices as the sweep gives it."""
    arguments = ["--config", str(plan.cell_file(job)), "--seeds", job.seeds]
    # Wherever the folder has been moved to, and whatever folder we are in.
    arguments += ["--runs", str(plan.experiment.parent.absolute()), "--name", plan.experiment.name]
    if (plan.sweep.gpus or 0) > 1:
        return train.command([*arguments, "--processes", str(plan.sweep.gpus)])
    threads = [] if plan.sweep.gpus else ["--train.threads", str(plan.sweep.cpus)]
    return [sys.executable, str(train.ROOT / "train.py"), *arguments, *threads]


class Attempt:
    """A job that is being trained."""

    def __init__(self, plan: Plan, job: Job, output: IO[Any] | None, log: Path, env: dict[str, str] | None = None):
        self.plan, self.job, self.log = plan, job, log
        self.asked = False
        self.child = subprocess.Popen(
            command(plan, job),
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            env=os.environ | ({} if plan.sweep.gpus else {"CUDA_VISIBLE_DEVICES": ""}) | (env or {}),
            start_new_session=True,  # Ctrl-C is for the launcher, which passes it on as SIGTERM
            preexec_fn=partial(follow_parent, os.getpid()),
        )

    def stop(self) -> None:
        """Ask it to save and leave."""
        if not self.asked:
            self.asked = True
            self.child.terminate()

    def kill(self) -> None:
        """End it and all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)

    def end(self) -> str:
        """What the end means: finished, failed, stopped, elsewhere, or died (of no fault of its own)."""
        code = self.child.wait()
        standing = self.standing()
        if not standing.missing:
            return "failed" if standing.failed else "finished"
        if standing.state == "running":
            return "elsewhere"
        if standing.status.get("state") == "stopped" and code == 0:
            return "stopped"
        if self.asked or code < 0 or code >= 128 or code == 0:
            return "died"
        said = "\n".join(line for line in tail(self.log)[-LINES:] if line.strip())
        note = read_note(self.plan, self.job) | {"error": said or f"exit code {code}"}
        write_note(self.plan, self.job, note)
        return "failed"

    def standing(self) -> JobStatus:
        return look(self.plan, [self.job])[0]


def begin(plan: Plan, job: Job) -> bool:
    """Whether to start a job again: not where it made no progress since it was started too many times before."""
    standing, note = look(plan, [job])[0], read_note(plan, job)
    progress = [len(standing.rows), standing.status.get("step", 0)]
    idle = note.get("idle", 0) + 1 if note.get("progress") == progress else 0
    note = {"starts": note.get("starts", 0) + 1, "progress": progress, "idle": idle}
    given_up = idle > plan.sweep.restarts
    if given_up:
        note["error"] = f"given up after {idle} starts without progress"
    write_note(plan, job, note)
    return not given_up


def reset_job(plan: Plan, standing: JobStatus) -> None:
    """Let a job begin anew, whatever became of its earlier starts."""
    if read_note(plan, standing.job):
        write_note(plan, standing.job, {})
    for run in standing.runs:
        if run.read_status().get("state") == "failed" and standing.missing:
            run.write_end("stopped")
