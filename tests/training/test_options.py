"""Whole runs with options: seeds, precision, accumulation, validation; and losses that are not finite."""

import subprocess
from pathlib import Path

import pytest

from tests.support.trainer import (
    QUICK,
    SMALL,
    TWO_THREADS,
    Run,
    assert_close,
    command,
    environment,
    only_run,
    train,
)


@pytest.mark.slow
def test_seeds_trained_together_equal_seeds_alone_and_finished_ones_stay(tmp_path: Path) -> None:
    common = ("--steps", 12, "--precision", "fp64", *QUICK, *TWO_THREADS, *SMALL)
    assert train(*common, "--seeds", "3-5", "--fuse", 3, runs=tmp_path / "a").returncode == 0
    assert train(*common, "--seeds", "3-5", "--fuse", 1, runs=tmp_path / "b").returncode == 0
    together, alone = only_run(tmp_path / "a").results(), only_run(tmp_path / "b").results()
    assert sorted(together) == [3, 4, 5]
    assert len({row["weights_sha256"] for row in together.values()}) == 3
    assert {row["fused"] for row in alone.values()} == {1}
    for seed in (3, 4, 5):
        assert_close(only_run(tmp_path / "a").weights(seed), only_run(tmp_path / "b").weights(seed))
        assert together[seed]["test_loss"] == pytest.approx(alone[seed]["test_loss"], rel=1e-12)
    done = train(*common, "--seeds", "4-6", runs=tmp_path / "a")  # 4 and 5 are finished in another block
    assert done.returncode == 0
    (block,) = (tmp_path / "a").glob("*/*/4-6")
    assert sorted(Run(block).results()) == [6]


def test_a_diverging_seed_is_marked_failed_and_not_tried_again(tmp_path: Path) -> None:
    words = ("--steps", 20, "--optim.name", "sgd", "--lr", "1e12", "--log.every", "5 steps", *SMALL)
    done = train(*words, runs=tmp_path)
    run = only_run(tmp_path)
    row = run.results()[0]
    assert (done.returncode, row["status"], row["test_acc"]) == (1, "failed", None)
    assert "non-finite loss at step" in row["reason"]
    assert not {"bypass_acc", "pose_determinant"} & row.keys(), "measured on weights that are no numbers"
    assert [r["step"] for r in run.rows() if r["kind"] == "warp"] == [0]
    assert run.status()["state"] == "failed"
    assert "NaN" not in (run.path / "metrics.jsonl").read_text()
    again = train(*words, runs=tmp_path)
    assert again.returncode == 1
    assert "nothing to do" in again.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("--precision", "bf16"),
        ("--train.compile", "--net", "tutorial", "--arch", "stn_c0"),
        ("--optim.accumulate", "3", "--optim.clip", "1", "--optim.label-smoothing", "0.1"),
        ("--train.deterministic", "--arch", "stn_cx"),
        ("--data.rotate", "15", "--data.scale", "0.9", "1.1", "--data.shear", "5", "--data.translate", "0.1"),
        ("--arch.iterations", "2", "--arch.identity", "residual", "--optim.loc-lr-multiplier", "0.1"),
        ("--dataset", "mnist_t", "--arch", "stn_cx", "--batch-size", "16"),
        ("--dataset", "mnist_s", "--arch", "stn_dlx", "--batch-size", "16"),
        ("--data.validation", "1000"),
        ("--log.tensorboard",),
    ],
    ids=" ".join,
)
def test_options_train(words: tuple[str, ...], tmp_path: Path) -> None:
    done = train("--steps", 10, *words, *SMALL, runs=tmp_path)
    assert done.returncode == 0, done.stderr
    row = only_run(tmp_path).results()[0]
    assert row["status"] == "finished"
    assert ("val_acc" if "--data.validation" in words else "test_acc") in row
    if "--log.tensorboard" in words:
        assert list(tmp_path.rglob("events.out.tfevents*"))


@pytest.mark.slow
def test_accumulation_does_not_change_the_result(tmp_path: Path) -> None:
    losses = []
    for parts in (1, 3):
        runs = tmp_path / str(parts)
        train("--steps", 10, "--precision", "fp64", "--optim.accumulate", parts, *SMALL, runs=runs)
        losses.append(only_run(runs).results()[0]["test_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


@pytest.mark.slow
def test_training_needs_no_network(tmp_path: Path) -> None:
    """In a network namespace of its own nothing answers, not even the loopback."""
    probe = subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("unshare -n is not permitted here")
    words = command("--steps", 20, "--limit-train", 1280, "--limit-test", 300, launcher="one", runs=tmp_path)
    done = subprocess.run(
        ["unshare", "-n", *words], capture_output=True, text=True, env=environment(), timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert only_run(tmp_path).results()[0]["status"] == "finished"


def test_a_last_step_that_diverges_is_a_failure(tmp_path: Path) -> None:
    words = ("--steps", 1, "--optim.name", "sgd", "--lr", "1e38", "--optim.schedule", "constant", *SMALL)
    assert train(*words, runs=tmp_path).returncode == 1
    assert only_run(tmp_path).results()[0]["status"] == "failed"
    assert "NaN" not in (only_run(tmp_path).path / "results.jsonl").read_text()
