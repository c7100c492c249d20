"""A convolution and its max-pool are differentiated as one on a CPU, but only where nobody could tell."""

import gc
import weakref
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stn.models.kernels import compiled, cpu_convolution
from stn.multiseed.model import StackedModel
from stn.multiseed.rules.layers import _convolve, _pooled

WHY_NOT = compiled.missing() or ("" if cpu_convolution.lanes() else "the CPU has no AVX2")
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
LAST = torch.channels_last


def are_equal(found: Sequence[Tensor], exact: Sequence[Tensor]) -> None:
    for ours, theirs in zip(found, exact, strict=True):
        assert float((ours - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())


class Between(nn.Module):
    """A convolution, something, and a pool."""

    def __init__(self, between: Callable[[Tensor], Tensor], padding: int | str = 0, stride: int | None = None) -> None:
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
        (lambda: Between(lambda maps: maps, padding=1), True),
        (lambda: Between(lambda maps: maps, padding=3), False),
        (lambda: Between(lambda maps: maps, padding="same"), False),
        (lambda: Between(lambda maps: maps, stride=1), False),
    ],
    ids=[
        "nothing",
        "relu",
        "in place",
        "a part",
        "turned",
        "without gradient",
        "padding",
        "more padding",
        "same size",
        "squares that overlap",
    ],
)
def test_gradients_are_pytorchs_whatever_is_between_and_beside(
    make: Callable[[], nn.Module], one: bool, S: int
) -> None:
    """The maps have another use beside the pool, whose gradient counts too."""
    (found, together), (exact, never) = learnt(make, S), learnt(make, S, torch.float64)
    assert (together, never) == (one, False)
    are_equal(found, exact)


@pytest.mark.parametrize("padding", [0, 1])
def test_the_gradient_has_a_gradient(padding: int) -> None:
    def penalty(dtype: torch.dtype) -> tuple[Tensor, ...]:
        layers = partial(nn.Conv2d, 16, 8, 3, padding=padding), partial(nn.MaxPool2d, 2)
        network = StackedModel(lambda: nn.Sequential(*(make() for make in layers)), [0, 1]).to(dtype)
        images = torch.randn(2, 3, 16, 9, 9, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
        result = network(images, 0, torch.arange(3)).square().sum()
        (slope,) = torch.autograd.grad(result, images, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), [images, *network.parameters()])

    are_equal(penalty(torch.float32), penalty(torch.float64))


def test_frozen_filters_have_no_gradient() -> None:
    network = StackedModel(lambda: nn.Sequential(nn.Conv2d(16, 8, 3), nn.MaxPool2d(2), nn.Flatten()), [0, 1])
    filters = next(p for name, p in network.named_parameters() if name.endswith("weight")).requires_grad_(False)
    images = torch.randn(2, 3, 16, 9, 9, requires_grad=True)
    network(images, 0, torch.arange(3)).sum().backward()
    assert images.grad is not None
    assert filters.grad is None


def tensors() -> tuple[Tensor, Tensor]:
    images, filters = (torch.randn(shape).contiguous(memory_format=LAST) for shape in ((2, 16, 9, 9), (8, 16, 3, 3)))
    return images.requires_grad_(), filters.requires_grad_()


def pool(maps: Tensor) -> Tensor:
    pooled = _pooled(maps, 2)
    assert pooled is not None
    return pooled


@pytest.mark.parametrize("changed", ["images", "filters"])
@pytest.mark.parametrize("when", ["before the pool", "after it"])
def test_what_is_changed_in_place_is_noticed(changed: str, when: str) -> None:
    images, filters = tensors()
    x, weight = images * 1, filters * 1
    maps = _convolve(x, weight)
    result = pool(maps) if when == "after it" else None
    (x if changed == "images" else weight).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (pool(maps) if result is None else result).sum().backward()


def test_a_hook_on_a_view_is_called_and_one_that_comes_too_late_is_refused() -> None:
    seen: list[Tensor] = []
    view = _convolve(*tensors()).view(2, 8, 7, 7)
    view.register_hook(seen.append)
    pool(view.view(2, 8, 7, 7)).sum().backward()
    assert len(seen) == 1
    maps = _convolve(*tensors())
    result = pool(maps)
    maps.retain_grad()
    with pytest.raises(RuntimeError, match="before max_pool2d"):
        result.sum().backward()


def test_images_are_kept_no_longer_than_the_graph_keeps_them() -> None:
    images, filters = tensors()
    x = images * 1
    known, maps = weakref.ref(x), _convolve(x, filters)
    result = pool(maps)
    del x
    gc.disable()
    try:
        (result.sum() + maps.sum()).backward()
        assert known() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(("size", "padding"), [((300, 300), 0), ((3640, 36), 0), ((30, 31), 2)], ids=str)
def test_images_of_one_channel_large_ones_too(size: tuple[int, int], padding: int) -> None:
    x, weight = torch.randn(1, 1, *size, requires_grad=True), torch.randn(8, 1, 3, 3, requires_grad=True)
    found = torch.autograd.grad(pool(_convolve(x, weight, padding=padding)).sum(), [x, weight])
    are_equal(found, torch.autograd.grad(F.max_pool2d(F.conv2d(x, weight, None, 1, padding), 2).sum(), [x, weight]))


@pytest.mark.parametrize("S", [1, 2])
def test_one_image_without_a_batch(S: int) -> None:
    class OneByOne(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(16, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([F.max_pool2d(self.conv(image), 2).flatten() for image in x])

    assert learnt(OneByOne, S)[0]


def test_what_is_saved_for_the_backward_pass_may_come_back_in_another_order_of_memory() -> None:
    images, filters = tensors()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x.contiguous(), lambda x: x):
        result = pool(_convolve(images, filters))
    found = torch.autograd.grad(result.sum(), [images, filters])
    are_equal(found, torch.autograd.grad(F.max_pool2d(F.conv2d(images, filters), 2).sum(), [images, filters]))


@pytest.mark.parametrize("watch", ["tensor", "module", "kept"])
def test_who_watches_the_maps_sees_their_gradient(watch: str) -> None:
    seen: list[Tensor] = []
    images, filters = tensors()
    if watch == "module":
        network = nn.Sequential(nn.Conv2d(16, 8, 3), nn.MaxPool2d(2), nn.Flatten())
        network[0].register_full_backward_hook(lambda module, given, grads: seen.append(grads[0]))
        StackedModel(lambda: network, [0])(images[None], 0, torch.arange(2)).sum().backward()
    else:
        maps = _convolve(images, filters)
        maps.retain_grad() if watch == "kept" else maps.register_hook(seen.append)
        pool(maps).sum().backward()
        seen += [grad for grad in [maps.grad if watch == "kept" else None] if grad is not None]
    assert torch.equal(seen[0].count_nonzero((2, 3)), torch.full((2, 8), 9))
