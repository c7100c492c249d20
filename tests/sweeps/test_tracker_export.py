"""Runs in other trackers: each seed once, completed or replaced when it has changed, read back with their clients."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from launch.export.command import PACKAGES, export
from stn.runs.directory import RunDir
from stn.tracking.pictures import warps_file
from tests.support import trackers
from tests.support.exported import READERS, close, expected, images, read_csv, read_table, read_trackio
from tests.support.wandb_runs import result_of, rows_of

pytestmark = pytest.mark.filterwarnings("default")  # the trackers have warnings of their own
TARGETS = ("csv", "tensorboard", "mlflow", "trackio", "parquet")


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    trackers.provide(PACKAGES[request.param], tmp_path / "out", monkeypatch)
    return request.param


def test_each_seed_is_there_once_and_follows_the_record(target: Any, run: RunDir, tmp_path: Path) -> None:
    out, said = tmp_path / "out", list[str]()

    def again() -> str:
        said.clear()
        assert export([str(tmp_path / "runs")], target, str(out), "", said.append) == 0
        return said[-1].split("; in")[0]

    read = READERS[target]
    assert again() == f"{target}: 2 new, 0 completed, 0 replaced, 0 unchanged"
    assert read(out) == close({("abcabcabcabc", 0): expected(0, 200), ("abcabcabcabc", 1): expected(1, 100)})
    assert again() == f"{target}: 0 new, 0 completed, 0 replaced, 2 unchanged"
    assert read(out) == close({("abcabcabcabc", 0): expected(0, 200), ("abcabcabcabc", 1): expected(1, 100)})

    run.add_metrics(rows_of(1, 200, first=100))
    run.add_results([result_of(1)])
    change = "1 completed, 0 replaced" if target == "mlflow" else "0 completed, 1 replaced"
    assert again() == f"{target}: 0 new, {change}, 1 unchanged"
    assert said[0] == f"seed 1 of exp (abcabcabcabc): {change.split(', ')[target != 'mlflow'][2:]}"
    assert read(out) == close({("abcabcabcabc", 0): expected(0, 200), ("abcabcabcabc", 1): expected(1, 200)})

    run.forget({0})
    run.add_results([result_of(0) | {"test_acc": 0.5}])  # it was trained again
    assert again() == f"{target}: 0 new, 0 completed, 1 replaced, 1 unchanged"
    assert read(out).keys() == {("abcabcabcabc", 0), ("abcabcabcabc", 1)}
    assert again() == f"{target}: 0 new, 0 completed, 0 replaced, 2 unchanged"


def test_tables_have_the_results(run: RunDir, tmp_path: Path) -> None:
    for target in ("csv", "parquet"):
        if target == "parquet":
            pytest.importorskip("pyarrow")
        export([str(run.path)], target, str(tmp_path), "", print)
        lines = read_table(tmp_path / f"results.{target}")
        assert [(int(line["seed"]), line["status"]) for line in lines] == [(0, "finished"), (1, "unfinished")]
        assert (float(lines[0]["test_acc"]), lines[0]["name"], lines[0]["arch"]) == (0.9, "exp", "stn_cx")
        run.add_results([result_of(1)])
        export([str(run.path)], target, str(tmp_path), "", print)
        lines = read_table(tmp_path / f"results.{target}")
        assert [(int(line["seed"]), line["status"]) for line in lines] == [(0, "finished"), (1, "finished")]
        run.forget({1})


def test_tensorboard_has_the_pictures(run: RunDir, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    export([str(run.path)], "tensorboard", str(tmp_path), "", print)
    files = [warps_file(run, 0, step).read_bytes() for step in (100, 200)]
    assert images(tmp_path / "tensorboard" / "exp" / "abcabcabcabc" / "seed-0") == {
        "warps": dict(zip((100, 200), files, strict=True))
    }


def test_trackers_have_all_of_a_seed(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for target in ("mlflow", "trackio"):
        trackers.provide(target, tmp_path, monkeypatch)
        export([str(run.path)], target, str(tmp_path), "", print)
    client = sys.modules["mlflow"].MlflowClient(tracking_uri=f"sqlite:///{tmp_path.resolve()}/mlflow.db")
    known = client.get_experiment_by_name("exp").experiment_id
    runs = {run.data.tags["stn.seed"]: run for run in client.search_runs([known])}
    assert (runs["0"].info.status, runs["1"].info.status) == ("FINISHED", "RUNNING")
    assert (runs["0"].data.params["optim.lr"], runs["0"].data.tags["stn.status"]) == ("0.001", "finished")
    configs = {run.config["seed"]: run.config for run in sys.modules["trackio"].Api().runs("exp")}
    assert (configs[0]["result"]["test_acc"], configs[0]["optim.lr"]) == (0.9, 0.001)
    assert [configs[seed]["status"] for seed in (0, 1)] == ["finished", "unfinished"]


@pytest.mark.parametrize("at", ["log_batch", "set_terminated"])
def test_mlflow_has_parameters_and_end_of_a_run_that_was_cut_short(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    trackers.provide("mlflow", tmp_path, monkeypatch)
    client = sys.modules["mlflow"].MlflowClient

    def die(*_: object, **__: object) -> None:
        raise OSError("no network")

    with monkeypatch.context() as patch:
        patch.setattr(client, at, die)
        with pytest.raises(OSError, match="no network"):
            export([str(run.path)], "mlflow", str(tmp_path), "", print)
    assert export([str(run.path)], "mlflow", str(tmp_path), "", print) == 0
    found = client(tracking_uri=f"sqlite:///{tmp_path.resolve()}/mlflow.db")
    runs = found.search_runs([found.get_experiment_by_name("exp").experiment_id])
    assert [(one.data.params["seed"], one.data.params["optim.lr"]) for one in sorted(runs, key=seed_of)] == [
        ("0", "0.001"),
        ("1", "0.001"),
    ]
    assert [one.info.status for one in sorted(runs, key=seed_of)] == ["FINISHED", "RUNNING"], "seed 1 trains on"


def seed_of(run: Any) -> str:
    return run.data.tags["stn.seed"]


def test_an_export_that_was_cut_short_is_repeated(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trackers.provide("trackio", tmp_path, monkeypatch)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    trackio = import_module("trackio")

    def die(*_: object) -> None:
        raise OSError("no network")

    with monkeypatch.context() as patch:
        patch.setattr(trackio, "Image", die)
        with pytest.raises(OSError, match="no network"):
            export([str(run.path)], "trackio", str(tmp_path), "", print)
    assert [run.name for run in trackio.Api().runs("exp")] == ["exp-abcabcabcabc-0.incomplete"]
    assert export([str(run.path)], "trackio", str(tmp_path), "", print) == 0
    assert read_trackio(tmp_path).keys() == {("abcabcabcabc", 0), ("abcabcabcabc", 1)}


def test_a_table_that_was_deleted_is_written_again(run: RunDir, tmp_path: Path) -> None:
    assert export([str(run.path)], "csv", str(tmp_path / "out"), "", print) == 0
    before = read_csv(tmp_path / "out")
    (tmp_path / "out" / "metrics.csv").unlink()
    said = list[str]()
    assert export([str(run.path)], "csv", str(tmp_path / "out"), "", said.append) == 0
    assert said[-1].startswith("csv: 0 new, 0 completed, 2 replaced, 0 unchanged")
    assert read_csv(tmp_path / "out") == before
