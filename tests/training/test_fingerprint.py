"""Edited code under an old signature is noticed, refused and, where the user says so, trained anew."""

import json
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data, Optim
from stn.data import stream
from stn.runs.directory import RunDir
from stn.runs.same_code import difference, set_aside
from stn.runs.same_code import fingerprints as known_fingerprints
from stn.runs.trials import build_trials
from stn.training import fingerprint as fingerprints
from stn.training import optimizer
from tests.support.paths import ROOT
from tests.support.records import result
from tests.support.trainer import QUICK, SMALL, environment, train


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> Callable:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    return runpy.run_path(str(ROOT / "train.py"), run_name="loop")["seed_losses"]


def config(**data: object) -> Config:
    optim = Optim(name="sgd", momentum=0.9, lr=0.1, schedule="constant")
    return resolve(Config(arch=Arch(name="stn_c0", net="tutorial"), data=Data(name="mnist_r", **data), optim=optim))  # type: ignore[arg-type]


def test_the_same_code_has_the_same_fingerprint_and_global_randomness_does_not_matter(losses: Callable) -> None:
    first = fingerprints.fingerprint(config(), losses)
    torch.manual_seed(1234)
    torch.rand(5)
    assert fingerprints.fingerprint(config(), losses) == first
    assert difference(first, first) is None


@pytest.mark.parametrize("arch", ["stn_c0", "stn_cx"])
def test_the_number_of_threads_does_not_matter(arch: str, losses: Callable) -> None:
    config = resolve(Config(arch=Arch(name=arch), data=Data(name="mnist_tc")))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(fingerprints.fingerprint(config, losses))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]


def _wider(monkeypatch: pytest.MonkeyPatch) -> None:
    build = fingerprints.build_network
    monkeypatch.setattr(fingerprints, "build_network", lambda *a: nn.Sequential(build(*a), nn.Linear(10, 10)))


def _other_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    build = fingerprints.build_network
    monkeypatch.setattr(fingerprints, "build_network", lambda *a: nn.Sequential(build(*a), nn.Tanh()))


def _other_perturbation(monkeypatch: pytest.MonkeyPatch) -> None:
    perturb = stream.Stream._perturb

    def stronger(self: stream.Stream, x: Tensor, *keys: object) -> tuple[Tensor, Tensor]:
        images, pose = perturb(self, x, *keys)  # type: ignore[arg-type]
        return images.mul(0.99), pose

    monkeypatch.setattr(stream.Stream, "_perturb", stronger)


def _without_momentum(monkeypatch: pytest.MonkeyPatch) -> None:
    def plain(flat_P: Tensor, grad_P: Tensor, averages: tuple, factors: tuple, lr: float, *_: object) -> None:
        flat_P.sub_(grad_P * (factors[0] * lr))

    monkeypatch.setattr(optimizer, "sgd_update", plain)


@pytest.mark.parametrize("edit", [_wider, _other_activation, _other_perturbation, _without_momentum])
def test_an_edit_changes_the_fingerprint(edit: Callable, losses: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprints.fingerprint(config(), losses)
    edit(monkeypatch)
    assert difference(before, fingerprints.fingerprint(config(), losses))


def test_another_loss_changes_the_fingerprint(losses: Callable) -> None:
    def doubled(*arguments: object) -> tuple[Tensor, Tensor]:
        loss_S, hits_S = losses(*arguments)
        return 2 * loss_S, hits_S

    a, b = fingerprints.fingerprint(config(), losses), fingerprints.fingerprint(config(), doubled)
    assert difference(a, b)


def test_weight_decay_shows_where_rates_are_low_at_first(losses: Callable) -> None:
    wishes = [Optim(name="sgd", lr=0.1, schedule="onecycle", weight_decay=decay) for decay in (1e-6, 1.001e-6, 0)]
    found = [fingerprints.fingerprint(resolve(Config(optim=wish)), losses) for wish in wishes]
    assert difference(found[0], found[1]) == difference(found[0], found[2]) == "decay differs"
    older = {key: value for key, value in found[0].items() if key != "decay"}
    assert difference(older, found[2]) is difference(found[2], older) is None


def test_rounding_and_unknown_fingerprints_are_no_difference() -> None:
    old = {"shapes": "a", "loss": [2.3, -1.0]}
    assert difference(old, {"shapes": "a", "loss": [2.3 * (1 + 1e-6), -1.0]}) is None
    assert difference(old, {"shapes": "a", "loss": [2.3 * (1 + 1e-4), -1.0]}) == "loss differs"
    assert difference(old, {"shapes": "a", "loss": [2.3]}) == "loss differs"
    assert difference(old, {"shapes": "a", "loss": [10**400, -1.0]}) == "loss differs"
    assert "names or shapes" in str(difference(old, old | {"shapes": "b"}))
    assert difference(None, old) is None


@pytest.mark.slow
def test_an_edited_architecture_is_refused_until_retrain_sets_the_old_runs_aside(tmp_path: Path) -> None:
    code = tmp_path / "code"
    shutil.copytree(ROOT / "stn", code / "stn")
    shutil.copy(ROOT / "train.py", code)
    runs = tmp_path / "runs"

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, str(code / "train.py"), *QUICK, *SMALL, "--steps", "3", "--runs", str(runs), *words]
        return subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=300, check=False)

    assert run("--seeds", "0").returncode == 0
    nets = code / "stn" / "models" / "nets.py"
    text = nets.read_text()
    nets.write_text(text.replace("conv(10, 5", "conv(11, 5"))
    for seeds in ("0", "0-1"):
        refused = run("--seeds", seeds)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert "was trained by other code" in refused.stderr
        assert "--retrain" in refused.stderr
    assert len(list(runs.glob("*/*/*/results.jsonl"))) == 1
    assert run("--seeds", "0-1", "--retrain").returncode == 0
    assert [path.parent.name for path in runs.glob("*/*/*/results.jsonl")] == ["0-1"]
    assert len(list(runs.glob("*/.replaced/*/0/results.jsonl"))) == 1
    again = run("--seeds", "0-1", "--retrain")
    assert "finished before" in again.stdout
    assert "retrain: false" in next(runs.glob("*/*/0-1/config.yaml")).read_text()  # `--config` of it sets nothing aside
    nets.write_text("# reformatted\n" + text.replace("conv(10, 5", "conv(11,   5"))
    assert "finished before" in run("--seeds", "0-1").stdout


def test_batch_norm_over_parts_of_a_batch_is_refused_before_there_is_a_run(tmp_path: Path) -> None:
    words = ("--arch", "stn_c0", "--net", "tutorial_norm", "--optim.accumulate", 2, "--steps", 3, *SMALL)
    for more in (("--seeds", "0"), ("--seeds", "0-1"), ("--check",)):
        refused = train(*words, *more, runs=tmp_path)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert "batch norm needs the whole batch" in refused.stderr
    assert not list(tmp_path.iterdir())


def test_a_network_without_a_fingerprint_trains_all_the_same(losses: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(fingerprints, "warn", told.append)

    def fail(*_: object) -> nn.Module:
        raise TypeError("not in float64")

    monkeypatch.setattr(fingerprints, "build_network", fail)
    (trial,) = fingerprints.stamp(build_trials([config()]), losses)
    assert trial.fingerprint is None
    assert told == ["no fingerprint, edits of the code will not be noticed: TypeError: not in float64"]


def test_runs_that_are_being_trained_are_not_set_aside(tmp_path: Path) -> None:
    run, other = RunDir(tmp_path / "x" / "sig" / "0"), RunDir(tmp_path / "x" / "sig" / "1")
    run.add_results([result(0)])
    other.lease.take(print)
    with pytest.raises(ValueError, match="is being trained; stop it before --retrain"):
        set_aside(run)
    assert run.results.exists()
    other.lease.release()
    set_aside(run)
    assert not run.path.exists()
    assert len(list(tmp_path.glob("x/.replaced/sig-*/0/results.jsonl"))) == 1
    set_aside(run)  # a second copy of the command comes too late, and has nothing to do


def test_only_what_has_left_weights_or_rows_counts(tmp_path: Path) -> None:
    """Code that failed before its first checkpoint may be mended and started again."""
    run, known = RunDir(tmp_path / "x" / "sig" / "0"), {"shapes": "a", "loss": [2.3]}
    run.replace(run.env, json.dumps({"fingerprint": known}))
    assert known_fingerprints(run) == []
    run.replace(run.checkpoints / "seed-0" / "step-00000001.safetensors", b"")
    assert known_fingerprints(run) == [known]
    (run.checkpoints / "seed-0" / "step-00000001.safetensors").unlink()
    run.add_results([result(0, fingerprint=known)])
    assert known_fingerprints(run) == [known]
