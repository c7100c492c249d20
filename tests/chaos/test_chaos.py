"""The short form of the campaign, and that it notices what it should."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.victim import Outcome
from tests.support.paths import ROOT
from tests.support.trainer import environment


@pytest.mark.slow
def test_nothing_is_lost_doubled_or_different() -> None:
    words = [sys.executable, "-m", "tests.chaos", "--kills", "6", "--every", "20"]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


ROWS = [{"seed": 0, "test_acc": 0.5, "weights_sha256": "a"}, {"seed": 1, "test_acc": 0.6, "weights_sha256": "b"}]


def outcome(**changes: Any) -> Outcome:
    whole = {"results": ROWS, "metrics": [{"step": 1}, {"step": 2}], "files": ["a", "b"], "weights": {0: "a", 1: "b"}}
    return Outcome(**(whole | changes))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"results": ROWS[:1]}, "rows lost: [1]"),
        ({"results": [ROWS[0], *ROWS]}, "rows doubled"),
        ({"results": [ROWS[0], ROWS[1] | {"test_acc": 0.7}]}, "rows differ"),
        ({"weights": {0: "a", 1: "damaged"}}, "weights are not those of the rows: [1]"),
        ({"weights": {0: "a"}}, "weights are not those of the rows: [1]"),
        ({"leaks": ["env.json"]}, "a secret in env.json"),
        ({"log": "Traceback (most recent call last):"}, "a traceback"),
        ({"metrics": [{"step": 1}]}, "1 rows of metrics instead of 2"),
        ({"metrics": [{"step": 1}, {"step": 3}]}, "metrics differ"),
        ({"files": ["a", "b", ".x.tmp"]}, "left over: .x.tmp"),
        ({"files": ["a"]}, "missing: b"),
    ],
)
def test_each_kind_of_fault_is_noticed(changes: dict, fault: str) -> None:
    assert fault in outcome(**changes).faults(outcome())
    assert outcome().faults(outcome()) == []


def test_an_outcome_is_read_without_clocks(tmp_path: Path) -> None:
    run = tmp_path / "name" / "sig" / "0"
    run.mkdir(parents=True)
    (run / "results.jsonl").write_text('{"seed": 0, "wall_s": 3.0, "images_per_s": 5.0, "test_acc": 0.5}\n')
    (run / "metrics.jsonl").write_text('{"step": 1, "images_per_s": 7.0}\n')
    assert Outcome.read(tmp_path) == Outcome(
        [{"seed": 0, "test_acc": 0.5}], [{"step": 1}], ["metrics.jsonl", "results.jsonl"]
    )
