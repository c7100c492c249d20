"""Reasons to stop early: a signal, the stop file, the time limit. All ranks stop at the same step."""

import signal
import time
from collections.abc import Callable
from types import FrameType

AGREE_EVERY = 10
"""Steps between the all-reduces in which ranks agree; a single process checks at every step."""
POLL_S = 0.5
"""Seconds between looks at the stop file and the clock."""


class Stop:
    """Decides when to stop: on a signal, when a request returns a reason, or after so many minutes.

    ``first_reason`` returns, on all ranks that train the same seeds, the reason of the first that has one; None in a
    single process.
    """

    def __init__(
        self,
        requests: list[Callable[[], str | None]],
        minutes: float | None,
        first_reason: Callable[[str | None], str | None] | None,
    ) -> None:
        self._requests, self._first_reason = requests, first_reason
        self._deadline = time.monotonic() + minutes * 60 if minutes else None
        self._last_poll = 0.0
        self._interrupted: float | None = None
        """When Ctrl-C came first."""
        self._local_reason: str | None = None
        self.reason: str | None = None
        """Why all ranks stop; None until they have agreed."""

    def listen(self) -> None:
        """Take SIGTERM and SIGINT as requests to stop.

        A second Ctrl-C interrupts at once, unless it comes within a second: a signal to the process group reaches this
        process from its launcher as well. A second SIGTERM changes nothing.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == signal.SIGINT and self._interrupted is not None and now - self._interrupted > 1:
            raise KeyboardInterrupt
        if number == signal.SIGINT and self._interrupted is None:
            self._interrupted = now
        self._local_reason = self._local_reason or signal.Signals(number).name

    def due(self, step: int) -> bool:
        """Whether to save and stop before this step; the same answer on all ranks."""
        now = time.monotonic()
        if self._local_reason is None and now - self._last_poll > POLL_S:
            self._last_poll = now
            reasons = [reason for request in self._requests if (reason := request())]
            if self._deadline and now > self._deadline:
                reasons.append("time limit")
            self._local_reason = reasons[0] if reasons else None
        if self._first_reason is None:
            self.reason = self._local_reason
        elif step % AGREE_EVERY == 0:
            self.reason = self._first_reason(self._local_reason)
        return self.reason is not None


def ignore_signals(code: int) -> int:
    """Ignore signals, and return the exit code: all is saved, and a signal would kill Python while it exits."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    return code
