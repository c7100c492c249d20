"""The log of a block of seeds: metrics.jsonl is the record; console, TensorBoard and W&B are sinks that may fail.

Processes that do not write the run directory log nothing. Pictures are files of the run directory first.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter

from stn.config.command_line import is_main_process
from stn.config.schema import Config
from stn.runs.directory import Row, RunDir
from stn.runs.trials import Trial, block_label, group_by_run
from stn.tracking.console import console, warn
from stn.tracking.pictures import ending, is_shown, save_warps, shown_seeds
from stn.tracking.processes import process_lines
from stn.tracking.sinks import TensorBoardSink, WandbSink
from stn.tracking.terminal import ConsoleSink


def _console_sink(trials: list[Trial], start: int, shares: list[list[Trial]]) -> ConsoleSink:
    """Return the console's sink, which knows the evaluations before a resume and what other processes have to train."""
    rows = [row for group in group_by_run(trials) for row in (group[0].run.read_metrics() if start else [])]
    seeds, evaluations = {trial.seed for trial in trials}, [row for row in rows if row["kind"] == "eval"]
    ours = sorted((row for row in evaluations if row["seed"] in seeds), key=itemgetter("step"))
    earlier = [list(group) for _, group in groupby(ours, key=itemgetter("step"))]

    def command() -> list[str]:
        everyone = sum(map(len, shares)) > len(trials)
        return process_lines(shares) if everyone else []

    return ConsoleSink(console, block_label(trials), trials[0].config.train.steps or 0, start, earlier, command)


Sink = ConsoleSink | TensorBoardSink | WandbSink
Rows = Sequence[Row | None]
"""In the order of the trials, None for a seed that has failed."""


class Log:
    """The log of a block of trials; ``draw`` returns a PNG of the warps whose parameters a row has."""

    def __init__(
        self,
        trials: list[Trial],
        start: int,
        writes: bool,
        shares: list[list[Trial]] | None = None,
        draw: Callable[[Row], bytes] | None = None,
    ) -> None:
        self.draw = draw
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
        except Exception as error:  # a sink's error must not end the run
            warn(f"{name} is off: {type(error).__name__}: {error}")

    def _by_run(self, rows: Rows) -> list[tuple[RunDir, list[Row]]]:
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

    def _draw(self, snapshots: Rows) -> None:
        """Draw the warps at an evaluation, if a sink shows pictures."""
        for run, rows in self._by_run(snapshots):
            config = next(group[0].config for group in self.groups if group[0].run is run)
            if not self.draw or not config.log.pictures:
                continue
            if not any(sinks_run is run and sink.shows_pictures for _, sink, sinks_run in self.sinks):
                continue
            try:
                for row in rows:
                    if is_shown(config, row["step"]) and row["seed"] in shown_seeds(config, run):
                        save_warps(run, row, self.draw(row))
            except Exception as error:  # a picture is not worth a run
                warn(f"no pictures of the warps: {type(error).__name__}: {error}")
                self.draw = None

    def write(self, rows: Rows, unsent: Rows = ()) -> None:
        """Append rows to the metrics.jsonl of their runs, and pass all but the unsent ones to the sinks.

        Transforms among the unsent rows are drawn if there are evaluations, with which sinks show the pictures.
        """
        parts = self._by_run(rows)
        if any(part for _, part in parts):
            self._draw([row if row and row["kind"] == "warp" else None for row in unsent])
        for run, part in [*parts, *self._by_run(unsent)]:
            if part:
                run.add_metrics(part)
        self._call(lambda sink, part: sink.write(part) if part else None, parts)

    def advance(self, step: int, epoch: float, images: int, peek: Callable[[], tuple[float, float] | None]) -> None:
        """Show on the terminal that a step was made."""
        for _, sink, _ in self.sinks:
            if isinstance(sink, ConsoleSink):
                sink.advance(step, epoch, images, peek)

    def close(self, results: Rows) -> None:
        """Close every sink with the results of its seeds, as far as there are any."""
        self._call(lambda sink, part: sink.close(part), self._by_run(results))
        self.sinks = []

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self.close([])  # whatever ended the block, the terminal gets its cursor back


def log_end(config: Config, sig: str, run: RunDir) -> None:
    """Send a run directory's final pictures and table to TensorBoard and W&B; an error is a warning."""
    try:
        if (end := ending(run)) is not None:
            if config.log.tensorboard:
                TensorBoardSink(run, [end.seed], None).show(end, run.rows()[end.seed])
            WandbSink.show(run, config, sig, end)
    except Exception as error:  # as above
        again = f"python -m launch wandb-sync {run.path} sends them to W&B"
        warn(f"the pictures of the end are not shown: {type(error).__name__}: {error}; {again}")
