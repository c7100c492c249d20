"""Exported runs compute what was trained: the files, and the card that says so."""

import errno
import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from stn.commands import export
from stn.training import checkpoints
from tests.support.paths import CIFAR, ROOT, needs_cifar
from tests.support.trainer import QUIET, environment, only_run, run_script, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    command = ("--arch", "stn_cx", "--seeds", "3,5", "--steps", 4, "--batch-size", 32, "--limit-train", 128)
    done = train(*command, "--limit-test", 200, *QUIET, runs=runs)
    assert done.returncode == 0, done.stderr
    return only_run(runs).path


def exported(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "stn", "export", *map(str, arguments)],
        capture_output=True, text=True, cwd=ROOT, env=environment(), check=False,
    )  # fmt: skip


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_a_run_is_exported_and_the_card_works(run: Path, tmp_path: Path) -> None:
    done = exported(run, "--out", tmp_path, "--seed", 5, "--onnx")
    assert done.returncode == 0, done.stderr
    assert "largest difference" in done.stdout
    assert done.stderr == ""
    assert names(tmp_path) == set(export.FILES)
    card = (tmp_path / "card.md").read_text()
    row = next(row for row in map(json.loads, (run / "results.jsonl").read_text().splitlines()) if row["seed"] == 5)
    assert f"| accuracy | {row['test_acc']:.2%} of 200 test images |" in card
    for fact in (
        "| seed | 5 |",
        f"`{row['sig']}`",
        "53,984",
        f"| torch | {version('torch')} |",
        "[0.1307]",
        "`stn_cx`",
        "`mnist`",
    ):
        assert fact in card
    assert (tmp_path / "config.yaml").read_text() == (run / "config.yaml").read_text()
    weights = load_file(run / "checkpoints" / "seed-5" / "final.safetensors")
    assert all(x.equal(weights[name]) for name, x in load_file(tmp_path / "model.safetensors").items())

    code = "\n".join(re.findall(r"```python\n(.*?)```", card, re.DOTALL))
    code += "\nx = (images - mean) / std\nprint(logits.shape, bool(logits.isfinite().all()))"
    env = environment(PYTHONPATH=str(ROOT))
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=env, check=False
    )
    assert told.stdout == "torch.Size([5, 10]) True\n", told.stderr


@pytest.mark.slow
def test_the_first_finished_seed_is_the_default_and_nothing_old_stays(run: Path) -> None:
    (run / "export").mkdir()
    (run / "export" / "model.onnx").write_text("of another seed")
    done = exported(run)
    assert done.returncode == 0, done.stderr
    assert names(run / "export") == set(export.FILES) - {"model.onnx"}
    assert "| seed | 3 |" in (run / "export" / "card.md").read_text()


def test_an_export_that_computes_something_else_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "card.md").write_text("of an earlier export")
    written = export.save
    for wrong in (1e-4, float("nan")):

        def spoilt(tensors: dict[str, torch.Tensor], wrong: float = wrong) -> bytes:
            return written({name: tensor + wrong for name, tensor in tensors.items()})

        monkeypatch.setattr(export, "save", spoilt)
        with pytest.raises(SystemExit) as left:
            export.export_run(str(run), None, tmp_path, False)
        assert left.value.code == 1
        assert "differs from the trained network" in capsys.readouterr().err
        assert names(tmp_path) == {"card.md"}
        assert (tmp_path / "card.md").read_text() == "of an earlier export"


def test_a_full_disk_is_named(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=re.escape(f"No space left on device: '{tmp_path}'")):
        export.export_run(str(run), None, tmp_path, False)


@pytest.mark.slow
def test_an_onnx_file_that_computes_something_else_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Shift(nn.Module):
        def forward(self, logits: torch.Tensor) -> torch.Tensor:
            return logits + 1e-2

    written = export.write_onnx
    monkeypatch.setattr(export, "write_onnx", lambda network, *more: written(nn.Sequential(network, Shift()), *more))
    with pytest.raises(SystemExit):
        export.export_run(str(run), None, tmp_path / "out", True)
    assert "differs from the trained network by 0.01" in capsys.readouterr().err
    assert names(tmp_path / "out") == set()


def test_bad_input_is_one_message(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinished = tmp_path / "unfinished"
    shutil.copytree(run, unfinished, ignore=shutil.ignore_patterns("export"))
    (unfinished / "results.jsonl").write_text("")
    shutil.rmtree(unfinished / ".rows")
    (tmp_path / "file").touch()
    for arguments, message in (
        ((tmp_path / "none",), "is no run directory"),
        ((unfinished,), "has no finished seed"),
        ((run, "--seed", 4), "has no finished seed 4; finished: [3, 5]"),
        ((run, "--out", tmp_path / "file"), "File exists"),
    ):
        assert run_script("stn/__main__.py", "export", *arguments, monkeypatch=monkeypatch) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
    assert not (unfinished / "export").exists()
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(ValueError, match="pip install onnx onnxscript"):
        export.export_run(str(run), None, tmp_path / "out", True)
    assert not (tmp_path / "out").exists()


def test_the_card_of_a_validation_run_says_what_was_held_out(tmp_path: Path) -> None:
    words = ("--arch", "cnn", "--limit-train", 320, "--steps", 2, "--data.validation", 500, *QUIET)
    assert train(*words, runs=tmp_path).returncode == 0
    path = only_run(tmp_path).path
    export.export_run(str(path), None, tmp_path / "out", onnx=False)
    assert "of 500 held-out training images" in (tmp_path / "out" / "card.md").read_text()


@pytest.mark.slow
def test_a_run_in_double_precision_is_exported_in_double(tmp_path: Path) -> None:
    words = ("--arch", "stn_c0", "--limit-train", 320, "--limit-test", 100, "--steps", 2, "--precision", "fp64", *QUIET)
    assert train(*words, runs=tmp_path).returncode == 0
    run = only_run(tmp_path)
    (run.path / "env.json").write_text("{damaged")
    export.export_run(str(run.path), None, tmp_path / "out", onnx=False)
    assert checkpoints.digest(load_file(tmp_path / "out" / "model.safetensors")) == run.results()[0]["weights_sha256"]
    card = (tmp_path / "out" / "card.md").read_text()
    assert "| commit | not known |" in card
    code = "\n".join(re.findall(r"```python\n(.*?)```", card, re.DOTALL))
    code += "\nx = (images - mean) / std\nassert x.dtype == torch.float64"
    words = [sys.executable, "-c", code]
    env = environment(PYTHONPATH=str(ROOT))
    told = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path / "out", env=env, check=False)
    assert told.returncode == 0, told.stderr


@pytest.mark.slow
@needs_cifar
def test_a_run_that_was_moved_finds_its_data_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CIFAR
    (tmp_path / "there").symlink_to(CIFAR)
    words = ("--arch", "cnn", "--dataset", "cifar10", "--limit-train", 320, "--limit-test", 100, "--steps", 2, *QUIET)
    assert train(*words, "--data-root", tmp_path / "there", runs=tmp_path).returncode == 0
    (tmp_path / "there").unlink()
    monkeypatch.setenv("STN_DATA", str(CIFAR))
    export.export_run(str(only_run(tmp_path).path), None, tmp_path / "out", onnx=False)
    assert (tmp_path / "out" / "model.safetensors").is_file()
