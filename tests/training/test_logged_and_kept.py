"""Gradient norms in the log and the weights of the best evaluation: both leave training as it is."""

import contextlib
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from stn.config.dataset import build_dataset
from stn.config.resolve import resolve
from stn.config.schema import Arch, Checkpoint, Config, Data, Eval, Log, Optim, Train
from stn.data.stream import Stream
from stn.evaluation.accuracy import evaluate
from stn.models.build import build_network
from stn.multiseed.model import StackedModel
from stn.runs.trials import build_trials
from stn.training.checkpoints import digest
from stn.training.runtime import Runtime
from stn.training.stop import Stop
from tests.support.trainer import QUIET, Run, assert_close, only_run
from tests.support.trainer import train as command_line_train

ARCH = Arch(name="cnn", net="tutorial")


class KilledError(Exception):
    pass


class StopAt(Stop):
    """Stops at a step, or dies there without saving."""

    def __init__(self, step: int, killed: bool = False) -> None:
        super().__init__([], None, None)
        self.step, self.killed = step, killed

    def due(self, step: int) -> bool:
        if step == self.step:
            if self.killed:
                raise KilledError
            self.reason = "test"
        return step == self.step


def train(runs: Path, *stops: Stop, on: bool = True, finish: bool = True, **more) -> Run:
    """Train two seeds, interrupted by ``stops``, and return the run directory."""
    import train as script

    config = resolve(
        Config(
            arch=ARCH,
            data=Data(batch_size=8, limit_train=160, limit_test=50),
            optim=Optim(lr=0.02, **more.pop("optim", {})),
            train=Train(**{"seeds": "3-4", "steps": 14, "precision": "fp64"} | more),
            eval=Eval(every="2 steps"),
            checkpoint=Checkpoint(every="5 steps", keep_best=on),
            log=Log(runs=str(runs), wandb="disabled", pictures=False, every="3 steps", grad_norm=on),
        )
    )
    trials = build_trials([config])
    for stop in (*stops, *[Stop([], None, None)] * finish):
        with contextlib.suppress(KilledError):
            script.train(Runtime(config, len(trials)), stop, trials)
        trials[0].run.lease.release()
    return only_run(runs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py"])
        yield train(tmp_path_factory.mktemp("whole"))


def best_files(run: Run) -> dict[int, Path]:
    return {seed: run.path / f"checkpoints/seed-{seed}/best.safetensors" for seed in (3, 4)}


def norms(run: Run) -> list[float]:
    return [row["grad_norm"] for row in run.rows() if row["kind"] == "train" and row["seed"] == 4]


def test_both_leave_training_as_it_is(whole: Run, tmp_path: Path) -> None:
    off = train(tmp_path, on=False)
    for seed, row in off.results().items():
        assert whole.results()[seed]["weights_sha256"] == row["weights_sha256"]
        assert whole.results()[seed]["sig"] == row["sig"]
        assert not best_files(off)[seed].exists()
    rows = [{k: v for k, v in row.items() if k != "grad_norm"} for row in whole.metrics_without_clock()]
    assert rows == off.metrics_without_clock()


def test_best_weights_have_the_best_accuracy_and_say_what_they_were_chosen_on(whole: Run) -> None:
    config, dataset = resolve(Config(arch=ARCH, data=Data(limit_test=50))), build_dataset("mnist")
    build = partial(build_network, config)
    for seed, path in best_files(whole).items():
        row = whole.results()[seed]
        model = StackedModel(build, [seed], dtype=torch.float64)
        model.load_weights(0, load_file(path))
        stream = Stream(config.data, dataset, [seed], dtype=torch.float64)
        assert evaluate(model, stream, Eval(batch_size=50), Runtime(config, 1))[0]["test_acc"] == row["best_test_acc"]
        with safe_open(path, "pt") as file:
            header = json.loads(file.metadata()["stn"])
        assert (header["chosen_on"], header["test_acc"]) == ("test", row["best_test_acc"])
        assert header["epoch"] == row["best_epoch"]
    assert any(row["best_epoch"] < row["epochs"] for row in whole.results().values()), (
        "the best is never an earlier one"
    )


@pytest.mark.parametrize("stop", [StopAt(7), pytest.param(StopAt(9, killed=True), marks=pytest.mark.slow)])
def test_a_resumed_run_logs_and_keeps_the_same(whole: Run, tmp_path: Path, stop: StopAt) -> None:
    cut = train(tmp_path, stop)
    assert cut.metrics_without_clock() == whole.metrics_without_clock()
    for seed in (3, 4):
        assert digest(load_file(best_files(cut)[seed])) == digest(load_file(best_files(whole)[seed]))


def test_best_weights_outlive_a_part_of_the_run_that_does_not_keep_them(tmp_path: Path) -> None:
    kept = [path.read_bytes() for path in best_files(train(tmp_path, StopAt(7), finish=False)).values()]
    for on in (False, True):
        run = train(tmp_path, StopAt(7), on=on, finish=False)
        assert run.status()["state"] == "stopped"
        assert [path.read_bytes() for path in best_files(run).values()] == kept


def test_best_weights_that_a_part_of_the_run_did_not_keep_are_said_to_be_lacking(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, StopAt(3), finish=False)
    train(tmp_path, StopAt(13), on=False, finish=False)
    capsys.readouterr()
    run = train(tmp_path, StopAt(13), finish=False)
    assert capsys.readouterr().out.count("lacks the weights of its best epoch so far") == 2
    assert not any(path.exists() for path in best_files(run).values()), "they are of an earlier epoch"


@pytest.mark.slow
def test_two_ranks_log_and_keep_the_same_as_one(tmp_path: Path) -> None:
    words = ("--arch", "cnn", "--net", "tutorial", "--batch-size", 8, "--lr", 0.02, "--seeds", 4, "--steps", 14,
             "--precision", "fp64", "--limit-train", 160, "--limit-test", 50, "--eval.every", "2 steps",
             "--log.every", "3 steps", "--log.grad-norm", "--checkpoint.keep-best", *QUIET)  # fmt: skip
    runs = []
    for launcher in (None, "cpu2"):
        done = command_line_train(*words, launcher=launcher, runs=tmp_path / str(launcher))
        assert done.returncode == 0, done.stderr
        runs.append(only_run(tmp_path / str(launcher)))
    one, two = runs
    assert [run.results()[4]["world_size"] for run in runs] == [1, 2]
    assert len(norms(one)) == 5
    assert norms(two) == pytest.approx(norms(one), rel=1e-9)
    for key in ("best_test_acc", "best_epoch"):
        assert two.results()[4][key] == one.results()[4][key]
    assert two.results()[4]["best_epoch"] < two.results()[4]["epochs"], "the best is never an earlier one"
    assert_close(load_file(best_files(two)[4]), load_file(best_files(one)[4]))


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"seeds": "4"}, {"optim": {"accumulate": 2}}])
def test_gradient_norms_are_of_each_seed_and_of_whole_batches(whole: Run, tmp_path: Path, change: dict) -> None:
    assert len(norms(whole)) == 5
    assert norms(train(tmp_path, **change)) == pytest.approx(norms(whole), rel=1e-9)


@pytest.mark.usefixtures("whole")
def test_gradient_norms_are_those_before_clipping(tmp_path: Path) -> None:
    assert min(norms(train(tmp_path, optim={"clip": 1e-3}, steps=3))) > 0.01
