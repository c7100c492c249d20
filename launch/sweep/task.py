"""One task of a Slurm array, on its node."""

import os
import re
import signal
import time
from pathlib import Path
from types import FrameType

from launch.sweep.job import Attempt, begin
from launch.sweep.plan import Job, Plan
from launch.sweep.slurm import run_slurm


class Task:
    """One task of an array: trains its job, goes back into the queue when its time is over."""

    def __init__(self, plan: Plan, job: Job) -> None:
        self.plan, self.job = plan, job
        self.wish: int | None = None

    def run(self) -> int:
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._heard)
        if not begin(self.plan, self.job):
            print(f"{self.job.label} seeds {self.job.seeds}: given up, no progress", flush=True)
            return 1
        log = Path(os.path.realpath(f"/proc/{os.getpid()}/fd/1"))
        print(f"{self.job.label} seeds {self.job.seeds} ({self.job.id})", flush=True)
        attempt = Attempt(self.plan, self.job, None, log)
        while attempt.child.poll() is None:
            if self.wish is not None:
                attempt.stop()
            time.sleep(0.1)
        end = attempt.end()
        print(f"{self.job.label} seeds {self.job.seeds}: {end}", flush=True)
        # After SIGTERM Slurm decides what becomes of the job; a run that a person stopped stays stopped.
        if (end == "died" and self.wish is None) or (end in ("stopped", "died") and self.wish == signal.SIGUSR1):
            self._requeue()
        return 1 if end == "failed" else 0

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self.wish in (None, signal.SIGUSR1):
            self.wish = number

    def _requeue(self) -> None:
        array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        name = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
        shown = re.search(r"Restarts=(\d+)", run_slurm("scontrol", "show", "job", "--oneliner", name))
        if not shown or shown[1] != os.environ.get("SLURM_RESTART_COUNT", "0"):
            return  # Slurm has started it again without us, on another node
        print(f"back into the queue: {name}", flush=True)
        run_slurm("scontrol", "requeue", name)
        time.sleep(30)  # Slurm ends this process; leaving before would look like an end of the job


def task(plan: Plan, jobs_file: Path, index: int, gpus: int, cpus: int) -> int:
    """Train a job with what it was submitted with, whatever the sweep's file says by now."""
    plan = plan._replace(sweep=plan.sweep.model_copy(update={"gpus": gpus, "cpus": cpus}))
    wanted = jobs_file.read_text().splitlines()[index]
    for job in plan.jobs:
        if job.id == wanted:
            return Task(plan, job).run()
    print(f"{wanted} is no longer part of sweep {plan.sweep.name}")
    return 0
