"""A round of measurements: which programs start side by side, how many, and what an interrupt leaves of them."""

import signal
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import pytest
import rounds
from measured import Form, Row

JOB: dict[str, Any] = {"turns": 3, "cuda": False}


def test_forms_start_side_by_side_and_those_that_are_timed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    starting: set[str] = set()
    beside: dict[str, set[str]] = {}
    """What else starts while a form does, in the order in which they started."""

    class Started:
        def __init__(self, form: Form, job: dict[str, Any]) -> None:
            starting.add(form.kind)
            time.sleep(0.2)
            beside[form.kind] = starting - {form.kind}
            time.sleep(0.2)
            starting.remove(form.kind)

        def turn(self) -> None:
            assert not starting, "a turn while another form starts"

        def close(self) -> None:
            pass

    monkeypatch.setattr(rounds, "CORES", 2)
    rows = [Row(Form(kind)) for kind in ("a", "timed", "b", "too")]
    found, start = {"images_per_s": 1.0}, cast(Callable, Started)
    rounds.measure_round("test", rows, JOB, start, lambda started: found, lambda form: form.kind.startswith("t"))
    assert beside == {"a": {"b"}, "b": {"a"}, "timed": set(), "too": set()}
    assert list(beside)[:2] == ["timed", "too"], "before any other"
    assert all(row.rounds == [found] for row in rows)


def test_an_interrupt_while_forms_start_side_by_side_closes_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    class Starting:
        def __init__(self, form: Form, job: dict[str, Any]) -> None:
            self.kind = form.kind
            if form.kind == "second":
                time.sleep(0.2)  # until the main thread waits
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                time.sleep(0.2)

        def close(self) -> None:
            closed.append(self.kind)

    monkeypatch.setattr(rounds, "CORES", 2)
    rows = [Row(Form(kind)) for kind in ("first", "second", "third", "fourth")]
    with pytest.raises(KeyboardInterrupt):
        rounds.measure_round("test", rows, JOB, cast(Callable, Starting))
    assert {"first", "second"} <= set(closed)
    assert len(closed) == len(set(closed))


def test_no_more_processes_are_started_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = type("Memory", (), {"available": 3.5 * rounds.PROCESS_BYTES})
    monkeypatch.setattr(rounds.psutil, "virtual_memory", lambda: memory)
    rows = [Row(Form(str(n), processes=n)) for n in (1, 2, 1, 4, 1)]
    assert [len(group) for group in rounds._groups(rows, JOB)] == [2, 1, 1, 1]
    assert [len(group) for group in rounds._groups(rows, JOB | {"cuda": True})] == [1] * 5
