"""The local back end: a worker per GPU, or per as many CPU cores as a job takes, trains job after job."""

import os
import signal
import time
from collections import Counter, deque
from typing import Any

from rich.progress import Progress, TaskID, TimeElapsedColumn

from launch.sweep.fail_fast import why_not_start
from launch.sweep.job import Attempt, record_start
from launch.sweep.plan import Job, Plan
from launch.sweep.status import JobStatus, accuracy, job_status, last_metrics, plural
from launch.train import gpus
from stn.config.seed_list import parse_seeds
from stn.runs.cores import free_cores
from stn.tracking.console import console, say


def gpu_ids(plan: Plan) -> tuple[int, list[str]]:
    """Return how many GPUs a job takes, and the ids of this machine's; ValueError if a job takes more."""
    sweep = plan.sweep
    gpus_per_job = min(1, gpus()) if sweep.gpus is None else sweep.gpus
    if not gpus_per_job:
        return 0, []
    ids = (os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus())))).split(",")[: gpus()]
    if len(ids) < gpus_per_job:
        wanted = plural(gpus_per_job, "GPU")
        raise ValueError(
            f"a job of {sweep.name} takes {wanted}, this machine has {len(ids)}; write 'gpus: {len(ids)}' in its file"
            f"{'' if ids else ' to train on CPU cores'}, or submit it with --on slurm"
        )
    return gpus_per_job, ids


def build_workers(plan: Plan, max_parallel: int | None) -> list[dict[str, str]]:
    """Return environment variables for as many workers as the machine has devices for."""
    gpus_per_job, ids = gpu_ids(plan)
    if not gpus_per_job:
        return ([{}] * max(1, free_cores(say) // plan.sweep.cpus))[:max_parallel]
    starts = range(0, len(ids) - gpus_per_job + 1, gpus_per_job)
    return [{"CUDA_VISIBLE_DEVICES": ",".join(ids[i : i + gpus_per_job])} for i in starts][:max_parallel]


def progress_of(status: JobStatus) -> dict[str, Any]:
    """Return the fields of a running job's progress bar, which counts steps times seeds."""
    metrics, steps = last_metrics(status.runs[-1]), status.run_status["steps"]
    train, acc = metrics.get("train", {}), accuracy(metrics.get("eval", {}))
    step, rate = train.get("step", 0), train.get("images_per_s", 0.0)
    in_training = len(parse_seeds(status.run_status["seeds"]))
    if train.get("seed") in status.rows:  # the next block has not logged a row yet
        in_training = 0
    facts = [f"step {step:,}/{steps:,}", f"{rate:,.0f} images/s", *([] if acc is None else [f"{acc:.2%}"])]
    return {
        "total": steps * len(parse_seeds(status.job.seeds)),
        "completed": steps * len(status.rows) + step * in_training,
        "description": f"{status.job.title}: {', '.join(facts)}",
        "images_per_s": rate,
    }


class Pool:
    """The jobs of a sweep on the workers of this machine."""

    def __init__(self, plan: Plan, jobs: list[Job], workers: list[dict[str, str]]) -> None:
        self.plan, self.total = plan, len(jobs)
        self.waiting, self.workers, self.free = deque(jobs), plural(len(workers), "worker"), list(workers)
        self.running: dict[Job, Attempt] = {}
        self.outcomes: Counter[str] = Counter()
        self.stopping_since: float | None = None
        self.ended_early = False
        self.progress = Progress(
            *Progress.get_default_columns(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_interactive,
            auto_refresh=False,
            transient=True,
            speed_estimate_period=float("inf"),  # rows of metrics may be minutes apart
        )
        self.all_jobs = self.progress.add_task(plan.sweep.name, total=self.total)
        self.lines: dict[Job, TaskID] = {}

    def run(self) -> int:
        """Run until all jobs have ended or a signal asks to stop; return the exit code."""
        handlers = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with self.progress:
                while self.running or (self.waiting and self.stopping_since is None):
                    self._step()
                    if not self.progress.disable:
                        self._show_progress()
                    time.sleep(0.5)
        finally:
            for attempt in self.running.values():  # after an exception: leave no training behind
                attempt.stop()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        say(", ".join(f"{n} {outcome}" for outcome, n in self.outcomes.items()) or "no job ended")
        if self.ended_early:
            return 1  # print_status says why
        if self.waiting or self.outcomes["stopped"] or self.outcomes["killed"]:
            say("stopped; run the same command again to resume")
        return 1 if self.outcomes["failed"] else 0

    def _on_signal(self, number: int, _: object) -> None:
        now = time.monotonic()
        # A second Ctrl-C kills, unless it comes at once: wrappers repeat the signal that the terminal sends to all.
        if number == signal.SIGINT and self.stopping_since is not None and now - self.stopping_since > 1:
            for attempt in self.running.values():
                attempt.kill()
        self.stopping_since = self.stopping_since or now

    def _step(self) -> None:
        """Collect jobs that have ended, and start as many as there are free workers."""
        for job, attempt in list(self.running.items()):
            if attempt.child.poll() is not None:
                del self.running[job]
                self.free.append(attempt.devices)
                self.progress.remove_task(self.lines.pop(job))
                self._on_end(job, attempt.outcome())
            elif self.stopping_since is not None:
                attempt.stop()  # here rather than in the handler: a job may be starting when the signal comes
        while self.stopping_since is None and self.waiting and self.free:
            job = self.waiting.popleft()
            if not record_start(self.plan, job, self.plan.log_file(job)):
                self._on_end(job, "failed")
                continue
            self.running[job] = Attempt(self.plan, job, self.plan.log_file(job), self.free.pop())
            self.lines[job] = self.progress.add_task(f"{job.title}: starting", total=None, images_per_s=0.0)

    def _on_end(self, job: Job, outcome: str) -> None:
        if outcome == "killed" and self.stopping_since is None and not self.ended_early:
            say(f"{job.title} was killed; restarting")
            self.waiting.append(job)
            return
        self.outcomes[outcome] += 1
        see = f"; see {self.plan.log_file(job)}" if outcome == "failed" else ""
        say(f"{job.title}: {outcome} ({self.outcomes.total()} of {self.total} jobs){see}")
        if outcome == "failed" and self.waiting and (reason := why_not_start(self.plan)):
            say(f"{reason}: {plural(len(self.waiting), 'waiting job')} left, {len(self.running)} to finish")
            self.waiting.clear()
            self.ended_early = True

    def _show_progress(self) -> None:
        for job, attempt in self.running.items():
            status = job_status(self.plan, job)
            if attempt.stop_requested:
                self.progress.update(self.lines[job], description=f"{job.title}: stopping")
            elif status.run_status.get("state") == "running" and {"seeds", "steps"} <= status.run_status.keys():
                self.progress.update(self.lines[job], **progress_of(status))
        ended, lines = self.outcomes.total(), self.progress.tasks[1:]
        rate = sum(line.fields["images_per_s"] for line in lines)
        text = f"{ended} of {self.total} jobs, {len(self.waiting)} waiting, {self.workers}, {rate:,.0f} images/s"
        completed = ended + sum(line.percentage for line in lines) / 100
        self.progress.update(self.all_jobs, description=text, completed=completed, refresh=True)


class Local:
    """This machine as a back end of sweeps."""

    runs_here = True

    def active_jobs(self, plan: Plan, release_held: bool) -> set[str]:
        return set()  # no queue outlives the command; leases tell what runs

    def preview(self, plan: Plan, jobs: list[Job], max_parallel: int | None) -> str:
        return "\n".join(f"{job.id}  {job.title}" for job in jobs)

    def check(self, plan: Plan) -> None:
        gpu_ids(plan)

    def submit(self, plan: Plan, jobs: list[Job], max_parallel: int | None) -> int:
        workers = build_workers(plan, max_parallel)
        say(f"{plural(len(jobs), 'job')} on {plural(len(workers), 'worker')}")
        return Pool(plan, jobs, workers).run()

    def requeue(self) -> None:
        """Do nothing: the pool restarts killed jobs itself."""
