"""Programs measured in turns: whose turn it is, what counts, and what becomes of processes that fail."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import rounds
import running
import turns
from measured import Form, Row

from tests.support.paths import ROOT

CHILD = """
import json, sys, time
sys.path.insert(0, sys.argv[2])
from turns import Turns
job = json.loads(sys.argv[1])
if job["kind"] == "absent": sys.exit("no such form")
steps, over, measure = 0, False, Turns(job["seconds"])
over = not measure.wait()
while not over:
    start = time.time()
    time.sleep(0.01)
    steps += 1
    with open(job["log"], "a") as file: file.write(json.dumps([job["kind"], start, time.time()]) + "\\n")
    if job["kind"] == "mortal" and steps > 5: sys.exit("out of memory")
    over = measure.enough(1)
print(json.dumps({"peak_mb": steps}))
"""
JOB = {"seconds": 0.1, "turns": 3, "again": 0, "cuda": False}


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Row]]:
    """Measure forms of these names and numbers of processes in one round, and return their rows."""
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    folder = str(ROOT / "benchmarks")
    monkeypatch.setattr(running, "command", lambda job: [sys.executable, str(script), json.dumps(job), folder])

    def measure(*forms: tuple[str, int], **more: Any) -> list[Row]:
        rows = [Row(Form(kind, processes)) for kind, processes in forms]
        try:
            rounds.measure_round("test", rows, JOB | {"log": str(tmp_path / "log")} | more, end=lambda p: p.end())
        finally:
            assert not [p for p in psutil.Process().children() if str(script) in p.cmdline()], "a process is left"
        return rows

    return measure


def steps(folder: Path) -> list[tuple[str, float, float]]:
    return sorted((json.loads(line) for line in (folder / "log").read_text().splitlines()), key=lambda step: step[1])


def test_forms_train_in_turns_and_the_processes_of_one_together(
    measured: Callable[..., list[Row]], tmp_path: Path
) -> None:
    alone, pair = measured(("alone", 1), ("pair", 2))
    (one,), (two,) = alone.rounds, pair.rounds
    assert [len(p["images_per_s"]) for p in (*one["processes"], *two["processes"])] == [3, 3, 3]
    assert 30 < one["images_per_s"] <= 100
    assert 1.4 < two["images_per_s"] / one["images_per_s"] < 2.6
    seen = steps(tmp_path)
    order = [kind for i, (kind, *_) in enumerate(seen) if i == 0 or kind != seen[i - 1][0]]
    assert order == ["alone", "pair"] * 3
    ends: dict[str, float] = {"alone": 0.0, "pair": 0.0}
    for kind, start, end in seen:
        assert start >= ends["pair" if kind == "alone" else "alone"], "two forms at the same time"
        ends[kind] = end
    assert one["ready_s"] > 0
    assert one["peak_mb"] == len([step for step in seen if step[0] == "alone"])


def test_a_form_that_fails_costs_its_own_row_alone(
    measured: Callable[..., list[Row]], capsys: pytest.CaptureFixture[str]
) -> None:
    absent, mortal, well = measured(("absent", 1), ("mortal", 1), ("well", 1))
    assert absent.rounds == [{"error": "no such form"}]
    assert mortal.rounds == [{"error": "out of memory"}]
    assert well.rounds[0]["images_per_s"] > 0
    assert "test, mortal failed: out of memory" in capsys.readouterr().out


def test_a_disturbed_turn_is_repeated_and_the_least_disturbed_counts(
    measured: Callable[..., list[Row]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    others = iter([0.0, 0.0, 0.5, 0.3, 0.7, 0.9, 0.05])  # before the first turn, then turn by turn
    monkeypatch.setattr(running.Running, "_others", lambda *given: next(others))
    (row,) = measured(("alone", 1), again=2)
    assert row.rounds[0]["others_cores"] == round((0.3 + 0.05) / 2, 3), "of the turns that count"
    assert next(others, None) is None


@pytest.mark.parametrize("method", ["_lines", "turn", "end"])
def test_an_interrupt_leaves_no_process(
    method: str, measured: Callable[..., list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the second form starts, in a turn, and at the end."""
    calls, usual = [], getattr(running.Running, method)

    def interrupted(process: running.Running) -> Any:
        calls.append(process)
        if method == "_lines" and len(calls) == 1:
            return usual(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(running.Running, method, interrupted)
    with pytest.raises(KeyboardInterrupt):
        measured(("alone", 1), ("pair", 2))


def test_a_process_that_is_stuck_is_killed(measured: Callable[..., list[Row]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "PATIENCE_S", -29.0)
    start = time.monotonic()
    (row,) = measured(("alone", 1), seconds=30.0)
    assert "error" in row.rounds[0]
    assert time.monotonic() - start < 20


def test_a_turn_leaves_out_its_first_step(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock, waiting, halted = iter([10.0, 11.0, 12.5, 12.5]), [], []
    monkeypatch.setattr(turns.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(turns.time, "process_time", lambda: float(len(halted)))
    monkeypatch.setattr(turns.select, "select", lambda *given: (waiting, [], []))
    monkeypatch.setattr(sys, "stdin", type("Lines", (), {"readline": lambda self: "go\n"})())
    measure = turns.Turns(2.0)
    assert measure.wait()
    for images in (1000, 3, 4):
        halted.append(1)
        assert not measure.enough(images, lambda: None)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "ready"
    assert json.loads(said[1]) == {"images_per_s": 7 / 2.5, "images_per_cpu_s": 7 / 2}
    assert not measure.enough(5), "it trains on until it is told to halt"
    waiting.append(sys.stdin)
    assert not measure.enough(5, lambda: print("its work has ended"))
    assert capsys.readouterr().out == "its work has ended\nready\n"
