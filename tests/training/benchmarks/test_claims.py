"""Claims: each follows from the rows in its folder, and one that was edited by hand does not pass."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import claim_page
import claim_rows
import claims
import pytest
from matplotlib.figure import Figure

from launch.report.build import compare
from stn.runs.directory import RunDir
from tests.support.trainer import QUICK, QUIET, only_run, train

R, H100 = "2026-11-27-finnveden-r", "2026-11-26-h100"
ZEN, ZEN3, PEERS = "2026-11-20-cpu-epyc", "2026-11-28-cpu-zen3", "2026-11-28-peers-zen3"


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["claims.py", *map(str, words)])
    return claims.main()


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    for name in (R, H100, ZEN, ZEN3, PEERS):
        shutil.copytree(claims.CLAIMS / name, tmp_path / name)
    return tmp_path


def test_every_claim_follows_from_its_rows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "check") == 0, capsys.readouterr().out


def _row(folder: Path) -> None:
    file = min(folder.glob("runs/*/*/*/results.jsonl"))
    row, *others = file.read_text().splitlines()
    changed = json.loads(row) | {"test_acc": 0.5}
    file.write_text("\n".join([json.dumps(changed), *others]) + "\n")


def _record(folder: Path) -> None:
    file = folder / "record.json"
    changed = file.read_text()
    for old, new in {"705674": "805674", "17738.": "27738.", "6988.": "8988."}.items():
        changed = changed.replace(old, new, 1)
    file.write_text(changed)


def _twice_as_fast(folder: Path) -> None:
    file = folder / "record.json"
    record = json.loads(file.read_text())
    for row in record["cnn"]:
        if (row["form"]["kind"], row["form"]["processes"]) == ("fused", 1):
            for one in row["rounds"]:
                one["images_per_s"] *= 2
    file.write_text(json.dumps(record))


def _replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return edit


def _other_figure(folder: Path) -> None:
    (folder / "figure.png").write_bytes(claim_page.png(Figure(), "0123456789abcdef"))


@pytest.mark.parametrize(
    ("name", "edit", "said"),
    [
        (R, _row, "its rows are not those that were collected"),
        (R, _row, "README.md was edited"),
        (R, _row, "figure.png is of other rows"),
        (R, _other_figure, "figure.png is of other rows"),
        (R, lambda folder: (folder / "figure.png").unlink(), "figure.png is missing"),
        (R, _replace("README.md", "0.38 points", "0.50 points"), "README.md was edited"),
        (R, _replace("claim.yaml", "stn_slx ? stn_dlx", "stn_slx > stn_dlx"), "'stn_slx > stn_dlx' does not hold"),
        (H100, _record, "its rows are not those that were collected"),
        (H100, _record, "README.md does not say: [73 times the plain loop]"),
        (ZEN, _record, "its rows are not those that were collected"),
        (
            ZEN,
            _record,
            "docs/pages/performance.md lacks the line: | `cnn`, `mnist_r` | 4,949 | 7,178 | 11,823 | 7,112 | **27,738",
        ),
        (ZEN3, _twice_as_fast, "README.md does not say: 4.7 to 14.3 times as fast"),
        (
            PEERS,
            _record,
            "docs/pages/performance.md lacks the line: | ours, as one network | 1 | 4 | 7,529 (1.89) | 8,98",
        ),
        (PEERS, _replace("README.md", "6,989 (2.00)", "7,989 (2.30)"), "README.md was edited"),
        (H100, _replace("claim.yaml", "times the plain loop", "times a plain loop"), "README.md does not say"),
    ],
)
def test_what_was_edited_by_hand_is_found(
    name: str,
    edit: Callable[[Path], None],
    said: str,
    copies: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    edit(copies / name)
    assert run(monkeypatch, "check", copies / name) == 1
    assert f"{name}: {said}" in capsys.readouterr().out


def test_a_report_on_the_rows_is_none_of_them(
    copies: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m launch report FOLDER/runs` writes into that folder."""
    compare([str(copies / R / "runs")])
    assert (copies / R / "runs" / "report" / "rows.csv").is_file()
    assert run(monkeypatch, "check", copies / R) == 0, capsys.readouterr().out


def test_a_row_cannot_be_smuggled_in_with_its_hash(
    copies: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever signs an edited row again changes what the claim says of itself, and what follows."""
    _row(copies / R)
    before = (copies / R / "README.md").read_text()
    assert run(monkeypatch, "collect", copies / R) == 1
    assert "does not hold" in capsys.readouterr().out
    assert (copies / R / "README.md").read_text() != before


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("2026-11-26-x", "claim: [", "claim.yaml"),
        ("2026-11-26-x", "- a list", "lacks claim, code, command, hardware"),
        ("2026-11-26-x", "claim: much", "lacks code, command, hardware"),
        ("yesterday-x", "{claim: a, code: [], command: b, hardware: c}", "Invalid isoformat"),
    ],
)
def test_a_claim_that_cannot_be_read_is_one_line(
    name: str, text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "claim.yaml").write_text(text)
    assert run(monkeypatch, "check", tmp_path / name) == 2
    assert said in capsys.readouterr().err
    assert run(monkeypatch, "check", tmp_path / "absent") == 2


def test_rows_are_copied_without_the_place_where_they_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--seeds", "0-1", "--epochs", 1, "--limit-train", 640, "--limit-test", 100, *QUICK, *QUIET)
    assert train(*words, runs=tmp_path / "runs").returncode == 0
    trained, folder = RunDir(only_run(tmp_path / "runs").path), tmp_path / "2026-11-26-small"
    folder.mkdir()
    claim = "claim: Small, hardware: a CPU, command: python train.py, code: [train.py], holds: [], commit: HEAD"
    claim += ", uncommitted: whatever the clone that is tested has"
    (folder / "claim.yaml").write_text(claim.replace(", ", "\n"))
    assert run(monkeypatch, "collect", folder, trained.path) == 0, capsys.readouterr().out
    copied = RunDir(only_run(folder / "runs").path)
    assert copied.rows() == trained.rows()
    assert str(tmp_path) not in "".join(path.read_text() for path in copied.path.iterdir())
    assert json.loads(copied.env.read_text())["commit"] == json.loads(trained.env.read_text())["commit"]
    assert run(monkeypatch, "list", folder) == 0
    assert "its code" in capsys.readouterr().out
    status = trained.read_status()
    (trained.path / "status.json").write_text(json.dumps(status | {"state": "stopped"}))
    assert run(monkeypatch, "collect", folder, trained.path) == 0, "finished seeds of a run that was stopped"
    (trained.path / "status.json").write_text(json.dumps(status | {"state": "running"}))
    assert run(monkeypatch, "collect", folder, trained.path) == 2
    assert "is running" in capsys.readouterr().err


def test_no_claim_names_a_folder_of_one_machine() -> None:
    words = [
        "/a/train.py",
        "--seeds",
        "0",
        "--runs",
        "/some/runs",
        "--data-root=/some/data",
        "--data.root",
        "/some/data",
        "--lr",
        "1",
    ]
    assert claim_rows.without_folders(words) == ["train.py", "--seeds", "0", "--lr", "1"]
    for path in claims.CLAIMS.glob("*/runs/*/*/*/env.json"):
        assert not [word for word in json.loads(path.read_text())["command"] if word.startswith("/")], path
