"""Whole runs through the real command line: what they leave and say, and what evaluate finds there."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from stn.__main__ import main
from tests.support.trainer import (
    SMALL,
    only_run,
    train,
)

ROW = {
    "sig", "seed", "arch", "dataset", "status", "params", "steps", "epochs", "test_acc", "test_error", "test_loss",
    "macro_f1", "best_test_acc", "best_epoch", "wall_s", "images_per_s", "mode", "world_size", "precision",
    "weights_sha256", "row_sha256",
}  # fmt: skip


WORDS = ("--arch", "stn_slx", "--epochs", 2, "--batch-size", 32, "--limit-train", 1600, "--limit-test", 300,
         "--log.wandb", "disabled")  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with pictures, as the quick start makes it, but small."""
    runs = tmp_path_factory.mktemp("trained")
    done = train(*WORDS, launcher="one", runs=runs)
    assert done.returncode == 0, done.stderr
    (runs / "out.txt").write_text(done.stdout)
    return runs


def test_slow_modules_are_not_imported_at_the_start(tmp_path: Path) -> None:
    done = train("--dataset", "mnist_r", "--steps", 1, *SMALL, runs=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert {"torch", "accelerate", "stn.training.optimizer"} <= imported
    slow = {
        "torch._dynamo",
        "torch.distributed.tensor",
        "torch.utils.flop_counter",
        "wandb",
        "matplotlib",
        "torchvision",
        "sympy",
    }
    assert not slow & imported


def test_a_run_directory_has_all_documented_files(trained: Path) -> None:
    run = only_run(trained)
    row = run.results()[0]
    assert set(row) >= ROW
    assert row["status"] == "finished"
    assert row["test_acc"] > 0.75
    assert row["test_error"] == pytest.approx(1 - row["test_acc"])
    assert row["best_test_acc"] >= row["test_acc"]
    assert (row["steps"], row["epochs"], row["params"], row["test_count"]) == (100, 2, 53984, 300)
    assert run.path.parent.name == row["sig"]
    assert run.status()["state"] == "finished"
    environment_facts = json.loads((run.path / "env.json").read_text())
    assert environment_facts["packages"]["torch"]
    assert environment_facts["packages"]["stn-harness"] == "0.1.0", "from a clone, too"
    assert set(environment_facts) >= {"device", "commit", "dirty", "command", "threads"}
    drawn = {p.stem for p in (run.path / "pictures").iterdir()}
    assert drawn == {"curves", "confusion", "warp", "object", "region"}
    assert all(p.read_bytes()[:4] == b"\x89PNG" for p in (run.path / "pictures").iterdir())
    kept = sorted(str(p.relative_to(run.path)) for p in run.path.rglob("*.safetensors"))
    assert kept == [
        "checkpoints/seed-0/final.safetensors",
        "predictions/images.safetensors",
        "predictions/seed-0.safetensors",
    ]
    evaluations = [r for r in run.rows() if r["kind"] == "eval"]
    assert [r["epoch"] for r in evaluations] == [1, 2]
    assert evaluations[-1]["test_acc"] == row["test_acc"]
    assert evaluations[-1]["test_top5_acc"] == row["test_top5_acc"] > row["test_acc"]
    out = (trained / "out.txt").read_text()
    assert "results.jsonl" in out
    assert "pictures" in out
    assert "\x1b[" not in out  # plain lines where the output is no terminal


def test_the_same_command_again_does_nothing(trained: Path) -> None:
    run = only_run(trained)
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in run.path.rglob("*") if p.is_file()}
    done = train(*WORDS, runs=trained)
    assert done.returncode == 0
    assert "finished before: nothing to do" in done.stdout
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in run.path.rglob("*") if p.is_file()} == before


def test_evaluate_reproduces_the_recorded_scores(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = only_run(trained)

    def evaluate(*words: object) -> tuple[int, str]:
        code = main(["evaluate", *map(str, words)])
        return code, capsys.readouterr().out

    code, out = evaluate(run.path)
    assert code == 0
    assert f"test_acc {run.results()[0]['test_acc']:.6f}" in out
    assert f"test_loss {run.results()[0]['test_loss']:.6f}" in out
    assert "as recorded" in out
    assert "  as recorded (after 1 iterations)" in evaluate(run.path, "--test-iterations", 1)[1]
    assert "NOT as recorded (after 4 iterations)" in evaluate(run.path, "--test-iterations", 4)[1]
    code, out = evaluate(run.path, "--mirror", "--json", tmp_path / "scores.json")
    assert code == 0
    assert "(with mirror images)" in out
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert (scores["signature"], scores["mirror"]) == (run.results()[0]["sig"], True)
    assert f"test_loss {scores['mean']['test_loss']:.6f}" in out
    assert scores["mean"]["test_loss"] == scores["seeds"]["0"]["test_loss"] != run.results()[0]["test_loss"]
    with pytest.raises(SystemExit) as exit_:
        evaluate(run.path, "--json", run.path / "results.jsonl" / "scores.json")
    assert exit_.value.code == 2
    assert "results.jsonl" in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit_:
        evaluate(run.path, "--test-iterations", 0)
    assert exit_.value.code == 2
    assert "error: arch: test_iterations: input should be greater than 0" in capsys.readouterr().err

    other = tmp_path / "run"
    shutil.copytree(run.path, other)
    row = run.results()[0]
    row["confusion"][0][0] -= 1
    (other / "results.jsonl").write_text(json.dumps(row | {"row_sha256": None}) + "\n")
    code, out = evaluate(other)
    assert (code, "NOT as recorded" in out) == (1, True)
    with pytest.raises(SystemExit) as exit_:
        evaluate(tmp_path)
    assert exit_.value.code == 2
    assert "is no run directory" in capsys.readouterr().err


def test_confusion_matrix_and_scores_agree_with_scikit_learn(trained: Path) -> None:
    from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

    row = only_run(trained).results()[0]
    truth, predicted = [], []
    for i, line in enumerate(row["confusion"]):
        for j, n in enumerate(line):
            truth += [i] * n
            predicted += [j] * n
    assert len(truth) == row["test_count"]
    assert row["test_acc"] == pytest.approx(accuracy_score(truth, predicted))
    assert row["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    recall: Any = precision_recall_fscore_support(truth, predicted)[1]  # an array, with an element for each class
    assert row["per_class_acc"] == pytest.approx(recall.tolist())
