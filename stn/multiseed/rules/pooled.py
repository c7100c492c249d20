"""A convolution and the max-pool that follows it, differentiated as one on a CPU.

Of each square of four pixels one has a gradient, so that a quarter of the products is left, and the gradient of the
pool's input, mostly zeros, is never written. The result of a convolution knows what it was made of; nothing else of it
changes, so that other layers between the two, or beside the pool, get what they would. B batch, O filters, H, W.
"""

from typing import Any

import torch
from torch import Tensor

from stn.models.kernels import cpu_pooled, cpu_pooling
from stn.models.kernels.cpu_convolution import lanes
from stn.multiseed.rules.gradients import image_gradient
from stn.multiseed.rules.order import in_other_hands


def remember(maps: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> None:
    """Note what maps were convolved from, without padding, stride and dilation, if the pool can make use of it."""
    if weight.requires_grad and maps.grad_fn is not None and cpu_pooled.has_kernel(maps, x, weight, groups):
        maps.convolved = (x, weight, bias, groups), maps._version  # type: ignore[attr-defined]


def pool(maps: Tensor) -> Tensor | None:
    """Return max-pooled maps, in squares of 2x2, if they are a convolution's and as it left them."""
    made = maps if maps._base is None else maps._base  # of several seeds these are views
    given, version = getattr(made, "convolved", (None, 0))
    if given is None or maps._version != version or in_other_hands(*given[:2]):
        return None
    if maps.shape != made.shape or maps.stride() != made.stride() or not _passes_gradients(maps, made):
        return None
    return _Pool.apply(maps.detach(), *given)


_VIEWS = "ViewBackward0", "ReshapeAliasBackward0", "TransposeBackward0"


def _passes_gradients(maps: Tensor, made: Tensor) -> bool:
    """Whether the gradient of a view is that of what it was made from, and no hook wants to see it."""
    node = maps.grad_fn
    while node is not None and node != made.grad_fn and node.name() in _VIEWS:
        node = node.next_functions[0][0]
    watched = any(x.retains_grad or x._backward_hooks for x in (maps, made))
    return node is not None and node == made.grad_fn and not watched


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        out, place = cpu_pooling.places(maps)
        ctx.save_for_backward(x, weight, place)
        ctx.size, ctx.groups, ctx.has_bias = maps.shape[2:], groups, bias is not None
        return out

    @staticmethod
    def backward(ctx: Any, grad_BOhw: Tensor) -> tuple:  # type: ignore[override]
        (x, weight, place), groups = ctx.saved_tensors, ctx.groups
        _, needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        if torch.is_grad_enabled():  # the gradient's own gradient is wanted
            grad_BOHW = cpu_pooling.put(grad_BOhw, place, *ctx.size)
            how = [len(weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], groups, [needs_x, needs_weight, needs_bias]
            return None, *torch.ops.aten.convolution_backward(grad_BOHW, x, weight, *how), None
        grad_x = grad_weight = None
        if needs_weight:
            grad_weight = cpu_pooled.to_filters(x, grad_BOhw, place, *weight.shape[2:], groups)
        if needs_x and weight.shape[1] == 1:  # has vectors of pixels, which are longer than a row of a filter
            grad_BOHW = cpu_pooling.put(grad_BOhw, place, *ctx.size)
            grad_x = image_gradient(grad_BOHW, weight, x.shape, (0, 0), groups, lanes() < 16)
        elif needs_x:
            grad_x = cpu_pooled.to_image(grad_BOhw, place, weight, *x.shape[2:], groups)
        return None, grad_x, grad_weight, grad_BOhw.sum((0, 2, 3)) if needs_bias else None, None
