"""What an export is given: damaged and foreign files, and trackers that are not installed."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from launch.export.command import PACKAGES, export
from stn.runs.directory import RunDir
from tests.support.paths import ROOT
from tests.support.trainer import environment
from tests.support.wandb_runs import result_of, rows_of


def test_what_is_damaged_or_foreign_is_left_out_with_a_line(run: RunDir, tmp_path: Path) -> None:
    foreign = tmp_path / "runs" / "other"
    foreign.mkdir()
    (foreign / "config.yaml").write_text("trainer: {gpus: 2}\n")
    with run.metrics.open("a") as file:
        file.write('{"kind": "train", "se\n')
    with run.results.open("a") as file:
        file.write("{}\n")
    copy = tmp_path / "runs" / "copy" / "abc" / "0-7"
    shutil.copytree(run.path, copy)
    said = list[str]()
    assert export([str(tmp_path / "runs")], "csv", str(tmp_path / "out"), "", said.append) == 1
    assert said[-1].startswith("csv: 2 new")
    first, second = sorted([run.path, copy])
    assert said[:-1] == [
        f"{first}/results.jsonl: skipped 1 damaged or repeated lines",
        f"{first}/metrics.jsonl: skipped 1 damaged lines",
        f"{second}/results.jsonl: skipped 1 damaged or repeated lines",
        f"{second}/metrics.jsonl: skipped 1 damaged lines",
        f"{second}: skipped seeds 0-1, read from another run directory",
        said[5],
    ]
    assert said[5].startswith(f"left out: {foreign}/config.yaml")


@pytest.mark.parametrize("target", ["csv", "parquet", "tensorboard"])
def test_odd_values_in_rows_are_no_traceback(target: str, run: RunDir, tmp_path: Path) -> None:
    pytest.importorskip(PACKAGES[target])
    odd = {"huge": 10**400, "word": "\ud800", "nested": {"a": [1]}, "truth": True, "mixed": "x", "": 1}
    run.add_metrics([row | odd for row in rows_of(3, 100)])
    run.add_metrics([row | {"mixed": 1.5, "word": None} for row in rows_of(4, 100)])
    run.add_results([result_of(3) | odd])
    for _ in range(2):
        assert export([str(run.path)], target, str(tmp_path / "out"), "", print) == 0


def test_seeds_of_different_code_are_left_out(run: RunDir, tmp_path: Path) -> None:
    run.add_results([result_of(1) | {"params": 5}, result_of(2) | {"params": 6}])
    said = list[str]()
    assert export([str(run.path)], "csv", str(tmp_path / "out"), "", said.append) == 1
    assert "were trained by different code" in said[0]
    assert said[-1].startswith("csv: 0 new")


def test_a_table_of_something_else_is_not_overwritten(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"results\.csv is not from an export"):
        export([str(run.path)], "csv", str(tmp_path), "", print)
    assert (tmp_path / "results.csv").read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize("missing", ["trackio", "mlflow", "tensorboard", "parquet"])
def test_a_missing_package_is_one_line(missing: Any, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGES[missing], None)
    with pytest.raises(ValueError, match=f"^--to {missing} needs a package: pip install {PACKAGES[missing]}$"):
        export([str(run.path)], missing, "", "", print)


def launch(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CLI, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120)


CLI = """
import sys
from launch.__main__ import main
sys.argv[0] = "launch"
code = main()
assert "torch" not in sys.modules
sys.exit(code)
"""


def test_command_line_without_torch(run: RunDir, tmp_path: Path) -> None:
    done = launch("export", run.path.parent.parent, "--to", "csv")
    out = run.path.parent.parent / "export"
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"csv: 2 new, 0 completed, 0 replaced, 0 unchanged; in {out}\n"
    assert (out / "results.csv").is_file()
    none = launch("export", run.path)
    assert none.returncode == 2
    assert none.stderr == "error: say where to: --to trackio, mlflow, tensorboard, csv, parquet\n"
    wrong = launch("export", run.path, "--to", "mlfow")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: no export to 'mlfow'; did you mean 'mlflow'?")
    empty = launch("export", tmp_path / "out", "--to", "csv")
    assert empty.returncode == 2
