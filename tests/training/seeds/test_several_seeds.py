"""Many seeds at once through the real command line: isolation, settings, kills, accuracies."""

import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import ks_2samp, ttest_rel

import tests.support.branching  # noqa: F401  (registers an architecture)
from stn.config.dataset import build_dataset
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data, Log, Train
from stn.data.stream import Stream
from stn.models.build import build_network
from stn.multiseed.model import StackedModel
from stn.runs.trials import build_trials
from stn.training import optimizer
from stn.training.runtime import Runtime
from stn.training.stop import Stop
from tests.support.seeds import config
from tests.support.trainer import (
    QUIET,
    SMALL,
    TWO_THREADS,
    Run,
    assert_close,
    only_run,
    start_training,
    train,
    wait_for_train_rows,
)


def test_a_seed_with_a_nan_leaves_the_other_seven_bit_for_bit_the_same() -> None:
    seeds = 8

    def weights(poison: bool) -> StackedModel:
        one = resolve(config("stn_slx").model_copy(update={"data": Data(batch_size=16)}))
        stream = Stream(one.data, build_dataset("mnist"), list(range(seeds)))
        model = StackedModel(lambda: build_network(one), list(range(seeds)))
        optimiser = optimizer.SeedOptimiser([one.optim] * seeds, model, stream.clock, 3)
        for step in range(3):
            optimiser.zero_grad()
            batch = stream.batch(step)
            logits = model(batch.x_SBCHW, stream.clock, batch.row_B)
            if poison and step == 1:
                logits = logits + torch.tensor([float("nan") if s == 3 else 0.0 for s in range(seeds)]).view(-1, 1, 1)
            logits.square().mean((1, 2)).sum().backward()
            optimiser.step()
        return model

    clean, hurt = weights(False), weights(True)
    for s in range(seeds):
        same = [torch.equal(clean.weights(s)[name], hurt.weights(s)[name]) for name in clean.weights(s)]
        assert all(same) if s != 3 else not any(same[:1]), s


# ---- whole runs


@pytest.mark.slow
def test_several_learning_rates_train_together_as_alone(tmp_path: Path) -> None:
    words = (
        "--arch",
        "stn_cx",
        "--net",
        "tutorial",
        "--optim.name",
        "sgd",
        "--steps",
        12,
        "--precision",
        "fp64",
        *TWO_THREADS,
        *SMALL,
    )
    done = train(*words, "--lr", "0.01,1e200", "--optim.weight-decay", "0,0.1", "--seeds", "0-1", "--fuse", 8,
                 runs=tmp_path / "a")  # fmt: skip
    assert done.returncode == 1  # a seed failed
    rows = [row for path in (tmp_path / "a").glob("*/*/*") for row in Run(path).rows("results.jsonl")]
    assert len({row["sig"] for row in rows}) == 4
    found = {(row["lr"], row["weight_decay"], row["seed"]): row for row in rows}
    assert sorted(found) == [(lr, wd, s) for lr in (0.01, 1e200) for wd in (0, 0.1) for s in (0, 1)]
    assert {row["status"] for row in rows if row["lr"] == 1e200} == {"failed"}
    assert all("at step" in row["reason"] for row in rows if row["lr"] == 1e200)
    assert {row["fused"] for row in rows} == {8}
    train(*words, "--lr", 0.01, "--optim.weight-decay", 0.1, "--seeds", 1, runs=tmp_path / "b")
    alone = only_run(tmp_path / "b").results()[1]
    beside = found[0.01, 0.1, 1]
    for key in ("sig", "status"):
        assert alone[key] == beside[key]
    (block,) = (tmp_path / "a").glob(f"*/{beside['sig']}/*")
    assert_close(Run(block).weights(1), only_run(tmp_path / "b").weights(1))
    assert alone["test_loss"] == pytest.approx(beside["test_loss"], rel=1e-12)  # filters of all seeds side by side
    again = train(*words, "--lr=0.01,1e200", "--optim.weight_decay=0,0.1", "--seeds", "0-1", runs=tmp_path / "a")
    assert again.stdout.count("finished before") == 4


def test_a_network_that_cannot_be_fused_still_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    import train as script

    runtime, stop = Runtime(Config(), 1), Stop([], None, None)
    log = Log(runs=str(tmp_path), wandb="disabled", pictures=False)
    words = Config(data=Data(limit_train=640, limit_test=50), log=log)
    one = words.model_copy(update={"arch": Arch(name="branching"), "train": Train(seeds="0-1", steps=3)})
    assert script.train(runtime, stop, build_trials([resolve(one)])) == 0
    rows = only_run(tmp_path).results()
    assert {row["fused"] for row in rows.values()} == {1}
    assert rows[0]["weights_sha256"] != rows[1]["weights_sha256"]


@pytest.mark.slow
def test_killed_at_random_and_restarted_in_other_blocks(tmp_path: Path) -> None:
    words = ("--seeds", "0-7", "--arch", "stn_slx", "--net", "tutorial", "--steps", 40, "--precision", "fp64",
             "--batch-size", 16, "--checkpoint.every", "4 steps", "--log.every", "2 steps", *SMALL)  # fmt: skip
    assert train(*words, runs=tmp_path / "whole").returncode == 0
    for size, lines in ((1, 10), (8, 60)):
        process = start_training(*words, "--fuse", size, runs=tmp_path / "cut", launcher=None)
        wait_for_train_rows(tmp_path / "cut", lines)
        time.sleep(random.random() * 2)
        process.kill()
        process.wait()
    assert train(*words, "--fuse", 3, runs=tmp_path / "cut").returncode == 0
    cut, whole = only_run(tmp_path / "cut"), only_run(tmp_path / "whole")
    assert [row["seed"] for row in cut.rows("results.jsonl")] == list(range(8))
    for seed in range(8):
        assert_close(cut.weights(seed), whole.weights(seed))
    for seed in range(8):  # each step of each seed once
        steps = [row["step"] for row in cut.rows() if row["kind"] == "train" and row["seed"] == seed]
        assert steps == list(range(2, 41, 2))


@pytest.mark.slow
def test_fused_and_alone_reach_the_same_accuracies_in_single_precision(tmp_path: Path) -> None:
    words = ("--seeds", "0-11", "--arch", "stn_c0", "--net", "tutorial", "--steps", 60, "--limit-train", 1920,
             "--batch-size", 32, "--lr", 0.02, "--limit-test", 400, "--eval.every", "60 steps", *QUIET)  # fmt: skip
    accuracy = {}
    for size in (1, 4):
        assert train(*words, "--fuse", size, runs=tmp_path / str(size)).returncode == 0
        rows = only_run(tmp_path / str(size)).results()
        assert {row["fused"] for row in rows.values()} == {size}
        accuracy[size] = [rows[s]["test_acc"] for s in range(12)]
    assert min(accuracy[1]) > 0.5
    assert accuracy[1] != accuracy[4], "not single precision"
    for test in (ks_2samp, ttest_rel):
        result: Any = test(accuracy[1], accuracy[4])  # scipy's annotations leave out its fields
        assert result.pvalue > 0.01, test.__name__
