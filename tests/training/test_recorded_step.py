"""A step on a CPU, recorded and replayed: the same bits, or the step itself."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from stn.training.replay.recorded_step import RecordedStep


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
                assert p.grad is not None
                p -= 0.1 * p.grad
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
    _, said = _train(training)
    assert all(map(torch.equal, training.state(), plain.state()))
    assert len(said) == 1


def test_a_loss_that_is_not_finite_is_replayed_too() -> None:
    training, plain = Training(lambda loss: loss / 0), _plain(Training(lambda loss: loss / 0))
    _, said = _train(training)
    assert (said, training.calls) == ([], 4)
    for ours, theirs in zip(training.state(), plain.state(), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=0, equal_nan=True)
