"""The log of a block of seeds: metrics.jsonl is the record; console, TensorBoard and W&B are sinks that may fail.

Processes that do not write the run directory log nothing.
"""

import os
import time
from collections.abc import Callable, Sequence
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from stn.config.command_line import is_main_process
from stn.config.schema import Config
from stn.runs.directory import Row, RunDir
from stn.runs.trials import Trial, block_label, group_by_run
from stn.tracking.console import console, warn
from stn.tracking.wandb_run import SeedRun, logged_in

PLAIN_EVERY_S = 10.0


class ConsoleSink:
    """One progress bar on a terminal, plain lines elsewhere; means over the seeds."""

    def __init__(self, console: Console, label: str, steps: int | None, start: int) -> None:
        self.console, self.label, self.steps, self.last_line = console, label, steps, 0.0
        text = TextColumn("{task.description} epoch {task.fields[epoch]:.1f} {task.fields[text]}", markup=False)
        self.bar = Progress(text, BarColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal)
        self.task = self.bar.add_task(label, total=steps, completed=start, epoch=0.0, text="")
        self.bar.start()

    def write(self, rows: list[Row]) -> None:
        row = rows[0]
        shared = [key for key in row if all(isinstance(r.get(key), float) for r in rows)]
        mean = {key: sum(r[key] for r in rows) / len(rows) for key in shared}
        if row["kind"] == "train":
            text = f"loss {mean['loss']:.4f}  acc {mean['acc']:.2%}  {row['images_per_s']:,.0f} images/s"
            self.bar.update(self.task, completed=row["step"], epoch=row["epoch"], text=text)
        else:
            split = "val" if "val_acc" in row else "test"
            text = f"{split} acc {mean[f'{split}_acc']:.2%}  {split} loss {mean[f'{split}_loss']:.4f}"
        due = row["kind"] == "eval" or time.monotonic() - self.last_line > PLAIN_EVERY_S
        if due and not self.console.is_terminal:
            self.last_line = time.monotonic()
            line = f"{self.label}  epoch {row['epoch']:.2f}  step {row['step']}/{self.steps}  {text}"
            self.console.print(line, highlight=False, soft_wrap=True)

    def close(self, results: list[Row]) -> None:
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
    """One W&B run per seed with a stable id, so that a resumed seed continues its run."""

    unreachable = False
    """Once the server did not answer, this process stays offline."""

    def __init__(self, run: RunDir, config: Config, sig: str, seeds: list[int], warn: Callable[[str], None]) -> None:
        import wandb  # takes half a second

        self.runs: dict[int, SeedRun] = {}
        mode = config.log.wandb
        if mode == "auto":
            mode = os.environ.get("WANDB_MODE") or ("online" if logged_in(wandb) else "offline")
        if mode == "disabled":
            return
        online = mode == "online" and not WandbSink.unreachable
        record = run.read_metrics() if online else []
        for seed in seeds:
            if online:
                try:
                    self.runs[seed] = SeedRun(wandb, config, sig, seed, "online", str(run.path))
                    # What a kill, or a time without network, kept from the server.
                    self.write([row for row in record if row.get("seed") == seed])
                    continue
                except wandb.Error as error:
                    online, WandbSink.unreachable = False, True
                    warn(f"W&B is not reachable, logging offline: {str(error).splitlines()[0]}")
            self.runs[seed] = SeedRun(wandb, config, sig, seed, "offline", str(run.path))

    def write(self, rows: list[Row]) -> None:
        for row in rows:
            if row["seed"] in self.runs:
                self.runs[row["seed"]].send([row])

    def close(self, results: list[Row]) -> None:
        rows = {row["seed"]: row for row in results}
        for seed, run in self.runs.items():
            run.finish(rows.get(seed))


Sink = ConsoleSink | TensorBoardSink | WandbSink


class Log:
    """The log of a block of trials; rows are in the order of the trials, None for a seed that has failed."""

    def __init__(self, trials: list[Trial], start: int, writes: bool) -> None:
        self.groups = group_by_run(trials) if writes else []
        self.sinks: list[tuple[str, Sink, RunDir | None]] = []
        if writes and is_main_process():
            label, steps = block_label(trials), trials[0].config.train.steps
            self._open("console", partial(ConsoleSink, console, label, steps, start))
        for group in self.groups:
            (config, sig, _, run, _), seeds = group[0], [trial.seed for trial in group]
            if config.log.tensorboard:
                self._open("TensorBoard", partial(TensorBoardSink, run, seeds, start), run)
            if config.log.wandb != "disabled":
                self._open("W&B", partial(WandbSink, run, config, sig, seeds, warn), run)

    def _open(self, name: str, make: Callable[[], Sink], run: RunDir | None = None) -> None:
        try:
            self.sinks.append((name, make(), run))
        except Exception as error:  # whatever a sink dies of, the run lives
            warn(f"{name} is off: {type(error).__name__}: {error}")

    def _by_run(self, rows: Sequence[Row | None]) -> list[tuple[RunDir, list[Row]]]:
        """Return the rows of each run directory, without those of failed seeds."""
        left = iter(rows)
        return [(g[0].run, [row for _, row in zip(g, left, strict=False) if row]) for g in self.groups]

    def _call(self, act: Callable[[Sink, list[Row]], None], parts: list[tuple[RunDir, list[Row]]]) -> None:
        """Call every sink with the rows of its run directory, the console with all; drop a sink that fails."""
        for entry in list(self.sinks):
            name, sink, sinks_run = entry
            try:
                act(sink, [row for run, part in parts for row in part if sinks_run in (None, run)])
            except Exception as error:  # as above
                warn(f"{name} is off: {type(error).__name__}: {error}")
                self.sinks.remove(entry)

    def write(self, rows: Sequence[Row | None], sinks: bool = True) -> None:
        """Append rows to the metrics.jsonl of their runs, and pass them to the sinks."""
        parts = self._by_run(rows)
        for run, part in parts:
            if part:
                run.add_metrics(part)
        if sinks:
            self._call(lambda sink, part: sink.write(part) if part else None, parts)

    def close(self, results: Sequence[Row]) -> None:
        """Close every sink with the results of its seeds, as far as there are any."""
        self._call(lambda sink, part: sink.close(part), self._by_run(results))
        self.sinks = []

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self.close([])  # whatever ended the block, the terminal gets its cursor back
