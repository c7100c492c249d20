"""A convolution and the max-pool that follows it, differentiated as one on a CPU.

Of each square of four pixels one has a gradient, so that a quarter of the products is left, and the gradient of the
pool's input, mostly zeros, is never written. What a result was convolved from is noted until it is freed; nothing of it
changes, so that other layers between the two, or beside the pool, get what they would. Whoever wants the gradient of
the maps says so before they are pooled. B batch, O filters, H, W.
"""

import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import TensorWeakRef, WeakTensorKeyDictionary

from stn.models.kernels import cpu_convolution, cpu_pooled, cpu_pooling
from stn.multiseed.rules.gradients import image_gradient
from stn.multiseed.rules.order import in_other_hands
from stn.multiseed.ways import Pair, pair


class _Made(NamedTuple):
    """What maps were convolved from, and how all were then; the graph keeps alive what is referred to weakly."""

    x: TensorWeakRef
    weight: TensorWeakRef
    bias: Tensor | None
    padding: Pair
    groups: int
    versions: tuple[int, ...]
    node: Any
    """Of the graph, in which it stands for the maps."""


_MADE = WeakTensorKeyDictionary()
_VIEWS = "ViewBackward0", "TransposeBackward0", "TransposeBackward0", "ViewBackward0"
"""From the maps of several seeds to the convolution's result."""


def remember(maps: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, how: tuple, groups: int) -> None:
    """Note what maps were convolved from, if a pool can make use of it; how: stride, padding, dilation."""
    if not (weight.requires_grad and x.device.type == "cpu" and x.dim() == 4) or maps.grad_fn is None:
        return
    stride, padding, dilation = how
    if isinstance(padding, str) or pair(stride) != (1, 1) or pair(dilation) != (1, 1):
        return
    if weight.shape[1] == 1 and len(weight) < 4 * groups:  # depthwise: oneDNN's image gradient takes a quarter
        return
    if cpu_pooled.has_kernel(maps, x, weight, groups, pair(padding)):
        versions = maps._version, x._version, weight._version
        inputs = TensorWeakRef(x), TensorWeakRef(weight), bias
        _MADE[maps] = _Made(*inputs, pair(padding), groups, versions, maps.grad_fn)


def pool(maps: Tensor) -> Tensor | None:
    """Return max-pooled maps, in squares of 2x2, if they are a convolution's and all is as it left it."""
    result = maps if maps._base is None else maps._base  # of several seeds maps are views
    made = _MADE.get(result)
    if made is None or maps.shape != result.shape or maps.stride() != result.stride():
        return None
    x, weight = made.x(), made.weight()
    if x is None or weight is None or in_other_hands(x, weight):
        return None
    changed = (maps._version, x._version, weight._version) != made.versions
    if changed or _is_watched(maps) or _is_watched(result) or not _passes_gradients(maps, made.node):
        return None
    return _Pool.apply(maps.detach(), x, weight, made.bias, made.padding, made.groups, weakref.ref(result))


def _is_watched(maps: Tensor) -> bool:
    return maps.retains_grad or bool(maps._backward_hooks)


def _passes_gradients(maps: Tensor, to: Any) -> bool:
    """Whether nothing but our own views is between maps and a node of the graph."""
    node, names = maps.grad_fn, []
    while node is not None and node != to and len(names) < len(_VIEWS):
        names.append(node.name().replace("ReshapeAlias", "View"))  # which a step that is recorded has instead
        node = node.next_functions[0][0]
    return node is not None and node == to and tuple(names) in ((), _VIEWS)


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, maps: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, padding: Pair, groups: int, result: Any
    ) -> Tensor:
        out, place = cpu_pooling.places(maps)
        ctx.save_for_backward(x, weight, place)
        ctx.size, ctx.padding, ctx.groups, ctx.result = maps.shape[2:], padding, groups, result
        return out

    @staticmethod
    def backward(ctx: Any, grad_BOhw: Tensor) -> tuple:  # type: ignore[override]
        (x, weight, place), padding, groups = ctx.saved_tensors, ctx.padding, ctx.groups
        _, needs_x, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        if (result := ctx.result()) is not None and _is_watched(result):
            raise RuntimeError("ask for the gradient of a convolution's result before max_pool2d, not after it")
        if torch.is_grad_enabled():  # the gradient's own gradient is wanted
            grad_BOHW = cpu_pooling.put(grad_BOhw, place, *ctx.size)
            how = [len(weight)], [1, 1], padding, [1, 1], False, [0, 0], groups, [needs_x, needs_weight, needs_bias]
            return None, *torch.ops.aten.convolution_backward(grad_BOHW, x, weight, *how), None, None, None
        grad_x = grad_weight = None
        if needs_weight:
            grad_weight = cpu_pooled.to_filters(x, grad_BOhw, place, *weight.shape[2:], groups, *padding)
        if needs_x and weight.shape[1] == 1:  # has vectors of pixels, which are longer than a row of a filter
            grad_BOHW = cpu_pooling.put(grad_BOhw, place, *ctx.size)
            in_c = padding == (0, 0) and cpu_convolution.lanes() < 16
            in_c = in_c and cpu_convolution.has_kernel(x, weight, None, groups)
            grad_x = image_gradient(grad_BOHW, weight, x.shape, padding, groups, in_c)
        elif needs_x:
            grad_x = cpu_pooled.to_image(grad_BOhw, place, weight, *x.shape[2:], groups, *padding)
        return None, grad_x, grad_weight, grad_BOhw.sum((0, 2, 3)) if needs_bias else None, None, None, None
