"""One task of a job array, on its node: trains one job, and requeues it when its time is over or it was killed."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from launch.sweep.job import Attempt, record_start
from launch.sweep.plan import Job, Plan


class Task:
    """Train a job in this process's place, and turn signals of the scheduler into a stop."""

    def __init__(self, plan: Plan, job: Job, requeue: Callable[[], None]) -> None:
        self.plan, self.job, self.requeue = plan, job, requeue
        self.signal: int | None = None

    def run(self) -> int:
        """Train until the job ends or is to stop; return the exit code."""
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        name = f"{self.job.label} seeds {self.job.seeds}"
        if not record_start(self.plan, self.job):
            print(f"{name}: given up after {self.plan.sweep.restarts} restarts without progress", flush=True)
            return 1
        log = Path(os.path.realpath(f"/proc/{os.getpid()}/fd/1"))
        print(f"{name} ({self.job.id})", flush=True)
        attempt = Attempt(self.plan, self.job, None, log)
        while attempt.child.poll() is None:
            if self.signal is not None:
                attempt.stop()
            time.sleep(0.1)
        outcome = attempt.outcome()
        print(f"{name}: {outcome}", flush=True)
        # After SIGTERM the scheduler decides what becomes of the job; what a person stopped stays stopped.
        killed = outcome == "died" and self.signal is None
        out_of_time = outcome in ("stopped", "died") and self.signal == signal.SIGUSR1
        if killed or out_of_time:
            self.requeue()
        return 1 if outcome == "failed" else 0

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signal in (None, signal.SIGUSR1):
            self.signal = number


def run_task(plan: Plan, jobs_file: Path, index: int, gpus: int, cpus: int, requeue: Callable[[], None]) -> int:
    """Train the job in line ``index`` with the devices that it was submitted with, even if the sweep was edited."""
    plan = plan._replace(sweep=plan.sweep.model_copy(update={"gpus": gpus, "cpus": cpus}))
    job_id = jobs_file.read_text().splitlines()[index]
    for job in plan.jobs:
        if job.id == job_id:
            return Task(plan, job, requeue).run()
    print(f"{job_id} is no longer part of sweep {plan.sweep.name}")
    return 0
