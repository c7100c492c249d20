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
            self._open(
                "console", lambda: ConsoleSink(console, block_label(trials), trials[0].config.train.steps, start)
            )
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

    def _split(self, rows: Sequence[Row | None]) -> list[tuple[RunDir, list[Row]]]:
        """The rows of each run directory, without those of failed seeds."""
        left = iter(rows)
        return [(g[0].run, [row for _, row in zip(g, left, strict=False) if row]) for g in self.groups]

    def _each(self, act: Callable[[Sink, list[Row]], None], parts: list[tuple[RunDir, list[Row]]]) -> None:
        """Each sink hears of its own run directory; the console of all."""
        for entry in list(self.sinks):
            name, sink, own = entry
            rows = [row for run, part in parts for row in part if own in (None, run)]
            try:
                act(sink, rows)
            except Exception as error:  # as above
                warn(f"{name} is off: {type(error).__name__}: {error}")
                self.sinks.remove(entry)

    def write(self, rows: Sequence[Row | None], sinks: bool = True) -> None:
        """Into the record, and to whoever listens."""
        parts = [(run, part) for run, part in self._split(rows) if part]
        for run, part in parts:
            run.add_metrics(part)
        if parts and sinks:
            self._each(lambda sink, own: sink.write(own) if own else None, parts)

    def close(self, results: Sequence[Row]) -> None:
        self._each(lambda sink, own: sink.close(own), self._split(results))
        self.sinks = []

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self.close([])  # whatever ended the block, the terminal gets its cursor back
