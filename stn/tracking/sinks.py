"""Who hears of a run besides metrics.jsonl: console, TensorBoard, Weights & Biases.

A sink may fail without harming the run.
"""

import os
import time
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from stn.config.schema import Config
from stn.runs.directory import Row, RunDir
from stn.runs.files import read_rows
from stn.tracking.wandb_run import SeedRun, logged_in

PLAIN_EVERY_S = 10.0


class Sink(Protocol):
    def write(self, rows: list[Row]) -> None: ...

    def close(self, results: list[Row]) -> None: ...


class ConsoleSink:
    """One progress bar on a terminal, plain lines elsewhere; means over the seeds."""

    def __init__(self, console: Console, label: str, steps: int | None, start: int) -> None:
        self.console, self.label, self.steps, self.said = console, label, steps, 0.0
        self.bar: Progress | None = None
        if console.is_terminal:
            text = TextColumn("{task.description} epoch {task.fields[epoch]:.1f} {task.fields[text]}", markup=False)
            self.bar = Progress(text, BarColumn(), TimeRemainingColumn(), console=console)
            self.task = self.bar.add_task(self.label, total=steps, completed=start, epoch=0.0, text="")
            self.bar.start()

    def write(self, rows: list[Row]) -> None:
        row = rows[0]
        shared = [key for key in row if all(isinstance(r.get(key), float) for r in rows)]
        mean = {key: sum(r[key] for r in rows) / len(rows) for key in shared}
        if row["kind"] == "train":
            text = f"loss {mean['loss']:.4f}  acc {mean['acc']:.2%}  {row['images_per_s']:,.0f} images/s"
        else:
            split = "val" if "val_acc" in row else "test"
            text = f"{split} acc {mean[f'{split}_acc']:.2%}  {split} loss {mean[f'{split}_loss']:.4f}"
        if self.bar is not None:
            if row["kind"] == "train":
                self.bar.update(self.task, completed=row["step"], epoch=row["epoch"], text=text)
        elif row["kind"] == "eval" or time.monotonic() - self.said > PLAIN_EVERY_S:
            self.said = time.monotonic()
            line = f"{self.label}  epoch {row['epoch']:.2f}  step {row['step']}/{self.steps}  {text}"
            self.console.print(line, highlight=False, soft_wrap=True)

    def close(self, results: list[Row]) -> None:
        if self.bar is not None:
            self.bar.stop()


class TensorBoardSink:
    """One folder of events per seed, under the run directory."""

    def __init__(self, run: RunDir, seeds: list[int], start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # an extra; imported when asked for

        self.writers = {s: SummaryWriter(str(run.path / f"tensorboard/seed-{s}"), purge_step=start) for s in seeds}

    def write(self, rows: list[Row]) -> None:
        for row in rows:
            for key, value in row.items():
                if isinstance(value, float):
                    self.writers[row["seed"]].add_scalar(f"{row['kind']}/{key}", value, row["step"])

    def close(self, results: list[Row]) -> None:
        for writer in self.writers.values():
            writer.close()


class WandbSink:
    """One W&B run per seed with a stable id, so that a continued seed continues its run."""

    unreachable = False
    """Once the server did not answer, this process stays offline."""

    def __init__(self, run: RunDir, config: Config, sig: str, seeds: list[int], say: Any) -> None:
        import wandb  # imported when it is used: half a second

        self.runs: dict[int, SeedRun] = {}
        mode = self._mode(wandb, config.log.wandb)
        if mode == "disabled":
            return
        record = read_rows(run.metrics) if mode == "online" else []
        for seed in seeds:
            for attempt in dict.fromkeys([mode, "offline"]):
                try:
                    self.runs[seed] = SeedRun(wandb, config, sig, seed, attempt, str(run.path))
                    if attempt == "online":  # what a kill, or a time without network, kept from the server
                        self.write([row for row in record if row.get("seed") == seed])
                    break
                except wandb.Error as error:
                    if attempt == "offline":
                        raise
                    WandbSink.unreachable, mode = True, "offline"
                    say(f"W&B is not reachable, logging offline: {str(error).splitlines()[0]}")

    @staticmethod
    def _mode(wandb: Any, wish: str) -> str:
        if wish == "auto":
            wish = os.environ.get("WANDB_MODE", "") or ("online" if logged_in(wandb) else "offline")
        return "offline" if wish == "online" and WandbSink.unreachable else wish

    def write(self, rows: list[Row]) -> None:
        for row in rows:
            if row["seed"] in self.runs:
                self.runs[row["seed"]].send([row])

    def close(self, results: list[Row]) -> None:
        rows = {row["seed"]: row for row in results}
        for seed, run in self.runs.items():
            run.finish(rows.get(seed))
