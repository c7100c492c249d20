"""Draws pictures in two processes of their own, of which the first imports matplotlib while the training imports torch.

They know nothing of the run: they get a plan and return a PNG. Where one is killed, hangs or has left, the training
draws by itself.
"""

import atexit
import os
import struct
import subprocess
import sys
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from socket import SO_RCVTIMEO, SO_SNDTIMEO, SOL_SOCKET, socket
from threading import Lock
from typing import TYPE_CHECKING

from stn.config.source import SOURCE
from stn.runs.cores import cores

if TYPE_CHECKING:
    from stn.evaluation.pictures.plans import Plan  # numpy takes a tenth of a second

MOST_S = 60
"""Seconds that a process waits for its first plan, and the training for a picture."""
PROCESSES = 2


class Painter:
    """The processes, from their start until they are no longer there."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._idle: list[Connection] = []
        self._alone = Lock()

    def start(self) -> None:
        """Start the processes where there may be a core for them: beside other ranks there is none."""
        if self._process or sys.platform != "linux" or os.environ.get("WORLD_SIZE", "1") != "1" or cores() == 1:
            return
        paths = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH")]))
        with suppress(OSError):
            ours, theirs = zip(*(Pipe() for _ in range(PROCESSES)), strict=True)
            numbers = [end.fileno() for end in theirs]
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, *map(str, numbers)],  # -P: not what lies in this folder
                pass_fds=numbers,
                env=os.environ | {"PYTHONPATH": paths},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            atexit.register(self.end)
            for end in theirs:
                end.close()
            for end in ours:
                _limit(end)
            self._idle = list(ours)

    def paint(self, plan: "Plan") -> bytes:
        """Return a PNG, which is drawn here if no process is idle."""
        with suppress(IndexError, OSError, EOFError):
            process = self._idle.pop()
            process.send(plan)
            picture = process.recv()
            self._idle.append(process)
            return picture
        from stn.evaluation.pictures.figures import png  # matplotlib takes half a second

        with self._alone:  # matplotlib's fonts are for one thread
            return png(plan)

    def end(self) -> None:
        """Let the processes see that there is nothing more to draw; kill the first if it does not."""
        while self._idle:
            self._idle.pop().close()
        if self._process:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self._process.kill()
            self._process.wait()
            self._process = None


PAINTER = Painter()


def _limit(end: Connection) -> None:
    """Give up on a process that neither takes a plan nor answers."""
    with socket(fileno=os.dup(end.fileno())) as same:
        for option in (SO_SNDTIMEO, SO_RCVTIMEO):
            same.setsockopt(SOL_SOCKET, option, struct.pack("ll", MOST_S, 0))


def serve(numbers: list[int]) -> None:
    """Fork a process for each connection after the first, and answer the plans that come in until there are no more."""
    from stn.evaluation.pictures.figures import png
    from stn.evaluation.pictures.plans import Curves, Line

    # Before there is anything to draw: a first figure takes a third longer.
    png(Curves("", "test", {"loss": [Line(False, [1, 2], [2, 1])], "error": [Line(True, [1, 2], [0.5, 0.1])]}))
    mine = next((number for number in numbers[1:] if not os.fork()), numbers[0])
    for number in set(numbers) - {mine}:
        os.close(number)
    with suppress(EOFError, OSError), Connection(mine) as plans:
        if plans.poll(MOST_S):
            while True:
                plans.send(png(plans.recv()))
    if mine != numbers[0]:
        os._exit(0)
    for _ in numbers[1:]:
        os.wait()  # so that their CPU time counts as the training's


if __name__ == "__main__":
    serve([int(number) for number in sys.argv[1:]])
