"""The benchmark of operations: what it times, and when it ends with 1."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import measured
import operation_list
import operations
import pytest
import torch
import torch.nn.functional as F

from stn.multiseed import stacked
from stn.runs.cores import SETTINGS


@pytest.fixture(autouse=True)
def _unchanged_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The script sets threads, libgomp's spinning and glibc's memory, for its own process."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(operations, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(operations, "TURN_S", 0.0)


def slow_gelu(mode, func, /, x, **how):  # type: ignore[no-untyped-def]
    return [stacked.Stacked(F.gelu(x.every)) for _ in range(20)][-1]


WORDS = ("--quick", "--threads", "1", "--only", "gelu")


def run(*words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the benchmark's imported module, so that what a test has replaced in it is what runs."""
    monkeypatch.setattr(sys, "argv", ["operations.py", *words])
    return operations.main()


def test_an_operation_with_a_slow_rule_ends_it_with_1_unless_an_entry_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(stacked.RULES, F.gelu, slow_gelu)
    monkeypatch.setattr(operation_list, "SLOWER", {})
    file = tmp_path / "out.json"
    assert run(*WORDS, "--json", str(file), monkeypatch=monkeypatch) == 1
    assert "under 0.9 without an entry that says why: gelu (1 thread)" in capsys.readouterr().out
    record = json.loads(file.read_text())
    row = record["1 thread"]["gelu"]
    assert row["x alone"] < 0.9
    assert row["n"] == 15, "what is slow is measured up to twice more"
    assert {"cpu", "vector_instructions", "versions", "commit"} <= set(record)
    monkeypatch.setattr(operation_list, "SLOWER", {"gelu": "its rule is bad"})
    assert run(*WORDS, monkeypatch=monkeypatch) == 0
    assert "its rule is bad" in capsys.readouterr().out


@pytest.mark.parametrize(("speed", "code"), [(91.0, 0), (89.0, 1)])
def test_nine_tenths_of_the_speed_ends_it_with_0(monkeypatch: pytest.MonkeyPatch, speed: float, code: int) -> None:
    def measured(together: operations.Pass, alone: operations.Pass, rows: tuple, images: int, pairs: int) -> None:
        for row, images_per_s in zip(rows, (speed, 100.0), strict=True):
            row.rounds.append({"images_per_s": images_per_s, "ms": 1.0})

    monkeypatch.setattr(operations, "measure", measured)
    monkeypatch.setattr(operation_list, "SLOWER", {})
    assert run(*WORDS, monkeypatch=monkeypatch) == code


@pytest.mark.parametrize("words", [("--only", "gleu"), ("--threads", "0")])
def test_bad_input_is_refused(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as error:
        run(*words, monkeypatch=monkeypatch)
    assert error.value.code == 2


def test_both_sides_take_turns_and_begin_in_turn() -> None:
    order: list[str] = []
    rows = measured.Row(measured.Form("x")), measured.Row(measured.Form("alone"))
    operations.measure(lambda: order.append("one"), lambda: order.append("four"), rows, 8, 2)
    assert order[-4:] == ["four", "one", "one", "four"]
    assert [len(row.rounds) for row in rows] == [2, 2]


@pytest.mark.parametrize("name", operation_list.OPERATIONS)
def test_every_operation_has_a_rule_and_both_sides_run(name: str) -> None:
    operation = operation_list.OPERATIONS[name]
    two_rows = replace(operation, shape=(2, *operation.shape[1:]))
    together, alone, slow = operations.prepare(two_rows, seeds=2)
    together()
    alone()
    assert not slow


def test_entries_are_of_operations_that_exist() -> None:
    assert set(operation_list.SLOWER) <= set(operation_list.OPERATIONS)
