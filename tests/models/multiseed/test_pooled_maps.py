"""A convolution's maps that are pooled: what is changed, watched, saved or differentiated twice is as without it."""

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stn.models.kernels import compiled, cpu_convolution
from stn.multiseed.model import StackedModel
from stn.multiseed.rules.layers import _convolve, _pooled
from tests.support.near import are_equal

WHY_NOT = compiled.missing() or ("" if cpu_convolution.lanes() else "the CPU has no AVX2")
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
LAST = torch.channels_last


def tensors() -> tuple[Tensor, Tensor]:
    images, filters = (torch.randn(shape).contiguous(memory_format=LAST) for shape in ((2, 16, 9, 9), (8, 16, 3, 3)))
    return images.requires_grad_(), filters.requires_grad_()


def pool(maps: Tensor) -> Tensor:
    pooled = _pooled(maps, 2)
    assert pooled is not None
    return pooled


def joined(maps: Tensor) -> Tensor:
    pooled = pool(maps)
    assert "_PoolBackward" in str(pooled.grad_fn), "the convolution and its pool are two"
    return pooled


@pytest.mark.parametrize(("groups", "padding"), [(1, 0), (2, 1)])
def test_the_gradient_has_a_gradient(groups: int, padding: int) -> None:
    images, filters = tensors()

    def penalty(result: Tensor, images: Tensor, filters: Tensor) -> tuple[Tensor, ...]:
        (slope,) = torch.autograd.grad(result.square().sum(), images, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), [images, filters])

    x, weight = images, filters[:, : 16 // groups].contiguous(memory_format=LAST)
    found = penalty(joined(_convolve(x, weight, None, 1, padding, 1, groups)), x, weight)
    x, weight = x.double(), weight.double()
    are_equal(found, penalty(F.max_pool2d(F.conv2d(x, weight, None, 1, padding, 1, groups), 2), x, weight))


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
    result = joined(maps)
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
    found = torch.autograd.grad(joined(_convolve(x, weight, padding=padding)).sum(), [x, weight])
    are_equal(found, torch.autograd.grad(F.max_pool2d(F.conv2d(x, weight, None, 1, padding), 2).sum(), [x, weight]))


def test_what_is_saved_for_the_backward_pass_may_come_back_in_another_order_of_memory() -> None:
    images, filters = tensors()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x.contiguous(), lambda x: x):
        result = joined(_convolve(images, filters))
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
