"""A sweep on this machine: a worker per GPU, or per so many cores as a job takes; a table of where it stands.

Must not know Slurm, nor torch.
"""

import os
import signal
import time
from collections import Counter, deque
from types import FrameType

from rich.live import Live
from rich.table import Table

from launch.sweep.job import Attempt, begin
from launch.sweep.plan import Job, Plan
from launch.sweep.status import JobStatus, accuracy, last_metrics
from launch.train import gpus
from stn.config.seed_list import parse_seeds
from stn.runs.process import cores
from stn.tracking.console import console, say

POLL_S = 0.5
LAST = 6
"""Jobs shown after they have ended."""
ENDS = {"finished": "done", "elsewhere": "left to another process", "died": "killed"}


Worker = dict[str, str]
"""Environment that gives one job devices of its own."""


def workers(plan: Plan, most: int | None) -> list[Worker]:
    """As many as the machine has devices for."""
    sweep = plan.sweep
    if each := min(1, gpus()) if sweep.gpus is None else sweep.gpus:
        ids = (os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus())))).split(",")[: gpus()]
        if len(ids) < each:
            raise ValueError(f"a job of {sweep.name} takes {each} GPUs, this machine has {len(ids)}")
        parts = [ids[i : i + each] for i in range(0, len(ids) - each + 1, each)]
        found = [{"CUDA_VISIBLE_DEVICES": ",".join(part)} for part in parts]
    else:
        found = [{}] * max(1, cores() // sweep.cpus)
    return found[:most]


class Watch:
    """How far a job is, from its run directory, and how fast it has moved since it was first looked at."""

    def __init__(self) -> None:
        self.first = (0.0, 0)
        self.step = self.steps = 0
        self.acc: float | None = None
        self.images_per_s = 0.0
        self.left_s: float | None = None

    def look(self, standing: JobStatus) -> None:
        if standing.status.get("state") != "running":
            return
        rows, status = last_metrics(standing.runs[-1]), standing.status
        before, self.step, self.steps = self.step, rows.get("train", {}).get("step", 0), status.get("steps", 0)
        self.acc, self.images_per_s = accuracy(rows.get("eval", {})), rows.get("train", {}).get("images_per_s", 0.0)
        if not before or self.step < before:  # just started, or another block of the job's seeds
            self.first = (time.monotonic(), self.step)
        since, moved = time.monotonic() - self.first[0], self.step - self.first[1]
        if moved and self.steps:
            together = max(1, len(parse_seeds(status["seeds"])))
            blocks_left = -(-max(0, len(standing.missing) - together) // together)
            self.left_s = since / moved * (self.steps - self.step + blocks_left * self.steps)


def plural(n: int, word: str) -> str:
    return f"{n:,} {word}{'s' * (n != 1)}"


def clock(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, s = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{s:02d}"


class Pool:
    """The jobs of a sweep on the workers of this machine."""

    def __init__(self, plan: Plan, jobs: list[Job], workers: list[Worker]) -> None:
        self.plan = plan
        self.waiting, self.free = deque(jobs), list(workers)
        self.running: dict[Job, tuple[Attempt, Worker]] = {}
        self.watches = {job: Watch() for job in jobs}
        self.ended: list[tuple[Job, str]] = []
        self.total, self.workers, self.start = len(jobs), len(workers), time.monotonic()
        self.leaving: float | None = None

    def run(self) -> int:
        """Until everything has ended or somebody wants to leave; the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._heard)
        try:
            with Live(self.table(), console=console, auto_refresh=False, transient=True) as live:
                while self.running or (self.waiting and self.leaving is None):
                    self._step()
                    if console.is_terminal:
                        live.update(self.table(), refresh=True)
                    time.sleep(POLL_S)
        finally:
            for attempt, _ in self.running.values():  # something went wrong here: leave nothing behind
                attempt.stop()
        ends = Counter(end for _, end in self.ended)
        say(", ".join(f"{n} {ENDS.get(end, end)}" for end, n in ends.items()) or "nothing ended")
        if self.waiting or ends["stopped"] or ends["died"]:
            say("stopped; the same command goes on")
        return 1 if ends["failed"] else 0

    def _heard(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        # A second Ctrl-C is an order. Not one of the same moment: wrappers repeat what the terminal has sent to all.
        if number == signal.SIGINT and self.leaving is not None and now - self.leaving > 1:
            for attempt, _ in self.running.values():
                attempt.kill()
        self.leaving = self.leaving or now

    def _step(self) -> None:
        """Collect who has ended, start who can."""
        for job, (attempt, worker) in list(self.running.items()):
            if attempt.child.poll() is not None:
                del self.running[job]
                self.free.append(worker)
                self._ended(job, attempt.end())
            elif self.leaving is not None:
                attempt.stop()  # also one that was just being started when the signal came
        while self.leaving is None and self.waiting and self.free:
            job = self.waiting.popleft()
            if not begin(self.plan, job):
                self._ended(job, "failed")
                continue
            worker, log = self.free.pop(), self.plan.log(job)
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a") as output:
                self.running[job] = (Attempt(self.plan, job, output, log, worker), worker)

    def _ended(self, job: Job, end: str) -> None:
        if end == "died" and self.leaving is None:
            say(f"{job.label} seeds {job.seeds} ended before its time; it goes on")
            self.waiting.append(job)
            return
        self.ended.append((job, end))
        if end == "failed":
            say(f"{job.label} seeds {job.seeds} failed; see {self.plan.log(job)}")
        elif not console.is_terminal:
            say(f"{job.label} seeds {job.seeds}: {ENDS.get(end, end)} ({len(self.ended)} of {self.total} jobs)")

    def table(self) -> Table:
        """A row per job at work, the last that ended, and totals."""
        table = Table(box=None, padding=(0, 1), title=f"{self.plan.sweep.name}", title_justify="left")
        for heading in ("job", "seeds", "state"):
            table.add_column(heading, no_wrap=True)
        for heading in ("step", "accuracy", "images/s", "left"):
            table.add_column(heading, justify="right", no_wrap=True)
        for job, end in self.ended[-LAST:]:
            table.add_row(
                job.label, job.seeds, ENDS.get(end, end), *[""] * 4, style="dim" if end != "failed" else "red"
            )
        rate, left = 0.0, []
        for job, (attempt, _) in self.running.items():
            now = self.watches[job]
            now.look(attempt.standing())
            rate += now.images_per_s
            left.append(now.left_s)
            acc = "-" if now.acc is None else f"{now.acc:.2%}"
            state = "leaving" if attempt.asked else "running" if now.step else "starting"
            step = f"{now.step:,}/{now.steps:,}" if now.steps else "-"
            table.add_row(job.label, job.seeds, state, step, acc, f"{now.images_per_s:,.0f}", clock(now.left_s))
        ended, spent = len(self.ended), time.monotonic() - self.start
        known = [seconds for seconds in left if seconds is not None]
        rest = max(known, default=None)
        if ended and self.waiting:
            rest = spent / ended * (len(self.waiting) + len(self.running))
        done = f"{ended} of {self.total} jobs, {len(self.waiting)} waiting, {plural(self.workers, 'worker')}"
        table.add_section()
        table.add_row(done, "", clock(spent), "", "", f"{rate:,.0f}", clock(rest), style="bold")
        return table


def run(plan: Plan, jobs: list[Job], most: int | None) -> int:
    found = workers(plan, most)
    say(f"{plural(len(jobs), 'job')} on {plural(len(found), 'worker')}")
    return Pool(plan, jobs, found).run()
