"""Networks that are refused because they would compute something else here than by themselves, and others."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stn.data.rng import initialised
from stn.multiseed.checks.as_written import runs_as_written
from stn.multiseed.checks.equivalence import check_equivalence
from stn.multiseed.model import StackedModel

SHAPE = (2, 6, 6)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(2, 4, 3), nn.Linear(64, 5)
        self.more()

    def more(self) -> None:
        pass

    def middle(self, x: Tensor) -> Tensor:
        return x.relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.middle(self.conv(x)).flatten(1))


class Hooked(Plain):
    def more(self) -> None:
        self.out.weight.register_hook(lambda grad: grad * 0.1)


class InAList(Plain):
    def more(self) -> None:
        self.scales = []
        self.scales.append(nn.Parameter(torch.randn(4, 1, 1)))
        self.register_parameter("scale", self.scales[0])

    def middle(self, x: Tensor) -> Tensor:
        return x * self.scales[0]


class Assigned(Plain):
    def middle(self, x: Tensor) -> Tensor:
        self.out.weight.data = torch.renorm(self.out.weight.data, 2, 0, 0.3)
        return x


class BesideDropout(Hooked):
    def middle(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.3, self.training)


class BesideBuffers(Hooked):
    def more(self) -> None:
        super().more()
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("never", torch.tensor([float("-inf"), -1e9]))


class Teacher(Plain):
    def more(self) -> None:
        self.teacher = nn.Conv2d(2, 4, 3).requires_grad_(False)
        self.teacher.load_state_dict(self.conv.state_dict())

    def middle(self, x: Tensor) -> Tensor:
        for k, q in zip(self.teacher.parameters(), self.conv.parameters(), strict=True):
            k.data = k.data * 0.9 + q.data * 0.1
        return x


class SmallAndPositive(Plain):
    def more(self) -> None:
        self.width = nn.Parameter(torch.tensor(1e-3))

    def middle(self, x: Tensor) -> Tensor:
        return x * self.width.sqrt() + self.width.log()


class OwnPrecision(Plain):
    def middle(self, x: Tensor) -> Tensor:
        return F.conv2d(x.bfloat16(), torch.ones(4, 4, 1, 1).bfloat16()).to(x)


class UnderTwoNames(Plain):
    def more(self) -> None:
        act = nn.PReLU()
        self.both = nn.Sequential(self.conv, act, nn.Conv2d(4, 4, 1), act)

    def middle(self, x: Tensor) -> Tensor:
        return self.both[3](self.both[2](self.both[1](x)))


class FrozenInTraining(Plain):
    def train(self, mode: bool = True) -> "FrozenInTraining":
        super().train(mode)
        self.conv.requires_grad_(False)
        return self


class Converted(Plain):
    def middle(self, x: Tensor) -> Tensor:
        scale, shift = torch.from_numpy(np.array([1.0, 2.0, 3.0, 4.0])), torch.ones(4, 4, dtype=torch.long)
        return x * scale.to(x) + shift.type_as(x)[1]


class WithFunctorch(Plain):
    def more(self) -> None:
        self.each, self.norm = nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4)

    def middle(self, x: Tensor) -> Tensor:
        return torch.vmap(lambda row: self.norm(self.each(row.unsqueeze(0))).squeeze(0))(x)


@pytest.mark.parametrize("network", [Hooked, InAList, Assigned, BesideDropout, BesideBuffers, Teacher])
def test_what_would_be_lost_is_found(network: Callable[[], nn.Module]) -> None:
    assert not runs_as_written(network, SHAPE)


@pytest.mark.parametrize("draw", [np.random.rand, random.random, lambda: float(torch.rand(()))])
def test_networks_that_draw_are_not_refused(draw: Callable[[], float]) -> None:
    class Drawing(Plain):
        def middle(self, x: Tensor) -> Tensor:
            return x if draw() < 0.2 else x * draw()

    assert all(runs_as_written(Drawing, SHAPE) for _ in range(10))
    assert runs_as_written(OwnPrecision, SHAPE)


@pytest.mark.parametrize(
    "network", [Plain, UnderTwoNames, FrozenInTraining, Converted, WithFunctorch, SmallAndPositive]
)
@pytest.mark.parametrize("S", [1, 4])
def test_it_trains_as_by_itself(network: Callable[[], nn.Module], S: int) -> None:
    assert runs_as_written(network, SHAPE)
    alone = network is WithFunctorch
    assert bool(check_equivalence(network, SHAPE).fault) == alone
    S = 1 if alone else S
    model, x = StackedModel(network, list(range(S))).train(), torch.randn(4, 4, *SHAPE)[:S]
    model(x, 0, torch.arange(4)).square().sum().backward()
    assert set(network().state_dict()) == set(model.weights(0))
    for s in range(S):
        itself = initialised(network, s).train()
        itself(x[s]).square().sum().backward()
        for name, p in itself.named_parameters():
            ours = model.stacked[name].grad
            assert (ours is None) == (p.grad is None), name
            if ours is not None and p.grad is not None:
                torch.testing.assert_close(ours[s], p.grad, rtol=1e-3, atol=1e-4, msg=f"{name} of seed {s}")


def test_gradients_behind_zeros_are_seen() -> None:
    class Half(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):  # type: ignore[override]
            return x * 1

        @staticmethod
        def backward(ctx, grad):  # type: ignore[override]
            return grad / 2

    class BehindZeros(Plain):
        def more(self) -> None:
            self.last = nn.Linear(64, 64)
            nn.init.zeros_(self.last.weight)

        def middle(self, x: Tensor) -> Tensor:
            return x.flatten(1) + self.last(Half.apply(x.flatten(1)))  # type: ignore[arg-type]

    assert check_equivalence(BehindZeros, SHAPE).fault == "together they do not compute what each computes alone"
    assert check_equivalence(Plain, SHAPE).fault is None


def test_parameters_that_are_no_real_numbers_are_refused() -> None:
    class Complex(Plain):
        def more(self) -> None:
            self.filters = nn.Parameter(torch.randn(4, 4, dtype=torch.cfloat))

    with pytest.raises(ValueError, match=r"parameter filters is torch\.complex64; only real floating-point ones"):
        runs_as_written(Complex, SHAPE)
