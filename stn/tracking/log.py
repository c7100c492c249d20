"""The log of a block of seeds: metrics.jsonl is the record; console, TensorBoard and W&B are sinks that may fail.

Processes that do not write the run directory log nothing.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter

from stn.config.command_line import is_main_process
from stn.config.schema import Config
from stn.runs.directory import Row, RunDir
from stn.runs.trials import Trial, block_label, group_by_run
from stn.tracking.console import console, warn
from stn.tracking.processes import picture
from stn.tracking.terminal import ConsoleSink
from stn.tracking.wandb_run import SeedRun, logged_in


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


def _console_sink(trials: list[Trial], start: int, shares: list[list[Trial]]) -> ConsoleSink:
    """Return the console's sink, which knows the evaluations before a resume and what other processes have to train."""
    rows = [row for group in group_by_run(trials) for row in (group[0].run.read_metrics() if start else [])]
    seeds, evaluations = {trial.seed for trial in trials}, [row for row in rows if row["kind"] == "eval"]
    ours = sorted((row for row in evaluations if row["seed"] in seeds), key=itemgetter("step"))
    earlier = [list(group) for _, group in groupby(ours, key=itemgetter("step"))]

    def command() -> list[str]:
        everyone = sum(map(len, shares)) > len(trials)
        return picture(shares, own=0) if everyone else []  # the main process is the first

    return ConsoleSink(console, block_label(trials), trials[0].config.train.steps or 0, start, earlier, command)


Sink = ConsoleSink | TensorBoardSink | WandbSink


class Log:
    """The log of a block of trials; rows are in the order of the trials, None for a seed that has failed."""

    def __init__(self, trials: list[Trial], start: int, writes: bool, shares: list[list[Trial]] | None = None) -> None:
        self.groups = group_by_run(trials) if writes else []
        self.sinks: list[tuple[str, Sink, RunDir | None]] = []
        if writes and is_main_process():
            self._open("console", partial(_console_sink, trials, start, shares or [trials]))
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

    def advance(self, step: int, epoch: float, images: int, peek: Callable[[], tuple[float, float] | None]) -> None:
        """Show on the terminal that a step was made."""
        for _, sink, _ in self.sinks:
            if isinstance(sink, ConsoleSink):
                sink.advance(step, epoch, images, peek)

    def close(self, results: Sequence[Row]) -> None:
        """Close every sink with the results of its seeds, as far as there are any."""
        self._call(lambda sink, part: sink.close(part), self._by_run(results))
        self.sinks = []

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self.close([])  # whatever ended the block, the terminal gets its cursor back
