"""What an export is given: damaged and foreign files, and trackers that are not installed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from launch.export.command import PACKAGES, export
from stn.config.resolve import resolve, signature
from stn.config.schema import Arch, Config, Log
from stn.config.yaml_files import dump_yaml
from stn.runs.directory import RunDir
from tests.support.exported import read_table
from tests.support.paths import ROOT
from tests.support.trainer import environment
from tests.support.wandb_runs import record, result_of, rows_of


def test_what_is_damaged_or_foreign_is_left_out_with_a_line(run: RunDir, tmp_path: Path) -> None:
    foreign = tmp_path / "runs" / "other"
    foreign.mkdir()
    (foreign / "config.yaml").write_text("trainer: {gpus: 2}\n")
    with run.metrics.open("a") as file:
        file.write('{"kind": "train", "se\n')
    with run.results.open("a") as file:
        file.write("{}\n")
    copy = tmp_path / "runs" / "copy" / "abcabcabcabc" / "0-7"
    shutil.copytree(run.path, copy)
    said = list[str]()
    assert export([str(tmp_path / "runs")], "csv", str(tmp_path / "out"), "", said.append) == 1
    assert said[-1].startswith("csv: 2 new")
    first, second = sorted([run.path, copy])
    assert said[:-1] == [
        said[0],
        f"{first}/results.jsonl: skipped 1 damaged, foreign or repeated lines",
        f"{first}/metrics.jsonl: skipped 1 damaged lines",
        f"{second}/results.jsonl: skipped 1 damaged, foreign or repeated lines",
        f"{second}/metrics.jsonl: skipped 1 damaged lines",
        f"{second}: skipped seeds 0-1, read from another run directory",
    ]
    assert said[0].startswith(f"left out: {foreign}/config.yaml")


def test_results_that_cannot_be_read_leave_an_earlier_export_as_it_is(run: RunDir, tmp_path: Path) -> None:
    assert export([str(run.path)], "csv", str(tmp_path / "out"), "", print) == 0
    before = read_table(tmp_path / "out" / "results.csv")
    run.results.unlink()
    run.results.mkdir()
    said = list[str]()
    assert export([str(run.path)], "csv", str(tmp_path / "out"), "", said.append) == 1
    assert said[0].startswith("left out: ")
    assert str(run.results) in said[0]
    assert said[1:] == [f"csv: 0 new, 0 completed, 0 replaced, 0 unchanged; in {tmp_path / 'out'}"]
    assert read_table(tmp_path / "out" / "results.csv") == before


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


def moved(folder: Path, arch: str, seeds: tuple[int, ...], done: bool) -> tuple[RunDir, str]:
    """A run directory outside of the folder of its signature, and that signature."""
    config = resolve(Config(arch=Arch(name=arch), log=Log(name="exp")))
    sig = signature(config)
    run = RunDir(folder.parent / "before" / folder.name / sig / "0-7")
    run.path.mkdir(parents=True)
    run.config.write_text(dump_yaml(config))
    run.add_metrics([row for seed in seeds for row in rows_of(seed, 100)])
    if done:
        run.add_results([result_of(seed) | {"sig": sig} for seed in seeds])
    return RunDir(run.path.rename(folder)), sig


def test_directories_that_were_moved_side_by_side_are_told_apart(tmp_path: Path) -> None:
    """By the signature in their rows or in env.json, or by their configuration's."""
    res = tmp_path / "res"
    _, cnn = moved(res / "cnn", "cnn", (0, 1), done=True)
    begun, _ = moved(res / "cnn begun", "cnn", (1, 2), done=False)
    begun.config.write_text(begun.config.read_text().replace("name: mnist\n", "name: npz:gone.npz\n"))
    begun.env.write_text(json.dumps({"sig": cnn}))
    _, stn = moved(res / "stn", "stn_cx", (0, 1), done=True)
    moved(res / "stn begun", "stn_cx", (1, 2), done=False)
    said = list[str]()
    assert export([str(res)], "csv", str(tmp_path / "out"), "", said.append) == 0, said
    lines = read_table(tmp_path / "out" / "results.csv")
    found = {(line["sig"], line["seed"]): (Path(line["path"]).name, line["status"]) for line in lines}
    assert len(lines) == len(found)
    expected = {(sig, seed): (name, "finished") for sig, name in ((cnn, "cnn"), (stn, "stn")) for seed in "01"}
    assert found == expected | {(cnn, "2"): ("cnn begun", "unfinished"), (stn, "2"): ("stn begun", "unfinished")}


def test_a_moved_directory_of_unknown_signature_is_left_out(tmp_path: Path) -> None:
    moved(tmp_path / "res" / "cnn", "cnn", (0,), done=True)
    run, _ = moved(tmp_path / "res" / "gone", "cnn", (1,), done=False)
    run.config.write_text(run.config.read_text().replace("name: mnist\n", f"name: npz:{tmp_path}/none.npz\n"))
    said = list[str]()
    assert export([str(tmp_path / "res")], "csv", str(tmp_path / "out"), "", said.append) == 1
    assert said[0].startswith(f"left out: {run.config}: cannot read {tmp_path}/none.npz")
    assert said[1].startswith("csv: 1 new")


def test_the_order_of_paths_changes_nothing(tmp_path: Path) -> None:
    """Seed 1 was begun in one block and finished in another of the same experiment."""
    begun = record(tmp_path, {0: 100, 1: 50}, done=(0,), block="0-1")
    finished = record(tmp_path, {1: 200, 2: 100}, done=(1, 2), block="1-2")
    other = record(tmp_path / "other", {3: 100}, done=(3,))
    paths = [str(run.path) for run in (begun, other, finished)]
    for given in (paths, paths[::-1]):
        assert export(given, "csv", str(tmp_path / "out"), "", print) == 0
        lines = read_table(tmp_path / "out" / "results.csv")
        assert sorted((line["seed"], line["status"]) for line in lines) == [(seed, "finished") for seed in "0123"]


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
