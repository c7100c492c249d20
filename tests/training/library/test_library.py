"""import stn: runs, their rows and their networks in Python."""

import json
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import stn
from stn.commands.library import tables
from stn.config.resolve import signature
from stn.runs.directory import RunDir
from tests.support.paths import ROOT
from tests.support.records import metric, result
from tests.support.trainer import QUICK, SMALL, Run, environment, only_run, train

SIG, OTHER = "0123456789ab", "ba9876543210"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    runs = tmp_path_factory.mktemp("library")
    done = train("--dataset", "mnist_r", "--seeds", "3,5", "--steps", "6", *QUICK, *SMALL, runs=runs)
    assert done.returncode == 0, done.stderr
    return only_run(runs)


def test_importing_stn_costs_nothing() -> None:
    code = "import sys, stn; print(sorted({'torch', 'numpy', 'pandas', 'pydantic', 'yaml'} & set(sys.modules)), stn)"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] ")
    with pytest.raises(AttributeError, match="module 'stn' has no attribute 'nothing'"):
        stn.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_a_run_has_its_configuration_rows_and_metrics(trained: Run) -> None:
    run = stn.load(trained.path)
    assert isinstance(run, stn.Run)
    assert signature(run.config) == trained.path.parent.name
    assert run.rows == list(trained.results().values())
    assert run.metrics == trained.rows()
    assert run.seeds == [3, 5]
    assert repr(run) == f"<Run {trained.path}: stn_c0 on mnist_r, finished seeds [3, 5]>"
    assert stn.load(str(trained.path.parents[2])).path == trained.path


def test_a_network_that_was_scored_with_mirror_images_predicts_with_them(trained: Run) -> None:
    plain, mirrored = stn.load(trained.path), stn.load(trained.path)
    evaluation = mirrored.config.eval.model_copy(update={"mirror": True})
    mirrored.config = mirrored.config.model_copy(update={"eval": evaluation})
    images, _ = plain.test_images(50)
    each = [plain.predict(x).log() for x in (images, images.flip(-1))]
    torch.testing.assert_close(mirrored.predict(images), ((each[0] + each[1]) / 2).softmax(1))


def test_a_network_predicts_what_it_scored(trained: Run) -> None:
    run = stn.load(trained.path)
    images, labels = run.test_images(1000)
    assert images.shape == (300, 1, 28, 28)
    assert 0 <= images.min() < images.max() <= 1
    before = torch.get_rng_state()
    for row in run.rows:
        probabilities = run.predict(images, row["seed"])
        assert probabilities.sum(1).allclose(torch.ones(300))
        assert probabilities.argmax(1).eq(labels).float().mean().item() == pytest.approx(row["test_acc"], abs=1e-6)
        weights, network = trained.weights(row["seed"]), run.model(row["seed"])
        assert not network.training
        assert all(x.equal(weights[name]) for name, x in network.state_dict().items())
    assert torch.get_rng_state().equal(before)
    assert run.predict(images).equal(run.predict(images, 3))
    assert not run.predict(images, 5).equal(run.predict(images, 3))


def test_images_come_in_any_usual_form(trained: Run) -> None:
    run = stn.load(trained.path)
    bytes_BHW = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    expected = run.predict(bytes_BHW)
    assert expected.shape == (4, 10)
    for same in (bytes_BHW[:, None], bytes_BHW / 255, torch.tensor(bytes_BHW).unsqueeze(1).double() / 255):
        assert run.predict(same).allclose(expected, atol=1e-6)
    for one in (bytes_BHW[0], bytes_BHW[:1], bytes_BHW[:1][None]):
        assert run.predict(one).allclose(expected[:1], atol=1e-6)
    assert run.predict(bytes_BHW[:0]).shape == (0, 10)
    with pytest.raises(ValueError, match=r"images of shape \[32, 32\] do not fit mnist_r: \[B, 1, 28, 28\]"):
        run.predict(torch.zeros(32, 32))
    with pytest.raises(ValueError, match="must be from 0 to 1"):
        run.predict(bytes_BHW.astype(float))


def test_what_is_not_there_is_named(trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"has no finished seed 4; finished: \[3, 5\]"):
        stn.load(trained.path).model(4)
    for path in ("nowhere", ""):
        with pytest.raises(ValueError, match=f"^{path} is no run directory, and has none below it$"):
            stn.load(path)
        with pytest.raises(ValueError, match="is no run directory"):
            stn.results(path)
    with pytest.raises(ValueError, match=r"^runs is no run directory"):
        stn.results()
    with pytest.raises(ValueError, match="is no run directory: it has no config"):
        stn.Run(tmp_path)


def written(folder: Path, seeds: range, **more: object) -> None:
    run = RunDir(folder)
    folder.mkdir(parents=True)
    run.config.write_text("arch: cnn\nlog: {name: ours}\n")
    run.add_results([result(seed, sig=folder.parent.name, test_acc=seed / 10) | more for seed in seeds])
    rows = [metric(seed, step, kind) for seed in seeds for step, kind in ((1, "train"), (2, "eval"))]
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for sig, seeds in ((SIG, range(2)), (SIG, range(2, 4)), (OTHER, range(1))):
        written(tmp_path / "runs" / "ours" / sig / f"{seeds[0]}-{seeds[-1]}", seeds)
    return tmp_path / "runs"


def test_results_have_a_row_per_seed(runs: Path) -> None:
    rows = stn.results(frame=False)
    assert [(row["sig"], row["seed"]) for row in rows] == [(SIG, 0), (SIG, 1), (SIG, 2), (SIG, 3), (OTHER, 0)]
    assert rows[3]["path"] == str(runs / "ours" / SIG / "2-3")
    assert rows == stn.results("runs", "ours", frame=False) == stn.results(runs / "ours", frame=False)
    assert stn.results(f"ours/{OTHER}", frame=False) == rows[4:]
    with pytest.raises(ValueError, match="has 3 run directories; name one: "):
        stn.load("ours")


def test_metrics_say_what_was_trained(runs: Path) -> None:
    rows = stn.metrics(runs, frame=False)
    assert len(rows) == 10
    assert rows[0] == {"name": "ours", "sig": SIG, "arch": "cnn", "dataset": "mnist"} | metric(0, 1)
    assert [row["seed"] for row in stn.metrics("ours", kind="eval", frame=False)] == [0, 1, 2, 3, 0]
    with pytest.raises(ValueError, match="no kind 'evla' of rows; did you mean 'eval'"):
        stn.metrics("ours", kind="evla")


def test_a_seed_of_two_runs_counts_once(runs: Path) -> None:
    rows, points = stn.results(frame=False), stn.metrics(frame=False)
    copy = runs / "ours" / SIG / "3"
    written(copy, range(3, 4))
    (copy / "results.jsonl").write_text((copy.parent / "2-3" / "results.jsonl").read_text())
    assert RunDir(copy).rows().keys() == {3}
    assert {row["seed"]: row["path"] for row in stn.results(f"ours/{SIG}", frame=False)}[3].endswith("2-3")
    assert len(stn.results(frame=False)) == len(rows)
    assert len(stn.metrics(frame=False)) == len(points)


def test_seeds_of_different_code_are_not_put_into_one_table(runs: Path) -> None:
    for seeds, params in ((range(4, 5), 7), (range(5, 6), 8)):
        written(runs / "ours" / SIG / str(seeds[0]), seeds, params=params)
    with pytest.raises(ValueError, match="were trained by different code"):
        stn.results()


def test_a_data_frame_where_pandas_is_installed(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = ModuleType("pandas")
    pandas.__spec__ = ModuleSpec("pandas", None)
    pandas.DataFrame = tuple  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    assert stn.results() == stn.results(frame=True) == tuple(stn.results(frame=False))
    assert stn.metrics() == tuple(stn.metrics(frame=False))
    monkeypatch.delitem(sys.modules, "pandas")
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    assert stn.results() == stn.results(frame=False)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ValueError, match=r"frame=True needs pandas: pip install pandas"):
        stn.results(frame=True)


def test_a_real_data_frame(runs: Path) -> None:
    pytest.importorskip("pandas")
    assert stn.results().groupby("sig").test_acc.mean().to_dict() == pytest.approx({SIG: 0.15, OTHER: 0.0})


def test_results_read_each_file_once(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that 1,800 seeds take a second: neither configurations nor metrics nor second copies of rows are read."""
    opened: list[Path] = []
    real = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, *a, **k: (opened.append(path), real(path, *a, **k))[1])
    stn.results(frame=False)
    assert sorted(opened) == sorted(runs.glob("*/*/*/results.jsonl"))
