"""Draws pictures in processes of their own, which import matplotlib while the training imports torch.

They know nothing of the run: they get a plan and return a PNG. Where one is killed, hangs or has left, the training
draws by itself.
"""

import atexit
import os
import subprocess
import sys
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from threading import Lock
from typing import TYPE_CHECKING

from stn.config.source import SOURCE
from stn.runs.cores import cores

if TYPE_CHECKING:
    from stn.evaluation.pictures.plans import Plan  # numpy takes a tenth of a second

MOST_S = 60.0
"""Seconds that a process waits for its first plan, and the training for a picture."""
PROCESSES = 2


class Painter:
    """The processes, from their start until they are no longer there."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._idle: list[Connection] = []
        self._alone = Lock()

    def start(self) -> None:
        """Start the processes if there is a core for them: beside other ranks there is none."""
        if sys.platform != "linux" or os.environ.get("WORLD_SIZE", "1") != "1" or cores() == 1:
            return
        ours, theirs = zip(*(Pipe() for _ in range(PROCESSES)), strict=True)
        numbers = [end.fileno() for end in theirs]
        paths = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH")]))
        words = [sys.executable, "-m", __name__, *map(str, numbers)]
        with suppress(OSError):
            self._process = subprocess.Popen(
                words,
                pass_fds=numbers,
                env=os.environ | {"PYTHONPATH": paths},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            self._idle = list(ours)
            atexit.register(self.end)
        for end in theirs:
            end.close()

    def paint(self, plan: "Plan") -> bytes:
        """Return a PNG; may be called by as many threads as there are processes."""
        with suppress(IndexError, OSError, EOFError):
            process = self._idle.pop()
            process.send(plan)
            if process.poll(MOST_S):
                picture = process.recv()
                self._idle.append(process)
                return picture
        from stn.evaluation.pictures.figures import png  # matplotlib takes half a second

        with self._alone:  # matplotlib's fonts are for one thread
            return png(plan)

    def end(self) -> None:
        """End the processes: the first is killed, and another one sees that its connection is closed."""
        while self._idle:
            self._idle.pop().close()
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


PAINTER = Painter()


def serve(numbers: list[int]) -> None:
    """Fork a process for each connection, and answer the plans that come in until there are no more."""
    from stn.evaluation.pictures.figures import png
    from stn.evaluation.pictures.plans import Curves, Line

    # Before there is anything to draw: a first figure takes a third longer.
    png(Curves("", "test", {"loss": [Line(False, [1, 2], [2, 1])], "error": [Line(True, [1, 2], [0.5, 0.1])]}))
    while len(numbers) > 1:
        other = numbers.pop() if os.fork() else numbers.pop(0)
        os.close(other)
    plans = Connection(numbers[0])
    with suppress(EOFError, OSError):
        if plans.poll(MOST_S):
            while True:
                plans.send(png(plans.recv()))
    os._exit(0)


if __name__ == "__main__":
    serve([int(number) for number in sys.argv[1:]])
