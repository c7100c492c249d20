"""The log of a block of seeds: metrics.jsonl is the record, everything else a sink.

Must not know the network. On a process that does not write, nothing is logged.
"""

from collections.abc import Callable

from rich.console import Console

from stn.cli import is_main_process
from stn.rundir import Row, RunDir
from stn.schema import Config
from stn.sinks import ConsoleSink, Sink, TensorBoardSink, WandbSink

console = Console(quiet=not is_main_process())


def say(text: str) -> None:
    """One line from one process."""
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

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self.close([])  # whatever ended the block, the terminal gets its cursor back
