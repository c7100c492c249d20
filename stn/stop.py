"""Reasons to leave early: a signal, the stop file, the time limit. All ranks leave at one step.

Must not know what is saved.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

AGREE_EVERY = 10
"""Steps between the ranks' questions to each other; one process asks itself at every step."""


class Stop:
    def __init__(self, file: Path, minutes: float | None, any_rank: Callable[[bool], bool] | None) -> None:
        self._file, self._any_rank = file, any_rank
        self._deadline = time.monotonic() + minutes * 60 if minutes else None
        self._asked = 0.0
        self.reason: str | None = None

    def listen(self) -> None:
        """Take SIGTERM and SIGINT as wishes; a second one is an order."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._heard)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.reason = signal.Signals(number).name
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)

    def due(self, step: int) -> bool:
        """Whether to save and leave before this step."""
        if self.reason is None and time.monotonic() - self._asked > 0.5:
            self._asked = time.monotonic()
            if self._file.exists():
                self.reason = "stop file"
            elif self._deadline and self._asked > self._deadline:
                self.reason = "time limit"
        if self._any_rank is None:
            return self.reason is not None
        if step % AGREE_EVERY:
            return False
        if self._any_rank(self.reason is not None):
            self.reason = self.reason or "another rank's wish"
        return self.reason is not None


def follow_launcher() -> None:
    """Take the death of the launcher that started this process as SIGTERM (Linux).

    accelerate's launcher does not pass signals on to a single process, which would train on
    unseen, next to the copy that the user starts again.
    """
    if sys.platform == "linux" and "ACCELERATE_MIXED_PRECISION" in os.environ:
        parent, set_death_signal = os.getppid(), 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)
        if parent == 1 or os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
