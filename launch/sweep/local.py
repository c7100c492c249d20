"""The local back end: a worker per GPU, or per as many CPU cores as a job takes, trains job after job."""

import os
import signal
import time
from collections import Counter, deque
from types import FrameType

from rich.live import Live
from rich.table import Table

from launch.sweep.job import Attempt, record_start
from launch.sweep.plan import Job, Plan
from launch.sweep.table import OUTCOMES, JobSpeed, clock, plural, render_jobs
from launch.train import gpus
from stn.runs.process import cores
from stn.tracking.console import console, say

POLL_S = 0.5
Worker = dict[str, str]
"""Environment variables that give one job devices of its own."""


def build_workers(plan: Plan, max_parallel: int | None) -> list[Worker]:
    """Return as many workers as the machine has devices for."""
    sweep = plan.sweep
    gpus_per_job = min(1, gpus()) if sweep.gpus is None else sweep.gpus
    if not gpus_per_job:
        return ([{}] * max(1, cores() // sweep.cpus))[:max_parallel]
    ids = (os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus())))).split(",")[: gpus()]
    if len(ids) < gpus_per_job:
        raise ValueError(f"a job of {sweep.name} takes {gpus_per_job} GPUs, this machine has {len(ids)}")
    starts = range(0, len(ids) - gpus_per_job + 1, gpus_per_job)
    return [{"CUDA_VISIBLE_DEVICES": ",".join(ids[i : i + gpus_per_job])} for i in starts][:max_parallel]


class Pool:
    """The jobs of a sweep on the workers of this machine."""

    def __init__(self, plan: Plan, jobs: list[Job], workers: list[Worker]) -> None:
        self.plan = plan
        self.waiting, self.free = deque(jobs), list(workers)
        self.running: dict[Job, tuple[Attempt, Worker]] = {}
        self.speeds = {job: JobSpeed() for job in jobs}
        self.ended: list[tuple[Job, str]] = []
        self.total, self.workers, self.start = len(jobs), len(workers), time.monotonic()
        self.stopping_since: float | None = None

    def run(self) -> int:
        """Run until all jobs have ended or a signal asks to stop; return the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        try:
            with Live(self.table(), console=console, auto_refresh=False, transient=True) as live:
                while self.running or (self.waiting and self.stopping_since is None):
                    self._step()
                    if console.is_terminal:
                        live.update(self.table(), refresh=True)
                    time.sleep(POLL_S)
        finally:
            for attempt, _ in self.running.values():  # after an exception: leave no training behind
                attempt.stop()
        outcomes = Counter(outcome for _, outcome in self.ended)
        say(", ".join(f"{n} {OUTCOMES.get(outcome, outcome)}" for outcome, n in outcomes.items()) or "no job ended")
        if self.waiting or outcomes["stopped"] or outcomes["died"]:
            say("stopped; run the same command again to resume")
        return 1 if outcomes["failed"] else 0

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        # A second Ctrl-C kills, unless it comes at once: wrappers repeat what the terminal has sent to all.
        if number == signal.SIGINT and self.stopping_since is not None and now - self.stopping_since > 1:
            for attempt, _ in self.running.values():
                attempt.kill()
        self.stopping_since = self.stopping_since or now

    def _step(self) -> None:
        """Collect jobs that have ended, and start as many as there are free workers."""
        for job, (attempt, worker) in list(self.running.items()):
            if attempt.child.poll() is not None:
                del self.running[job]
                self.free.append(worker)
                self._on_end(job, attempt.outcome())
            elif self.stopping_since is not None:
                attempt.stop()  # here rather than in the handler: a job may be starting when the signal comes
        while self.stopping_since is None and self.waiting and self.free:
            job = self.waiting.popleft()
            if not record_start(self.plan, job):
                self._on_end(job, "failed")
                continue
            worker, log = self.free.pop(), self.plan.log_file(job)
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a") as output:
                self.running[job] = (Attempt(self.plan, job, output, log, worker), worker)

    def _on_end(self, job: Job, outcome: str) -> None:
        name = f"{job.label} seeds {job.seeds}"
        if outcome == "died" and self.stopping_since is None:
            say(f"{name} was killed; restarting")
            self.waiting.append(job)
            return
        self.ended.append((job, outcome))
        if outcome == "failed":
            say(f"{name} failed; see {self.plan.log_file(job)}")
        elif not console.is_terminal:
            say(f"{name}: {OUTCOMES.get(outcome, outcome)} ({len(self.ended)} of {self.total} jobs)")

    def table(self) -> Table:
        """Return a row per running job and per job that ended last, and totals."""
        for job, (attempt, _) in self.running.items():
            self.speeds[job].update(attempt.status())
        running = [(job, self.speeds[job], attempt.stop_requested) for job, (attempt, _) in self.running.items()]
        table = render_jobs(str(self.plan.sweep.name), self.ended, running)
        rate = sum(speed.images_per_s for _, speed, _ in running)
        left_s = max((speed.left_s for _, speed, _ in running if speed.left_s is not None), default=None)
        ended, spent_s = len(self.ended), time.monotonic() - self.start
        if ended and self.waiting:
            left_s = spent_s / ended * (len(self.waiting) + len(self.running))
        done = f"{ended} of {self.total} jobs, {len(self.waiting)} waiting, {plural(self.workers, 'worker')}"
        table.add_row(done, "", clock(spent_s), "", "", f"{rate:,.0f}", clock(left_s), style="bold")
        return table


class Local:
    """This machine as a back end of sweeps."""

    runs_here = True

    def active_jobs(self, plan: Plan, release_held: bool) -> set[str]:
        return set()  # no queue outlives the command; leases tell what runs

    def preview(self, plan: Plan, jobs: list[Job], max_parallel: int | None) -> str:
        return "\n".join(f"{job.id}  {job.label} seeds {job.seeds}" for job in jobs)

    def submit(self, plan: Plan, jobs: list[Job], max_parallel: int | None) -> int:
        workers = build_workers(plan, max_parallel)
        say(f"{plural(len(jobs), 'job')} on {plural(len(workers), 'worker')}")
        return Pool(plan, jobs, workers).run()

    def requeue(self) -> None:
        """Do nothing: the pool restarts killed jobs itself."""
