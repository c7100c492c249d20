"""Claims: what no commit has of the code behind their runs is said, and make claims checks before it lists."""

import json
import shutil
import subprocess
from pathlib import Path

import claims
import pytest

from tests.support.paths import ROOT
from tests.training.benchmarks.test_claims import R, run

words = ["git", "rev-parse", "--is-shallow-repository"]
WHOLE = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() == "false"
DIRTY = "runs/finnveden_r_full/a4d8eaca69c0/6-9"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(claims.CLAIMS / R, tmp_path / R))


def test_make_claims_checks_and_then_lists() -> None:
    words = ["make", "--dry-run", "--old-file", ".venv/ready", "claims"]
    told = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.partition("claims.py ")[2] for line in told if "claims.py" in line] == ["check", "list"]


@pytest.mark.skipif(not WHOLE, reason="needs the commits of the claims")
def test_the_list_names_runs_with_uncommitted_changes_and_commits_that_the_clone_lacks(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "list", copy) == 0
    before = capsys.readouterr().out.splitlines()
    assert [line.strip() for line in before[2:]] == [f"{DIRTY} was trained with uncommitted changes"]
    for i, file in enumerate(sorted(copy.glob("runs/*/*/*/env.json"))):
        commit = "8c9d494ce6f045b336a1867714b7cd7c4d575ae3" if i == 4 else json.loads(file.read_text())["commit"]
        file.write_text(json.dumps(json.loads(file.read_text()) | {"commit": commit, "dirty": False}))
    assert run(monkeypatch, "list", copy) == 0
    after = capsys.readouterr().out.splitlines()
    assert after[:2] == before[:2], "the code has changed since the other commits"
    assert [line.strip() for line in after[2:]] == ["commit 8c9d494ce6f0 is not in this clone"]
    for file in copy.glob("runs/*/*/*/env.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"commit": "8" * 40}))
    assert run(monkeypatch, "list", copy) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith(" days old; commit 888888888888 is not in this clone")


def test_a_claim_says_what_is_known_of_uncommitted_changes(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "| uncommitted changes | stn_cx with seeds 6-9 " in (copy / "README.md").read_text()
    file = copy / "claim.yaml"
    file.write_text(file.read_text().replace("uncommitted: >-", "nothing: >-"))
    assert run(monkeypatch, "check", copy) == 1
    assert f"{R}: {DIRTY} was trained with uncommitted changes, and claim.yaml does" in capsys.readouterr().out


def test_a_row_that_is_hidden_or_lies_elsewhere_counts(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is read is hashed."""
    run_dir = copy / DIRTY
    (run_dir / ".rows").mkdir()
    (run_dir / ".rows" / "9").write_text((run_dir / "results.jsonl").read_text().splitlines()[0])
    assert run(monkeypatch, "check", copy) == 1
    assert "its rows are not those that were collected" in capsys.readouterr().out
    shutil.rmtree(run_dir / ".rows")
    shutil.copytree(run_dir, copy / "runs" / "deep" / "a" / "b" / "c" / "6-9")
    assert run(monkeypatch, "check", copy) == 1
