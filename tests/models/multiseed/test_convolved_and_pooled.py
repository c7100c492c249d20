"""A convolution and its max-pool are differentiated as one on a CPU, but only where nobody could tell."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stn.models.kernels import compiled, cpu_convolution
from stn.multiseed.model import StackedModel
from tests.support.near import are_equal

WHY_NOT = compiled.missing() or ("" if cpu_convolution.lanes() else "the CPU has no AVX2")
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)


class Between(nn.Module):
    """A convolution, something, and a pool."""

    def __init__(
        self, between: Callable[[Tensor], Tensor], stride: int | None = None, filters: int = 8, **how: Any
    ) -> None:
        super().__init__()
        self.conv, self.between = nn.Conv2d(16, filters, 3, **how), between
        self.pool = nn.MaxPool2d(2, stride)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x)
        return self.pool(self.between(maps)).relu().flatten(1).sum(1) + maps.square().mean((1, 2, 3))


def learnt(make: Callable[[], nn.Module], S: int, dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], bool]:
    """Return the gradients of images and parameters, and whether convolution and pool were one."""
    network = StackedModel(make, list(range(S))).to(dtype)
    images = torch.randn(S, 3, 16, 9, 9, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        network(images, 0, torch.arange(3)).sum().backward()
    found = [images.grad, *(p.grad for p in network.parameters())]
    return found, "stn::pooled_to_filters" in {event.key for event in profile.key_averages()}  # type: ignore[return-value]


CASES: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "nothing": (lambda: Between(lambda maps: maps), True),
    "relu": (lambda: Between(lambda maps: maps.relu()), False),
    "in place": (lambda: Between(lambda maps: maps.mul_(2)), False),
    "a part": (lambda: Between(lambda maps: maps[:, :, 1:]), False),
    "turned": (lambda: Between(lambda maps: maps.transpose(2, 3)), False),
    "without gradient": (lambda: Between(torch.no_grad()(lambda maps: maps.transpose(2, 3).transpose(2, 3))), False),
    "padding": (lambda: Between(lambda maps: maps, padding=(1,)), True),
    "more padding": (lambda: Between(lambda maps: maps, padding=3), False),
    "same size": (lambda: Between(lambda maps: maps, padding="same"), False),
    "one channel a group": (lambda: Between(lambda maps: maps, filters=32, groups=16), False),
    "squares that overlap": (lambda: Between(lambda maps: maps, stride=1), False),
}


@pytest.mark.parametrize("S", [1, 3])
@pytest.mark.parametrize(("make", "one"), CASES.values(), ids=CASES)
def test_gradients_are_pytorchs_whatever_is_between_and_beside(
    make: Callable[[], nn.Module], one: bool, S: int
) -> None:
    """The maps have another use beside the pool, whose gradient counts too."""
    (found, together), (exact, never) = learnt(make, S), learnt(make, S, torch.float64)
    assert (together, never) == (one, False)
    are_equal(found, exact)


def test_frozen_filters_have_no_gradient() -> None:
    def make() -> nn.Module:
        network = nn.Sequential(nn.Conv2d(16, 8, 3), nn.MaxPool2d(2), nn.Flatten())
        network[0].weight.requires_grad_(False)
        return network

    network = StackedModel(make, [0, 1])
    images = torch.randn(2, 3, 16, 9, 9, requires_grad=True)
    network(images, 0, torch.arange(3)).sum().backward()
    frozen = [name for name, p in network.named_parameters() if p.grad is None]
    assert images.grad is not None
    assert len(frozen) == 1


@pytest.mark.parametrize("S", [1, 2])
def test_one_image_without_a_batch(S: int) -> None:
    class OneByOne(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(16, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([F.max_pool2d(self.conv(image), 2).flatten() for image in x])

    assert learnt(OneByOne, S)[0]
