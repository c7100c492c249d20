"""The log of a block of seeds: metrics.jsonl is the record, everything else a sink.

Processes that do not write the run directory log nothing.
"""

from collections.abc import Callable, Sequence
from functools import partial

from stn.config.command_line import is_main_process
from stn.runs.directory import Row, RunDir
from stn.runs.trials import Trial, block_label, group_by_run
from stn.tracking.console import console, warn
from stn.tracking.sinks import ConsoleSink, Sink, TensorBoardSink, WandbSink


class Log:
    """The log of a block of trials; rows are in the order of the trials, None for a seed that has failed."""

    def __init__(self, trials: list[Trial], start: int, writes: bool) -> None:
        self.groups = group_by_run(trials) if writes else []
        self.sinks: list[tuple[str, Sink, RunDir | None]] = []
        if writes and is_main_process():
            label, steps = block_label(trials), trials[0].config.train.steps
            self._open("console", partial(ConsoleSink, console, label, steps, start))
        for group in self.groups:
            (config, sig, _, run), seeds = group[0], [trial.seed for trial in group]
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
