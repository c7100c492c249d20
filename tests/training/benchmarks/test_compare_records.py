"""compare.py: a ratio that got worse by more than its noise ends it with 1."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import compare
import pytest

from tests.support.paths import ROOT


def row(ratio: float | None, stretches: tuple[float, ...] = (90.0, 100.0, 100.0), **form: Any) -> dict[str, Any]:
    one_round = {"images_per_s": 100.0, "processes": [{"images_per_s": list(stretches)}]}
    return {
        "form": {"kind": "fused", "seeds": 4, "processes": 1} | form,
        "rounds": [one_round],
        "x best loop": ratio,
        "x best in two": None,
    }


def record(*rows: dict[str, Any], cpu: str = "one") -> dict[str, Any]:
    return {
        "cpu": cpu,
        "cores": 2,
        "gpu": None,
        "torch": "2",
        "rounds": 1,
        "machine": [row(9.0)],
        "cnn": list(rows),
    } | {"vector_instructions": ["avx2"]}


def run(folder: Path, old: Any, new: Any, *words: str) -> subprocess.CompletedProcess[str]:
    for name, content in (("old", old), ("new", new)):
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{name}.json").write_text(text)
    line = [sys.executable, str(ROOT / "benchmarks" / "compare.py"), str(folder / "old.json"), str(folder / "new.json")]
    return subprocess.run([*line, *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("old", "new", "stretches", "word"),
    [
        (3.0, 2.8, (90.0, 100.0, 100.0), "same"),
        (3.0, 2.6, (90.0, 100.0, 100.0), "WORSE"),
        (3.0, 3.4, (90.0, 100.0, 100.0), "better"),
        (3.0, 2.6, (90.0, 80.0, 120.0), "same"),  # its stretches scatter by 28 %
    ],
)
def test_a_change_beyond_the_noise_has_a_word(old: float, new: float, stretches: tuple, word: str) -> None:
    (change,) = compare.changes({("cnn", "a"): row(old)}, {("cnn", "a"): row(new, stretches)}, 0.1)
    assert change.word == word


def test_rounds_scatter_where_there_are_several() -> None:
    several = row(3.0, (1.0, 100.0, 500.0))
    several["rounds"] = [several["rounds"][0] | {"images_per_s": speed} for speed in (90.0, 110.0)]
    several["rounds"].append({"error": "killed"})
    assert compare.scatter(several) == pytest.approx(14.142 / 100, rel=1e-3)


def test_only_ratios_that_both_records_have_are_compared() -> None:
    old = {("cnn", "a"): row(3.0), ("cnn", "b"): row(3.0), ("cnn", "loop"): row(1)}
    new = {("cnn", "a"): row(None), ("cnn", "c"): row(1.0), ("cnn", "loop"): row(1)}
    assert compare.changes(old, new, 0.1) == []


def test_the_command_ends_with_a_code_and_names_what_got_worse(tmp_path: Path) -> None:
    two = row(2.0, processes=2)
    same = run(tmp_path, record(row(3.0), two), record(row(3.1), two))
    assert (same.returncode, same.stderr) == (0, "")
    assert "2 ratios in both records, 0 worse" in same.stdout
    worse = run(tmp_path, record(row(3.0), two), record(row(1.0), two, cpu="another"))
    assert worse.returncode == 1
    assert "note: another cpu: one, now another" in worse.stdout
    assert "WORSE" in next(line for line in worse.stdout.splitlines() if "1 processes" in line)
    assert "2 ratios in both records, 1 worse" in worse.stdout
    assert run(tmp_path, record(row(3.0)), record(row(2.0)), "--tolerance", "0.5").returncode == 0
    assert run(tmp_path, record(row(3.0)), record(row(3.0)), "--only", "vmap").returncode == 2
    assert run(tmp_path, record(row(3.0)), record(row(3.0)), "--only", "fused").returncode == 0
    more = run(tmp_path, record(row(3.0)), record(row(1.0)) | {"cores": 16})
    assert (more.returncode, "not judged" in more.stdout) == (0, True)


@pytest.mark.parametrize(
    ("old", "words", "said"),
    [
        ("{", (), "is no record of benchmarks/fused.py or peers.py (--json FILE)"),
        ("[1]", (), "is no record of"),
        ('{"cnn": [1]}', (), "is no record of"),
        ("{}", (), "the records have no ratio in common"),
        (record(row(3.0)), ("--tolerance", "2"), "--tolerance 2: give a fraction below 1"),
    ],
)
def test_bad_input_is_one_line(old: Any, words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = run(tmp_path, old, record(row(3.0)), *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    (tmp_path / "old.json").unlink()
    line = [sys.executable, str(ROOT / "benchmarks" / "compare.py"), str(tmp_path / "old.json"), "x"]
    missing = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (missing.returncode, "No such file or directory" in missing.stderr) == (2, True)
