"""The check before training: which networks cannot run as one, and what is no fault."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stn.multiseed import stacked
from stn.multiseed.checks.equivalence import check_equivalence
from stn.multiseed.model import StackedModel
from tests.support.one_operation import Op, compare, modified, stack_alone


def test_seeds_that_cannot_run_as_one_are_found_and_the_operation_is_named() -> None:
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):  # type: ignore[override]
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, grad):  # type: ignore[override]
            return 3 * ctx.saved_tensors[0] ** 2 * grad

    found = check_equivalence(lambda: Op(lambda y, w: y * len(y.clamp(0).nonzero())), (4, 5, 5))
    assert str(found.fault).startswith("RuntimeError: nonzero cannot run for several seeds at once: vmap")
    for draw in (
        lambda y: y * torch.rand_like(y),
        lambda y: y + torch.rand(5),
        lambda y: y + y.new_empty(y.shape).bernoulli_(),
    ):
        found = check_equivalence(lambda draw=draw: Op(lambda y, w: draw(y)), (4, 5, 5))
        assert str(found.fault).endswith("draws from torch's generator, which seeds would share")
    found = check_equivalence(lambda: Op(lambda y, w: y * float(y.detach().sum())), (4, 5, 5))
    assert found.fault == "TypeError: __float__ reads a value of a tensor, which differs between seeds"
    assert check_equivalence(lambda: Op(lambda y, w: Cube.apply(y)), (4, 5, 5)).fault  # type: ignore[arg-type]
    assert check_equivalence(lambda: Op(lambda y, w: y if y.sum() > w.sum() else -y), (4, 5, 5)).fault
    calls = iter(range(100))
    found = check_equivalence(lambda: Op(lambda y, w: y * next(calls)), (4, 5, 5))
    assert found.fault == "together they do not compute what each computes alone"
    shared = torch.zeros(3, 100, dtype=torch.float64)
    found = check_equivalence(lambda: Op(lambda y, w: modified(shared, lambda z: z.add_(y.flatten(1)))), (4, 5, 5))
    assert found.fault == "TypeError: add_ would change a tensor that all seeds share"
    assert check_equivalence(
        lambda: Op(lambda y, w: F.conv2d(y, torch.ones(4, 4, 1, 1))), (4, 5, 5)
    ).fault  # not in float64
    assert not check_equivalence(lambda: Op(lambda y, w: y), (4, 5, 5)).fault


class Eval(nn.Module):
    """A network that does something else in evaluation."""

    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.act, self.last = act, nn.Linear(100, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(x.flatten(1))
        return y if self.training else self.act(y)


def test_the_check_looks_at_evaluation_and_at_buffers_too() -> None:
    assert not check_equivalence(lambda: Eval(lambda y: F.dropout(y, training=True)), (4, 5, 5)).fault
    assert check_equivalence(lambda: Eval(lambda y: y if y.mean() > 0 else -y), (4, 5, 5)).fault
    found = check_equivalence(
        lambda: Eval(lambda y: modified(torch.zeros(3, 4).double(), lambda z: z.add_(y))), (4, 5, 5)
    )
    assert found.fault == "TypeError: add_ would change a tensor that all seeds share"

    class Codebook(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(100, 4)
            self.mean: Tensor
            self.register_buffer("mean", torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            y = self.last(x.flatten(1))
            if self.training:
                self.mean.data.mul_(0.9).add_(y.detach().mean(0))
            return y

    assert not check_equivalence(Codebook, (4, 5, 5)).fault
    model = StackedModel(Codebook, [0, 1])
    model(torch.ones(2, 3, 4, 5, 5), 0, torch.arange(3))
    assert model.statistics["mean"].abs().min() > 0


@pytest.mark.parametrize("by_rule", [True, False])
def test_memory_that_runs_out_is_not_taken_for_an_operation_without_a_rule(by_rule: bool, monkeypatch) -> None:
    def too_much(*_: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    operation = torch.relu if by_rule else torch.erfinv
    if by_rule:
        monkeypatch.setitem(stacked.RULES, operation, too_much)
    else:
        monkeypatch.setattr(stacked, "_vmapped", too_much)
    with pytest.raises(torch.OutOfMemoryError):
        compare(lambda y, w: operation(y * w.view(4, 1, 1)))


def test_what_a_device_refuses_does_not_fall_through_to_a_slower_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Tensor:
        raise RuntimeError("Expected canUse32BitIndexMath(input) && canUse32BitIndexMath(output) to be true")

    monkeypatch.setitem(stacked.RULES, torch.relu, refuse)
    with pytest.raises(RuntimeError, match=r"^Expected canUse32BitIndexMath"):
        compare(lambda y, w: torch.relu(y * w.view(4, 1, 1)))


def test_a_gradient_that_should_be_zero_is_no_fault() -> None:
    def normed() -> nn.Module:
        return nn.Sequential(nn.Conv2d(4, 6, 3), nn.GroupNorm(6, 6), nn.Flatten(), nn.Linear(54, 3))

    found = check_equivalence(normed, (4, 5, 5))
    assert (found.fault, found.slow) == (None, set())


def test_buffers_that_are_assigned_to_are_kept() -> None:
    class Count(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(3))
            self.register_buffer("mean", torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            self.mean = 0.5 * self.mean + 0.5 * (x * self.w).mean(0).detach()
            return x * self.w + self.mean

    together, alone = StackedModel(Count, [0, 1]), StackedModel(Count, [0, 1])
    x = torch.randn(2, 5, 3)
    for step in range(2):
        a = together(x, step, torch.arange(5))
        b = stack_alone(alone, x, step, torch.arange(5))
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(together.statistics["mean"], alone.statistics["mean"])
    assert together.statistics["mean"].abs().sum() > 0


# ---- networks
