"""Max-pooling of 2x2 squares on a CPU, with places of one byte and a backward pass that writes once.

B batch, D channel, H x W map.
"""

from typing import Any

import torch
from torch import Tensor

from stn.models.kernels.compiled import VECTOR, call, fits

_LAST = torch.channels_last


def has_kernel(x: Tensor, k: int) -> bool:
    squares = k == 2 and x.dim() == 4 and min(x.shape[2:]) > 1 and x.shape[1] % VECTOR == 0
    return squares and x.is_contiguous(memory_format=_LAST) and fits(x)


def _maps(like: Tensor, H: int, W: int, dtype: torch.dtype) -> Tensor:
    size = *like.shape[:2], H, W
    return torch.empty(size, dtype=dtype, device=like.device, memory_format=_LAST)


def _results(x_BDHW: Tensor) -> tuple[Tensor, Tensor]:
    h, w = (n // 2 for n in x_BDHW.shape[2:])
    return _maps(x_BDHW, h, w, x_BDHW.dtype), _maps(x_BDHW, h, w, torch.int8)


@torch.library.custom_op("stn::max_pool_last", mutates_args=(), device_types="cpu")
def _max_pool(x_BDHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maps, and the places of their pixels in the squares of 2x2."""
    B, D, H, W = x_BDHW.shape
    out, place = _results(x_BDHW)
    call("max_pool", x_BDHW, out, place, B, H, W, D)
    return out, place


@torch.library.custom_op("stn::max_pool_last_gradient", mutates_args=(), device_types="cpu")
def _max_pool_gradient(grad_BDhw: Tensor, place_BDhw: Tensor, H: int, W: int) -> Tensor:
    B, D = grad_BDhw.shape[:2]
    out = _maps(grad_BDhw, H, W, grad_BDhw.dtype)
    call("max_pool_gradient", grad_BDhw.contiguous(memory_format=_LAST), place_BDhw, out, B, H, W, D)
    return out


def _save(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.size = inputs[0].shape[2:]
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, _: Any) -> Tensor | None:
    return None if grad is None else _max_pool_gradient(grad, *ctx.saved_tensors, *ctx.size)


def _save_place(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _take(ctx: Any, grad_BDHW: Tensor) -> tuple[Tensor | None, ...]:
    """Return the pixels at the places: the derivative of the gradient."""
    place, W = ctx.saved_tensors[0].long(), grad_BDHW.shape[3]
    y, x = (torch.arange(n) * 2 for n in place.shape[2:])
    index = (y[:, None] + place // 2) * W + x + place % 2
    return grad_BDHW.flatten(2).gather(2, index.flatten(2)).view(place.shape), None, None, None


_max_pool.register_autograd(_differentiate, setup_context=_save)
_max_pool_gradient.register_autograd(_take, setup_context=_save_place)
_max_pool.register_fake(_results)
_max_pool_gradient.register_fake(lambda grad, place, H, W: _maps(grad, H, W, grad.dtype))


def max_pool(x_BDHW: Tensor) -> Tensor:
    """Return the largest pixel of each square of 2x2; what is left over at the edges is left out."""
    return _max_pool(x_BDHW)[0]
