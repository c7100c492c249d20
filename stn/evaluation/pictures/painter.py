"""Draws pictures in a process of its own, which imports matplotlib while the training imports torch.

Both take a core for seconds: beside each other they take half the time. The process knows nothing of the run: it gets a
plan and returns a PNG. If it is killed, hangs or has left, the training draws by itself.
"""

import atexit
import os
import pickle
import subprocess
import sys
from contextlib import suppress
from threading import Timer

from stn.config.source import SOURCE
from stn.evaluation.pictures.plans import Plan
from stn.runs.cores import cores

MOST_S = 60.0
"""Seconds that the process waits for its first plan, and the training for a picture."""


class Painter:
    """The process, from its start until it is no longer there."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process if there is a core for it: beside other ranks there is none."""
        if os.environ.get("WORLD_SIZE", "1") != "1" or cores() == 1:
            return
        paths = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH")]))
        with suppress(OSError):
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": paths},
            )  # fmt: skip
            atexit.register(self.end)

    def paint(self, plan: Plan) -> bytes:
        """Return a PNG."""
        if self._process:
            assert self._process.stdin
            assert self._process.stdout
            limit = Timer(MOST_S, self._process.kill)
            limit.start()
            try:
                pickle.dump(plan, self._process.stdin)
                self._process.stdin.flush()
                return pickle.load(self._process.stdout)
            except (OSError, EOFError, pickle.UnpicklingError):
                self.end()
            finally:
                limit.cancel()
        from stn.evaluation.pictures.figures import png  # matplotlib takes half a second

        return png(plan)

    def end(self) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None


PAINTER = Painter()


def serve() -> None:
    """Answer the plans that come in until there are no more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    idle = Timer(MOST_S, os._exit, [0])
    idle.start()
    from stn.evaluation.pictures.figures import png

    with suppress(EOFError):
        while True:
            plan = pickle.load(sys.stdin.buffer)
            idle.cancel()
            pickle.dump(png(plan), answers)
            answers.flush()
    os._exit(0)


if __name__ == "__main__":
    serve()
