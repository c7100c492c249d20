"""Networks whose result would depend on how they are run: compiled, in parts, over ranks, by the test batch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from stn.multiseed.checks.as_written import traces_as_it_runs
from stn.multiseed.checks.one_result import DRAWS, depends_on_batch

SHAPE = (1, 28, 28)


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (4 * x).round() / 4

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return grad


class Net(nn.Module):
    """A network with ``middle`` between its layers."""

    mean: Tensor
    passes: int = 0
    penalised: bool = False
    size: int = 0
    seconds: float = 0.0

    def __init__(self, middle: Callable[["Net", Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.last, self.middle = nn.Conv2d(1, 4, 5, 4), nn.Linear(144, 10), middle
        self.bias, self.filters = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.randn(4, 4, 1, 1))
        self.register_buffer("mean", torch.zeros(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        maps = self.middle(self, self.conv(x))
        logits = self.last(maps.flatten(1))
        return (logits, maps.square().mean()) if self.penalised else logits


def counted(net: Net, x: Tensor) -> Tensor:
    net.passes += 1
    return x if net.passes < 1000 else 0 * x


def no_grad(net: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        scale = x.square().mean((1, 2, 3), keepdim=True)
    return x / (scale + 1)


def hooked(net: Net, x: Tensor) -> Tensor:
    x = x * 1
    if x.requires_grad:
        x.register_hook(lambda grad: 2 * grad)
    return x


def running_mean(net: Net, x: Tensor) -> Tensor:
    if net.training:
        net.mean.lerp_(x.detach().mean((0, 2, 3)).view(4, 1, 1), 0.1)
    return x - net.mean


def normalised(net: Net, x: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, training=True)


def dropped(net: Net, x: Tensor) -> Tensor:
    return F.dropout2d(x, 0.4, net.training).relu()


def normalised_if_trained(net: Net, x: Tensor) -> Tensor:
    return F.batch_norm(x, net.mean.flatten(), net.mean.flatten() + 1, training=net.training)


def tallied(net: Net, x: Tensor) -> Tensor:
    net.mean.add_(1)
    return x * (net.mean > 1000)


def noisy(net: Net, x: Tensor) -> Tensor:
    return x + torch.randn_like(x) if net.training else x


def inverted(net: Net, x: Tensor) -> Tensor:
    """Norm, 1x1 convolution, norm: the gradient of the first one's bias is rounding."""
    return F.batch_norm(F.conv2d(x + net.bias.view(-1, 1, 1), net.filters), None, None, training=True)


def with_penalty(net: Net, x: Tensor) -> Tensor:
    net.penalised = True
    return x


def build(middle: Callable[[Net, Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: Net(middle)


@pytest.mark.parametrize("middle", [dropped, normalised_if_trained, inverted, with_penalty, lambda n, x: x.relu_()])
def test_what_tracing_keeps(middle: Callable[[Net, Tensor], Tensor]) -> None:
    assert traces_as_it_runs(build(middle), SHAPE)


@pytest.mark.parametrize(
    "middle", [no_grad, hooked, running_mean, lambda n, x: x + (x.round() - x).detach(), lambda n, x: Rounded.apply(x)]
)
def test_what_tracing_loses(middle: Callable[[Net, Tensor], Tensor]) -> None:
    assert not traces_as_it_runs(build(middle), SHAPE)


Case = tuple[bool, int]
EVALUATION, SHARED, IN_PARTS = (False, 2), (True, 1), (True, 2)
"""What differs: the batches of an evaluation, a part of one in training, or two parts one after the other."""
LOGITS = "gives an image other logits"


@pytest.mark.parametrize("case", [EVALUATION, SHARED, IN_PARTS], ids=["evaluation", "shared", "parts"])
@pytest.mark.parametrize(
    ("middle", "fault"),
    [
        (lambda n, x: x - x.mean(0), LOGITS),
        (lambda n, x: x / len(x), LOGITS),
        (lambda n, x: x + x.flip(0), LOGITS),
        (lambda n, x: x + x[torch.randperm(len(x))], DRAWS),
        (lambda n, x: x * torch.rand(1), DRAWS),
        (lambda n, x: x + torch.randn_like(x), DRAWS),
        (dropped, ""),
        (lambda n, x: F.dropout(x, 0.4), ""),
        (lambda n, x: F.instance_norm(x), ""),
        (with_penalty, ""),
    ],
    ids=["mean", "len", "flip", "permutation", "one draw", "noise", "dropout", "dropout always", "norm", "penalty"],
)
def test_what_depends_on_the_batch(case: Case, middle: Callable[[Net, Tensor], Tensor], fault: str) -> None:
    assert depends_on_batch(build(middle), SHAPE, *case) == fault


@pytest.mark.parametrize(
    ("middle", "faults"),
    [
        (running_mean, {SHARED: LOGITS, IN_PARTS: LOGITS}),
        (normalised, {EVALUATION: LOGITS}),
        (normalised_if_trained, {IN_PARTS: "changes its buffer mean otherwise"}),
        (lambda n, x: x - x.mean(0) if n.training else x, {SHARED: LOGITS, IN_PARTS: LOGITS}),
        (tallied, {EVALUATION: "changes its buffer mean otherwise", IN_PARTS: "changes its buffer mean otherwise"}),
    ],
    ids=["running mean", "always normalised", "batch norm", "in training", "every pass counts"],
)
def test_when_it_depends(middle: Callable[[Net, Tensor], Tensor], faults: dict[Case, str]) -> None:
    found = {case: depends_on_batch(build(middle), SHAPE, *case) for case in (EVALUATION, SHARED, IN_PARTS)}
    assert {case: text for case, text in found.items() if text} == faults


def test_a_buffer_that_changes_in_every_pass_would_change_in_every_part() -> None:
    def iterated() -> nn.Module:
        net = Net(lambda n, x: x)
        spectral_norm(net.last)
        return net

    assert not depends_on_batch(iterated, SHAPE, *SHARED)
    assert depends_on_batch(iterated, SHAPE, *IN_PARTS).startswith("changes its buffer last.parametrizations.weight")
