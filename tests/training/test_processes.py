"""Runs on several processes, and compiled ones."""

import subprocess
from pathlib import Path

import pytest

from tests.support.trainer import (
    SMALL,
    Run,
    command,
    environment,
    only_run,
    start_training,
    train,
    train_in_ranks,
    wait_for_train_rows,
)


@pytest.mark.slow
def test_two_ranks_train_as_one_and_count_every_test_image_once(tmp_path: Path) -> None:
    for precision, limit in (("fp64", 1e-12), ("fp32", 1e-4)):
        losses, rows = [], []
        for name, start in (("one", train), ("two", train_in_ranks)):
            runs = tmp_path / precision / name
            # 25 steps of the default schedule: the first of 3,752.
            words = ("--log.every", "1 steps", "--eval.every", "25 steps", "--limit-test", 777,
                     "--log.wandb", "disabled", "--steps", 25, "--optim.warmup", "24 steps", "--lr", 2e-4,
                     "--precision", precision, "--optim.clip", 1.0, "--log.no-pictures")  # fmt: skip
            done = start(*words, runs=runs)
            assert done.returncode == 0, done.stderr
            losses.append([row["loss"] for row in only_run(runs).rows() if row["kind"] == "train"])
            rows.append(only_run(runs).results()[0])
        assert [row["world_size"] for row in rows] == [1, 2]
        assert [sum(map(sum, row["confusion"])) for row in rows] == [777, 777]
        assert max(abs(a - b) for a, b in zip(*losses, strict=True)) < limit
        if precision == "fp64":
            assert rows[0]["confusion"] == rows[1]["confusion"]


def test_two_processes_divide_seeds(tmp_path: Path) -> None:
    words = ("--steps", 4, "--seeds", "0-2", "--batch-size", 32, "--precision", "fp64", *SMALL)
    assert train(*words, launcher="cpu2", runs=tmp_path / "two").returncode == 0
    assert train(*words, runs=tmp_path / "one").returncode == 0
    alone = only_run(tmp_path / "one").results()
    blocks = [Run(p).results() for p in sorted((tmp_path / "two").glob("*/*/*"))]
    assert [sorted(b) for b in blocks] == [[0], [1, 2]]
    assert {r["mode"] for b in blocks for r in b.values()} == {"seeds"}
    for block in blocks:
        for seed, row in block.items():
            assert row["test_loss"] == pytest.approx(alone[seed]["test_loss"], rel=1e-10)


@pytest.mark.slow
def test_ranks_that_share_blocks_of_seeds_stop_together(tmp_path: Path) -> None:
    """A stop request that comes too late for one block must reach all ranks before the next one."""
    words = ("--parallel", "data", "--seeds", "0-60", "--steps", 9, "--log.every", "1 steps",
             "--batch-size", 1280, "--eval.every", "9 steps", *SMALL)  # fmt: skip
    process = start_training(*words, launcher="cpu2", runs=tmp_path)
    wait_for_train_rows(tmp_path, 3)
    (only_run(tmp_path).path / "stop").touch()
    process.wait(90)
    assert (process.returncode, only_run(tmp_path).status()["state"]) == (0, "stopped")


@pytest.mark.slow
def test_compiled_seeds_compile_once_are_the_plain_ones_and_resume_bit_for_bit(tmp_path: Path) -> None:
    # Without a transformer: where sampling points start on pixels, another rounding takes the other side of a kink.
    words = ("--net", "tutorial", "--arch", "cnn", "--seeds", "0-1", "--steps", 20, "--checkpoint.every", "5 steps",
             "--precision", "fp64", *SMALL)  # fmt: skip
    compiled = (*words, "--train.compile")
    whole = train(*compiled, runs=tmp_path / "whole", TORCH_LOGS="recompiles")
    assert whole.returncode == 0
    assert whole.stderr.count("Recompiling function forward") == 0, whole.stderr
    assert train(*compiled, "--train.time-limit", "1e-3", runs=tmp_path / "cut").returncode == 0
    assert train(*compiled, runs=tmp_path / "cut").returncode == 0
    assert train(*words, runs=tmp_path / "plain").returncode == 0
    rows = {name: only_run(tmp_path / name).results() for name in ("whole", "cut", "plain")}
    for seed in (0, 1):
        assert rows["whole"][seed]["weights_sha256"] == rows["cut"][seed]["weights_sha256"]
        assert rows["whole"][seed]["weights_sha256"] != rows["plain"][seed]["weights_sha256"]
        assert rows["whole"][seed]["test_loss"] == pytest.approx(rows["plain"][seed]["test_loss"], abs=1e-9)
        assert rows["whole"][seed]["fused"] == 2


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("ACCELERATE_MIXED_PRECISION", "bf16", "use --precision bf16"),
        ("ACCELERATE_DYNAMO_BACKEND", "EAGER", "does not support"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "use --optim.accumulate instead"),
    ],
)
def test_settings_of_the_launcher_are_not_ignored(variable: str, value: str, message: str, tmp_path: Path) -> None:
    done = subprocess.run(
        command("--precision", "fp32", *SMALL, runs=tmp_path / "runs"),
        capture_output=True, text=True, env=environment() | {variable: value}, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "runs").exists()
