"""Max-pooling of 2x2 squares on a CPU, with places of one byte and a backward pass that writes once.

B batch, D channel, H x W map.
"""

from typing import Any

import torch
from torch import Tensor

from stn.models.kernels.compiled import VECTOR, call, usable

_LAST = torch.channels_last


def has_kernel(x: Tensor, k: int) -> bool:
    fits = k == 2 and x.dim() == 4 and x.numel() > 0 and min(x.shape[2:]) > 1 and x.shape[1] % VECTOR == 0
    return fits and x.is_contiguous(memory_format=_LAST) and x.dtype == torch.float32 and usable()


@torch.library.custom_op("stn::max_pool_last", mutates_args=())
def _max_pool(x_BDHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maps, and the places of their pixels in the squares of 2x2."""
    B, D, H, W = x_BDHW.shape
    out = torch.empty(B, D, H // 2, W // 2, memory_format=_LAST)
    place = torch.empty_like(out, dtype=torch.int8)
    call("max_pool", x_BDHW, out, place, B, H, W, D)
    return out, place


@torch.library.custom_op("stn::max_pool_last_gradient", mutates_args=())
def _max_pool_gradient(grad_BDhw: Tensor, place_BDhw: Tensor, H: int, W: int) -> Tensor:
    B, D = grad_BDhw.shape[:2]
    out = torch.empty(B, D, H, W, memory_format=_LAST)
    call("max_pool_gradient", grad_BDhw.contiguous(memory_format=_LAST), place_BDhw, out, B, H, W, D)
    return out


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.size = inputs[0].shape[2:]
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, _: Any) -> Tensor | None:
    return None if grad is None else _max_pool_gradient(grad, *ctx.saved_tensors, *ctx.size)


def _keep_place(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _take(ctx: Any, grad_BDHW: Tensor) -> tuple[Tensor | None, ...]:
    """Return the pixels at the places: the derivative of the gradient."""
    place, W = ctx.saved_tensors[0].long(), grad_BDHW.shape[3]
    y, x = (torch.arange(n) * 2 for n in place.shape[2:])
    index = (y[:, None] + place // 2) * W + x + place % 2
    return grad_BDHW.flatten(2).gather(2, index.flatten(2)).view(place.shape), None, None, None


_max_pool.register_autograd(_differentiate, setup_context=_keep)
_max_pool_gradient.register_autograd(_take, setup_context=_keep_place)
_max_pool.register_fake(
    lambda x: tuple(x.new_empty(*x.shape[:2], *(n // 2 for n in x.shape[2:]), dtype=t) for t in (x.dtype, torch.int8))
)
_max_pool_gradient.register_fake(lambda grad, place, H, W: grad.new_empty(*grad.shape[:2], H, W))


def max_pool(x_BDHW: Tensor) -> Tensor:
    """Return the largest pixel of each square of 2x2; what is left over at the edges is left out."""
    return _max_pool(x_BDHW)[0]
