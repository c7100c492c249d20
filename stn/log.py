"""The log of a block of seeds: metrics.jsonl is the record, everything else a sink.

Must not know the network. On a process that does not write, nothing is logged.
"""

from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from stn.cli import is_main_process
from stn.rundir import Row, RunDir
from stn.schema import Config
from stn.sinks import ConsoleSink, Sink, TensorBoardSink, WandbSink

console = Console()


def say(text: str) -> None:
    """One line from one process."""
    if is_main_process():
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def warn(text: str) -> None:
    say(f"warning: {text}")


class Log:
    def __init__(self, run: RunDir, config: Config, sig: str, seeds: list[int], start: int, writes: bool) -> None:
        self.run, self.writes = run, writes
        self.sinks: list[tuple[str, Sink]] = []
        if not writes:
            return
        if is_main_process():
            self._open("console", lambda: ConsoleSink(console, config, seeds, start))
        if config.log.tensorboard:
            self._open("TensorBoard", lambda: TensorBoardSink(run, seeds, start))
        if config.log.wandb != "disabled":
            self._open("W&B", lambda: WandbSink(run, config, sig, seeds, warn))

    def _open(self, name: str, make: Callable[[], Sink]) -> None:
        try:
            self.sinks.append((name, make()))
        except Exception as error:  # whatever a sink dies of, the run lives
            warn(f"{name} is off: {type(error).__name__}: {error}")

    def _each(self, act: Callable[[Sink], None]) -> None:
        for name, sink in list(self.sinks):
            try:
                act(sink)
            except Exception as error:  # as above
                warn(f"{name} is off: {type(error).__name__}: {error}")
                self.sinks.remove((name, sink))

    def rows(self, rows: list[Row]) -> None:
        if self.writes and rows:
            self.run.add_metrics(rows)
            self._each(lambda sink: sink.rows(rows))

    def close(self, results: list[Row]) -> None:
        self._each(lambda sink: sink.close(results))
        self.sinks = []


def summary(run: RunDir, rows: list[Row]) -> None:
    """The table at the end, with where everything is."""
    if not is_main_process():
        return
    table = Table(title=f"{len(rows)} seed{'s' * (len(rows) != 1)}")
    for heading in ("seed", "status", "last acc", "best acc", "at epoch", "macro F1", "images/s", "seconds"):
        table.add_column(heading, justify="right")
    for row in rows:
        last = row.get("test_acc", row.get("val_acc"))
        best = row.get("best_test_acc", row.get("best_val_acc"))
        table.add_row(
            str(row["seed"]),
            row["status"],
            "-" if last is None else f"{last:.2%}",
            "-" if best is None else f"{best:.2%}",
            f"{row.get('best_epoch') or 0:g}",
            f"{row.get('macro_f1') or 0:.4f}",
            f"{row['images_per_s']:,.0f}",
            f"{row['wall_s']:.1f}",
        )
    console.print(table)
    say(f"results   {run.results}")
    if run.pictures.exists():
        say(f"pictures  {run.pictures}")
    for row in rows:
        if row["status"] == "failed":
            say(f"seed {row['seed']} failed: {row['reason']}")
