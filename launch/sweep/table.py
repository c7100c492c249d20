"""Terminal tables: the cells of a sweep, and the jobs that run on this machine."""

import time
from typing import Any

from rich.table import Table
from rich.text import Text

from launch.sweep.plan import Job, Plan
from launch.sweep.status import STATES, JobStatus, accuracy, last_metrics
from stn.config.seed_list import parse_seeds

SHOWN_ENDED = 6
"""Ended jobs that the live table shows."""
OUTCOMES = {"finished": "done", "elsewhere": "left to another process", "died": "killed"}
"""Words for outcomes of a job; the others stand for themselves."""


def plural(n: int, word: str) -> str:
    return f"{n:,} {word}{'s' * (n != 1)}"


def clock(seconds: float | None) -> str:
    """Return a duration as h:mm:ss."""
    if seconds is None:
        return "-"
    minutes, s = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{s:02d}"


def render_cells(plan: Plan, cells: list[dict[str, Any]], totals: dict[str, int]) -> Table:
    title = f"{plan.sweep.name}: {sum(totals.values()):,} seeds"
    table = Table(box=None, padding=(0, 1), title=title, title_justify="left")
    has_settings = any(cell["setting"] for cell in cells)
    for heading in ("arch", "data set", *(["setting"] if has_settings else [])):
        table.add_column(heading)
    for heading in (*STATES, "mean", "SD"):
        table.add_column(heading, justify="right")
    table.add_column("missing seeds", overflow="fold")
    for cell in cells:
        mean, sd = ("-" if cell[key] is None else f"{cell[key]:.2%}" for key in ("mean", "sd"))
        names = [Text(cell[key]) for key in ("arch", "dataset", *(["setting"] if has_settings else []))]
        table.add_row(*names, *(str(cell[state] or "-") for state in STATES), mean, sd, cell["missing"])
    table.add_section()
    blank = [""] if has_settings else []
    table.add_row("all", "", *blank, *(str(totals[state] or "-") for state in STATES), style="bold")
    return table


class JobSpeed:
    """How far a running job is, and how fast it has moved since it was first seen."""

    def __init__(self) -> None:
        self.first = (0.0, 0)
        self.step = self.steps = 0
        self.acc: float | None = None
        self.images_per_s = 0.0
        self.left_s: float | None = None

    def update(self, status: JobStatus) -> None:
        """Read the newest metrics of the job's run directory."""
        if status.run_status.get("state") != "running":
            return
        metrics = last_metrics(status.runs[-1])
        before, self.steps = self.step, status.run_status.get("steps", 0)
        self.step = metrics.get("train", {}).get("step", 0)
        self.images_per_s = metrics.get("train", {}).get("images_per_s", 0.0)
        self.acc = accuracy(metrics.get("eval", {}))
        if not before or self.step < before:  # just started, or another block of the job's seeds
            self.first = (time.monotonic(), self.step)
        elapsed_s, moved = time.monotonic() - self.first[0], self.step - self.first[1]
        if moved and self.steps:
            block_size = max(1, len(parse_seeds(status.run_status["seeds"])))
            later_blocks = -(-max(0, len(status.missing) - block_size) // block_size)
            self.left_s = elapsed_s / moved * (self.steps - self.step + later_blocks * self.steps)


def render_jobs(name: str, ended: list[tuple[Job, str]], running: list[tuple[Job, JobSpeed, bool]]) -> Table:
    """Return a table with the last jobs that ended and the running ones, each with whether it was asked to stop."""
    table = Table(box=None, padding=(0, 1), title=name, title_justify="left")
    for heading in ("job", "seeds", "state"):
        table.add_column(heading, no_wrap=True)
    for heading in ("step", "accuracy", "images/s", "left"):
        table.add_column(heading, justify="right", no_wrap=True)
    for job, outcome in ended[-SHOWN_ENDED:]:
        style = "red" if outcome == "failed" else "dim"
        table.add_row(job.label, job.seeds, OUTCOMES.get(outcome, outcome), *[""] * 4, style=style)
    for job, speed, stopping in running:
        acc = "-" if speed.acc is None else f"{speed.acc:.2%}"
        state = "stopping" if stopping else "running" if speed.step else "starting"
        step = f"{speed.step:,}/{speed.steps:,}" if speed.steps else "-"
        rate = f"{speed.images_per_s:,.0f}"
        table.add_row(job.label, job.seeds, state, step, acc, rate, clock(speed.left_s))
    table.add_section()
    return table
