"""Reasons to leave early: a signal, the stop file, the time limit. All ranks leave at one step.

Must not know what is saved.
"""

import signal
import time
from collections.abc import Callable
from types import FrameType

AGREE_EVERY = 10
"""Steps between the ranks' questions to each other; one process asks itself at every step."""


class Stop:
    """``wishes`` are asked for a reason to leave, ``any_rank`` whether a flag is up on any rank that trains the same
    seeds; None: there is one."""

    def __init__(
        self,
        wishes: list[Callable[[], str | None]],
        minutes: float | None,
        any_rank: Callable[[bool], bool] | None,
    ) -> None:
        self._wishes, self._any_rank = wishes, any_rank
        self._deadline = time.monotonic() + minutes * 60 if minutes else None
        self._asked = 0.0
        self._wish: str | None = None
        self.reason: str | None = None
        """Why all ranks leave; None until they have agreed."""

    def listen(self) -> None:
        """Take SIGTERM and SIGINT as wishes.

        A second SIGINT is an order. A second SIGTERM is not: a signal to the process group
        reaches this process from its launcher as well.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._heard)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self._wish = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)

    def due(self, step: int) -> bool:
        """Whether to save and leave before this step; the same answer on all ranks."""
        if self._wish is None and time.monotonic() - self._asked > 0.5:
            self._asked = time.monotonic()
            reasons = [reason for wish in self._wishes if (reason := wish())]
            if reasons:
                self._wish = reasons[0]
            elif self._deadline and self._asked > self._deadline:
                self._wish = "time limit"
        if self._any_rank is None:
            self.reason = self._wish
        elif step % AGREE_EVERY == 0 and self._any_rank(self._wish is not None):
            self.reason = self._wish or "another rank's wish"
        return self.reason is not None
