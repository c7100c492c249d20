"""A convolution and its max-pool differentiated as one on a CPU: exact, for any threads, and only where it may be."""

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stn.models.kernels import compiled, cpu_convolution, cpu_pooled, cpu_pooling
from stn.multiseed.model import StackedModel

WHY_NOT = compiled.missing() or ("" if cpu_convolution.lanes() else "the CPU has no AVX2")
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
LAST = torch.channels_last
SHAPES = [
    (5, 3, 16, 32, (7, 7), (10, 10)),
    (33, 4, 1, 10, (9, 9), (28, 28)),
    (3, 2, 10, 20, (5, 5), (12, 13)),
    (2, 1, 3, 64, (7, 7), (32, 32)),
    (17, 1, 64, 24, (5, 3), (6, 9)),
    (2, 8, 2, 1, (1, 11), (4, 15)),
    (1, 1, 1, 8, (2, 2), (3, 3)),
    (2, 4, 5, 18, (3, 17), (30, 40)),
]
"""Images, groups, channels, filters, kernel, map: tiles of all sizes, one vector and several, a row left over."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("vectors", ["of this machine", "of eight"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_are_exact_and_the_same_for_all_threads(
    shape: tuple, vectors: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if vectors == "of eight":
        shares = compiled.library().shares
        built = compiled._load(["cc"], [*compiled._FLAGS, "-mno-avx512f", *["-fopenmp"] * shares])
        monkeypatch.setattr(compiled, "library", lambda: compiled.Library(built, shares=shares))
    B, G, C, O, (k, l), size = shape
    x, weight = torch.randn(B, G * C, *size).contiguous(memory_format=LAST), torch.randn(G * O, C, k, l)
    maps = F.conv2d(x, weight, groups=G).contiguous(memory_format=LAST)
    pooled, place = cpu_pooling.places(maps)
    grad = (torch.randn_like(pooled) * (torch.rand_like(pooled) < 0.7)).contiguous()  # in another order of memory
    assert cpu_pooled.has_kernel(maps, x, weight, G)

    def ours() -> list[Tensor]:
        return [cpu_pooled.to_image(grad, place, weight, *size, G), cpu_pooled.to_filters(x, grad, place, k, l, G)]

    X, Y = x.double().requires_grad_(), weight.double().requires_grad_()
    dense = cpu_pooling.put(grad, place, *maps.shape[2:]).double()
    for own, exact in zip(ours(), torch.autograd.grad(F.conv2d(X, Y, groups=G), [X, Y], dense), strict=True):
        assert own.shape == exact.shape
        assert float((own - exact).abs().max()) <= 3e-6 * float(exact.abs().max())
    found = ours()
    torch.set_num_threads(2)
    assert all(torch.equal(one, two) for one, two in zip(found, ours(), strict=True))


def test_what_has_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.randn(2, 32, 10, 10).contiguous(memory_format=LAST), torch.randn(32, 16, 7, 7)
    maps = F.conv2d(x, weight, groups=2).contiguous(memory_format=LAST)
    assert cpu_pooled.has_kernel(maps, x, weight, 2)
    for other in (maps.contiguous(), maps.bfloat16(), maps[:, :, :3], maps[:, :12]):
        assert not cpu_pooled.has_kernel(other, x, weight, 2)
    for images in (x.contiguous(), x.double(), x[:, :16].contiguous(memory_format=LAST)):
        assert not cpu_pooled.has_kernel(maps, images, weight, 2)
    monkeypatch.setattr(cpu_pooled, "_FLOATS", 10 * 10 * 16 - 1)
    assert not cpu_pooled.has_kernel(maps, x, weight, 2), "a thread's stack"
    monkeypatch.undo()
    monkeypatch.setattr(cpu_pooled, "lanes", lambda: 0)
    assert not cpu_pooled.has_kernel(maps, x, weight, 2), "a CPU on which nothing was measured"


def test_a_gradient_that_is_not_a_number_stays_one() -> None:
    x, weight = torch.randn(2, 8, 6, 6).contiguous(memory_format=LAST), torch.randn(8, 8, 3, 3)
    _, place = cpu_pooling.places(F.conv2d(x, weight).contiguous(memory_format=LAST))
    grad = torch.zeros(2, 8, 2, 2)
    grad[1, 3, 0, 1] = torch.nan
    filters = cpu_pooled.to_filters(x, grad, place, 3, 3, 1)
    assert filters[3].isnan().all()
    assert not filters[[0, 1, 2, 4, 5, 6, 7]].isnan().any()
    images = cpu_pooled.to_image(grad, place, weight, 6, 6, 1)
    assert images[1].isnan().any()
    assert not images[0].isnan().any()


class Between(nn.Module):
    """A convolution, something, and a pool."""

    def __init__(self, between: Callable[[Tensor], Tensor], padding: int = 0, stride: int | None = None) -> None:
        super().__init__()
        self.conv, self.between = nn.Conv2d(16, 8, 3, padding=padding), between
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


@pytest.mark.parametrize("S", [1, 3])
@pytest.mark.parametrize(
    ("make", "one"),
    [
        (lambda: Between(lambda maps: maps), True),
        (lambda: Between(lambda maps: maps.relu()), False),
        (lambda: Between(lambda maps: maps.mul_(2)), False),
        (lambda: Between(lambda maps: maps[:, :, 1:]), False),
        (lambda: Between(lambda maps: maps.transpose(2, 3)), False),
        (lambda: Between(torch.no_grad()(lambda maps: maps.transpose(2, 3).transpose(2, 3))), False),
        (lambda: Between(lambda maps: maps, padding=1), False),
        (lambda: Between(lambda maps: maps, stride=1), False),
    ],
    ids=["nothing", "relu", "in place", "a part", "turned", "without gradient", "padding", "squares that overlap"],
)
def test_gradients_are_pytorchs_whatever_is_between_and_beside(
    make: Callable[[], nn.Module], one: bool, S: int
) -> None:
    """The maps have another use beside the pool, whose gradient counts too."""
    (found, together), (exact, never) = learnt(make, S), learnt(make, S, torch.float64)
    assert (together, never) == (one, False)
    for ours, theirs in zip(found, exact, strict=True):
        assert float((ours - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())


def test_the_gradient_has_a_gradient() -> None:
    def penalty(dtype: torch.dtype) -> tuple[Tensor, ...]:
        network = StackedModel(lambda: nn.Sequential(nn.Conv2d(16, 8, 3), nn.MaxPool2d(2)), [0, 1]).to(dtype)
        images = torch.randn(2, 3, 16, 9, 9, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
        result = network(images, 0, torch.arange(3)).square().sum()
        (slope,) = torch.autograd.grad(result, images, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), [images, *network.parameters()])

    for ours, theirs in zip(penalty(torch.float32), penalty(torch.float64), strict=True):
        assert float((ours - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())


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


@pytest.mark.parametrize("watch", ["tensor", "module", "kept"])
def test_who_watches_the_maps_sees_their_gradient(watch: str) -> None:
    seen: list[Tensor] = []
    conv, pool = nn.Conv2d(16, 8, 3), nn.MaxPool2d(2)
    if watch == "module":
        conv.register_full_backward_hook(lambda module, given, grads: seen.append(grads[0]))

    def watched(x: Tensor) -> Tensor:
        maps = conv(x)
        if watch == "tensor":
            maps.register_hook(seen.append)
        elif watch == "kept":
            maps.retain_grad()
            seen.append(maps)
        return maps

    network = StackedModel(lambda: nn.Sequential(Through(watched, conv), pool, nn.Flatten()), [0])
    network(torch.randn(1, 3, 16, 9, 9, requires_grad=True), 0, torch.arange(3)).sum().backward()
    gradient = seen[0].grad if watch == "kept" else seen[0]
    assert gradient is not None
    assert torch.equal(gradient.count_nonzero((2, 3)), torch.full((3, 8), 9))


class Through(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor], layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.function = layer, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)
