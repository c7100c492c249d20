"""Requests to stop, from a signal, a file or a clock, on which all ranks agree."""

import os
import signal
import time
from pathlib import Path

import pytest

from stn.runs.directory import RunDir
from stn.training.stop import AGREE_EVERY, Stop


@pytest.mark.parametrize(("own", "others", "reason"), [("stop file", None, "stop file"), (None, "SIGTERM", "SIGTERM")])
def test_ranks_leave_at_a_step_that_all_have_agreed_on(
    own: str | None, others: str | None, reason: str, tmp_path: Path
) -> None:
    asked: list[str | None] = []

    def first_reason(reason: str | None) -> str | None:
        asked.append(reason)
        return reason or others

    stop = Stop([RunDir(tmp_path / "other").stop_reason, RunDir(tmp_path).stop_reason], None, first_reason)
    if own:
        (tmp_path / "stop").touch()
    for step in range(1, AGREE_EVERY):
        assert not stop.due(step)
    assert (asked, stop.reason) == ([], None)
    assert stop.due(AGREE_EVERY)
    assert (asked, stop.reason) == ([own], reason)


def test_one_process_leaves_at_once_and_signals_are_wishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        stop = Stop([RunDir(tmp_path).stop_reason], None, None)
        stop.listen()
        assert not stop.due(3)
        for _ in range(2):  # a second SIGTERM changes nothing: launchers repeat a signal that the whole group received
            os.kill(os.getpid(), signal.SIGTERM)
            assert (stop.due(4), stop.reason) == (True, "SIGTERM")
        for _ in range(2):  # the terminal signals the whole group, and the launcher then repeats it
            signal.raise_signal(signal.SIGINT)
        assert stop.reason == "SIGTERM"
        clock = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: clock() + 2)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
