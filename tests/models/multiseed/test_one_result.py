"""Networks whose result would depend on how they are run: compiled, in parts, over ranks, by the test batch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from stn.commands import network
from stn.config.resolve import resolve
from stn.config.schema import Config
from stn.multiseed.checks.as_written import mixes_images, traces_as_it_runs

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
    size: int = 0

    def __init__(self, middle: Callable[["Net", Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.last, self.middle = nn.Conv2d(1, 4, 5, 4), nn.Linear(144, 10), middle
        self.register_buffer("mean", torch.zeros(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self, self.conv(x)).flatten(1))


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


def build(middle: Callable[[Net, Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: Net(middle)


@pytest.mark.parametrize("middle", [dropped, normalised_if_trained, lambda n, x: F.relu(x, inplace=True)])
def test_what_tracing_keeps(middle: Callable[[Net, Tensor], Tensor]) -> None:
    assert traces_as_it_runs(build(middle), SHAPE)


@pytest.mark.parametrize(
    "middle", [no_grad, hooked, running_mean, lambda n, x: x + (x.round() - x).detach(), lambda n, x: Rounded.apply(x)]
)
def test_what_tracing_loses(middle: Callable[[Net, Tensor], Tensor]) -> None:
    assert not traces_as_it_runs(build(middle), SHAPE)


Case = tuple[bool, int]
EVALUATION, SHARED, IN_PARTS = (False, 1), (True, 1), (True, 2)
"""What differs: the batch in evaluation, a part of it in training, or two parts one after the other."""


@pytest.mark.parametrize("case", [EVALUATION, SHARED, IN_PARTS], ids=["evaluation", "shared", "parts"])
@pytest.mark.parametrize(
    "middle",
    [
        lambda n, x: x - x.mean(0),
        lambda n, x: x / len(x),
        lambda n, x: x + x.flip(0),
        lambda n, x: x + x[torch.randperm(len(x))],
    ],
    ids=["mean", "len", "flip", "permutation"],
)
def test_networks_that_mix_the_images_of_a_batch(case: Case, middle: Callable[[Net, Tensor], Tensor]) -> None:
    assert mixes_images(build(middle), SHAPE, *case)


@pytest.mark.parametrize(
    ("middle", "cases"),
    [
        (dropped, set()),
        (running_mean, {SHARED, IN_PARTS}),
        (normalised, {EVALUATION}),
        (normalised_if_trained, {IN_PARTS}),
        (lambda n, x: x - x.mean(0) if n.training else x, {SHARED, IN_PARTS}),
        (lambda n, x: x * torch.rand(1), {EVALUATION, SHARED, IN_PARTS}),
        (lambda n, x: x + torch.randn_like(x), {EVALUATION, SHARED, IN_PARTS}),
        (lambda n, x: F.dropout(x, 0.4), set()),
        (lambda n, x: F.instance_norm(x), set()),
    ],
    ids=[
        "dropout",
        "running mean",
        "always normalised",
        "batch norm",
        "in training",
        "one draw",
        "noise",
        "dropout always",
        "instance norm",
    ],
)
def test_when_networks_mix_images(middle: Callable[[Net, Tensor], Tensor], cases: set[Case]) -> None:
    found = {case for case in (EVALUATION, SHARED, IN_PARTS) if mixes_images(build(middle), SHAPE, *case)}
    assert found == cases


def test_a_buffer_that_changes_in_every_pass_would_change_in_every_part() -> None:
    def iterated() -> nn.Module:
        net = Net(lambda n, x: x)
        spectral_norm(net.last)
        return net

    assert not mixes_images(iterated, SHAPE, *SHARED)
    assert mixes_images(iterated, SHAPE, *IN_PARTS)


@pytest.mark.parametrize(
    ("middle", "settings", "ranks", "fault"),
    [
        (
            counted,
            {},
            1,
            "counts its passes, draws from another generator than torch's, or keeps what its state_dict does not",
        ),
        (no_grad, {"train": {"compile": True}}, 1, "has other gradients with --train.compile"),
        (normalised, {}, 1, "gives an image other logits in another batch, also in evaluation"),
        (running_mean, {"optim": {"accumulate": 4}}, 1, "computes over its batch, which --optim.accumulate divides"),
        (running_mean, {}, 2, "computes over its batch, which 2 processes share"),
        (running_mean, {}, 1, None),
        (no_grad, {"optim": {"accumulate": 4}}, 2, None),
        (normalised_if_trained, {}, 2, None),
    ],
)
def test_they_are_refused_in_one_line(
    middle: Callable[[Net, Tensor], Tensor],
    settings: dict[str, Any],
    ranks: int,
    fault: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(network, "build_network", lambda config: Net(middle))
    config = resolve(Config.model_validate({"arch": {"name": "cnn"}, **settings}))
    if fault is None:
        assert isinstance(network.try_network(config, ranks), Net)
        return
    with pytest.raises(ValueError, match=f"^cnn {fault}: see extend.md, What to avoid$"):
        network.try_network(config, ranks)
