"""A training on the terminal: a bar that moves with every step, and a line per evaluation above it.

Elsewhere, as in a log file, plain lines. Numbers are means over the seeds of the block.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from stn.runs.directory import Row

PLAIN_EVERY_S = 10.0
DRAW_EVERY_S = 0.5
BESIDE_LABEL = 55
"""Columns of the bar's first line that the label leaves to the bar."""


class _Bar(Progress):
    """A line with the bar, one with the numbers, and those of what the whole command has done, if that is more."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            for text in filter(None, (task.fields["numbers"], *task.fields["command"])):
                yield Text(text, no_wrap=True, overflow="ellipsis")


def means(rows: list[Row]) -> Row:
    """Return the mean over the seeds of every number that all rows have."""
    shared = [key for key in rows[0] if all(isinstance(row.get(key), float) for row in rows)]
    return {key: sum(row[key] for row in rows) / len(rows) for key in shared}


class ConsoleSink:
    """The console of a block of seeds; ``earlier`` are its evaluations before a resume.

    ``command`` returns lines on the other seeds and processes of the command, from their run directories.
    """

    shows_pictures = False

    def __init__(
        self,
        console: Console,
        label: str,
        steps: int,
        start: int,
        earlier: Iterable[list[Row]] = (),
        command: Callable[[], list[str]] = list,
    ) -> None:
        self.console, self.label, self.steps = console, label, steps
        self.epoch, self.train, self.last_line, self.last_draw = 0.0, "", 0.0, 0.0
        self.split, self.accuracies = "test", list[float]()
        for rows in earlier:
            self._take(rows)
        self.command, self.next_command = command, 0.0
        self.images, self.rates = 0, deque[tuple[float, int]](maxlen=10)
        room = max(10, console.width - BESIDE_LABEL)
        self.bar = _Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            auto_refresh=False,
            transient=True,
        )
        name = label if len(label) <= room else f"{label[: room - 1]}…"
        self.task = self.bar.add_task(name, total=steps, completed=start, numbers="", rate="", command=[])
        if console.is_terminal:
            console.print(label, highlight=False, markup=False, no_wrap=True, overflow="ellipsis")
        self.bar.start()

    def _take(self, rows: list[Row]) -> float:
        """Record the accuracies of an evaluation; return its loss."""
        self.split, mean = "val" if "val_acc" in rows[0] else "test", means(rows)
        self.accuracies += [mean[key] for key in (f"{self.split}_acc",) if key in mean]
        return mean.get(f"{self.split}_loss", math.nan)

    def _accuracy(self) -> str:
        accs = self.accuracies
        return f"{self.split} acc {accs[-1]:.2%}  best {max(accs):.2%}" if accs else ""

    def write(self, rows: list[Row]) -> None:
        row = rows[0]
        if row["kind"] == "train":
            mean = means(rows)
            self.train = f"loss {mean['loss']:.4f}  train acc {mean['acc']:.2%}"
            text = f"{self.train}  {row['images_per_s']:,.0f} images/s"
        else:
            loss = self._take(rows)
            text = f"{self._accuracy()}  {self.split} loss {loss:.4f}"
            self.rates.clear()  # an evaluation is not training time
        self.epoch = row["epoch"]
        progress = f"epoch {row['epoch']:.2f}  step {row['step']}/{self.steps}  "
        if self.console.is_terminal:
            if row["kind"] == "eval":
                line = progress + text
                self.console.print(line, highlight=False, markup=False, no_wrap=True, overflow="ellipsis")
            self._draw(row["step"])
        elif row["kind"] == "eval" or time.monotonic() - self.last_line > PLAIN_EVERY_S:
            self.last_line = time.monotonic()
            self.console.print(f"{self.label}  {progress}{text}", highlight=False, soft_wrap=True)

    def advance(self, step: int, epoch: float, images: int, peek: Callable[[], tuple[float, float] | None]) -> None:
        """Show that a step was made, twice a second at most; ``peek`` returns loss and accuracy where that is free."""
        self.images += images
        now = time.monotonic()
        if self.bar.disable or now - self.last_draw < DRAW_EVERY_S:
            return
        self.epoch = epoch
        self.rates.append((now, self.images))
        if (seen := peek()) and all(map(math.isfinite, seen)):
            self.train = f"loss {seen[0]:.4f}  train acc {seen[1]:.2%}"
        self._draw(step)

    def _draw(self, step: int) -> None:
        self.last_draw = time.monotonic()
        rate = ""
        if len(self.rates) > 1:
            (since, before), (now, images) = self.rates[0], self.rates[-1]
            rate = f"{(images - before) / (now - since):,.0f} images/s"
        numbers = "  ".join(part for part in (f"epoch {self.epoch:.2f}", self.train, self._accuracy()) if part)
        if self.last_draw >= self.next_command:
            self.bar.update(self.task, command=self.command())
            now = time.monotonic()
            self.next_command = now + max(2.0, 50 * (now - self.last_draw))  # on a slow file system less often
        self.bar.update(self.task, completed=step, numbers=numbers, rate=rate, refresh=True)

    def close(self, results: list[Row]) -> None:
        self.bar.stop()
