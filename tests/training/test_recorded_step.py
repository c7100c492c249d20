"""A step on a CPU, recorded and replayed: the same bits, or the step itself."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from stn.training.replay import recorded_step
from stn.training.replay.recorded_step import RecordedStep
from tests.support.trainer import QUIET, only_run, train, train_with


class Training:
    """What a training step does: forward, backward, an update in place, and a sum."""

    def __init__(self, outcome: Callable[[Tensor], Tensor] = lambda loss: loss) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
        self.x, self.clock, self.total = torch.randn(32, 16, 4), torch.zeros((), dtype=torch.int64), torch.zeros(1)
        self.outcome, self.calls = outcome, 0

    def step(self) -> None:
        self.calls += 1
        self.net.zero_grad()
        x = self.x.index_select(0, (self.clock % 32).view(1))[0]
        loss = self.outcome(self.net(x).square().mean())
        loss.backward()
        with torch.no_grad():
            for p in self.net.parameters():
                p -= 0.1 * (p.grad if p.grad is not None else 0)
            self.total += loss
            self.clock += 1

    def state(self) -> list[Tensor]:
        return [t.clone() for t in (*self.net.state_dict().values(), self.clock, self.total)]


def _train(training: Training, steps: int = 8) -> tuple[RecordedStep, list[str]]:
    said: list[str] = []
    recorded = RecordedStep(training.step, True, said.append, plain_calls=2)
    for _ in range(steps):
        recorded(0)
    return recorded, said


def _plain(training: Training, steps: int = 8) -> Training:
    for _ in range(steps):
        training.step()
    return training


def test_replays_train_to_the_same_bits() -> None:
    training, plain = Training(), _plain(Training(), 8)
    _, said = _train(training)
    assert all(map(torch.equal, training.state(), plain.state()))
    assert (training.calls, said) == (4, []), "two plain calls, one recorded, one compared"


def test_each_size_of_a_batch_has_its_own_record() -> None:
    training = Training()
    recorded, _ = _train(training, 5)
    calls = training.calls
    for _ in range(5):
        recorded(1)
    assert training.calls == calls + 4


def _reads_a_value(loss: Tensor) -> Tensor:
    return loss * 2 if loss.item() > 0.1 else loss


def _draws(loss: Tensor) -> Tensor:
    return loss * torch.rand(())


def _has_a_mask(loss: Tensor) -> Tensor:
    return loss + loss.view(1)[loss.view(1) > 0.1].sum()


@pytest.mark.parametrize(
    ("outcome", "word"), [(_reads_a_value, "_local_scalar"), (_draws, "rand"), (_has_a_mask, "index")]
)
def test_a_step_that_would_change_is_called_as_it_is(outcome: Callable, word: str) -> None:
    training = Training(outcome)
    _, said = _train(training)
    torch.manual_seed(0)
    plain = Training(outcome)
    _plain(plain)
    assert training.calls == 9, "the recording that failed is not a step"
    (text,) = said
    assert "not replayed" in text
    assert word in text
    if outcome is not _draws:
        assert all(map(torch.equal, training.state(), plain.state()))


def test_a_step_that_counts_in_python_is_found_by_the_comparison() -> None:
    def make() -> Training:
        counter = itertools.count()
        return Training(lambda loss: loss * (1 + next(counter)))

    training, plain = make(), _plain(make())
    _, said = _train(training)
    assert all(map(torch.equal, training.state(), plain.state()))
    assert (training.calls, len(said)) == (8, 1)


def test_a_tensor_that_no_operation_has_made_is_found_by_the_comparison() -> None:
    def behind_the_recorder(loss: Tensor) -> Tensor:
        return loss * torch.from_numpy(loss.detach().numpy().copy())

    def make() -> Training:
        return Training(behind_the_recorder)

    training, plain = make(), _plain(make())
    assert len(_train(training)[1]) == 1
    assert all(map(torch.equal, training.state(), plain.state()))


def _raises(*_: object) -> None:
    raise RuntimeError("not\ntoday")


@pytest.mark.parametrize("finish", [_raises, lambda recorder: _raises])
def test_whatever_goes_wrong_with_a_record_the_step_is_called(
    finish: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_step._Recorder, "finish", finish)
    training, plain = Training(), _plain(Training())
    _, said = _train(training)
    assert said == ["the training step is not replayed: not"]
    assert all(map(torch.equal, training.state(), plain.state()))


def test_a_loss_that_is_not_finite_is_replayed_too() -> None:
    training, plain = Training(lambda loss: loss / 0), _plain(Training(lambda loss: loss / 0))
    _, said = _train(training)
    assert (said, training.calls) == ([], 4)
    for ours, theirs in zip(training.state(), plain.state(), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=0, equal_nan=True)


COUNTING = """
import torch.nn as nn
import stn

class Counts(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.linear, self.calls = nn.Linear(784, classes), 0

    def forward(self, x_BCHW):
        if self.training and len(x_BCHW) == 32:
            self.calls += 1
            if self.calls == 60:
                print("forward pass 60 of training", flush=True)
        return self.linear(x_BCHW.flatten(1))

@stn.register("arch")
def counts(net, shape, classes):
    '''Counts its calls.'''
    return Counts(classes)
"""

COUNTS = """
from stn.training.replay.recorded_step import RecordedStep
compare = RecordedStep._compare
RecordedStep._compare = lambda self, key: (compare(self, key), print('compared', key, key in self._replays))
"""


@pytest.mark.slow
def test_a_training_is_the_same_with_replays_and_without(tmp_path: Path) -> None:
    """With everything that a step can have: batch norm, dropout, clipping, perturbation, a smaller last batch."""
    words = ("--arch", "stn_c0_coord", "--net", "tutorial_norm", "--dataset", "mnist_r", "--seeds", "0-2")
    words += ("--batch-size", 16)
    words += ("--steps", 170, "--optim.clip", 1, "--log.grad-norm", "--log.every", "9 steps", "--data.rotate", 10)
    words += ("--eval.every", "60 steps", *QUIET, "--limit-train", 40, "--limit-test", 100)
    replayed = train_with(COUNTS, *words, runs=tmp_path / "replayed")
    assert replayed.returncode == 0, replayed.stderr
    assert "compared 16 True" in replayed.stdout
    assert "compared 8 True" in replayed.stdout
    assert train(*words, "--train.no-cuda-graph", runs=tmp_path / "plain").returncode == 0
    ours, theirs = only_run(tmp_path / "replayed"), only_run(tmp_path / "plain")
    assert ours.metrics_without_clock() == theirs.metrics_without_clock()
    for seed in range(3):
        assert ours.results()[seed]["weights_sha256"] == theirs.results()[seed]["weights_sha256"]


@pytest.mark.slow
def test_networks_of_plugins_are_called_at_every_step(tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text(COUNTING)
    words = ("--plugin", "counting", "--arch", "counts", "--batch-size", 32, "--steps", 60)
    words += (*QUIET, "--limit-train", 320, "--limit-test", 50)
    done = train(*words, runs=tmp_path / "runs", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "forward pass 60 of training" in done.stdout
