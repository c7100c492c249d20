"""Max-pooling of squares that do not overlap: its places in one byte each, and a backward pass that writes once.

PyTorch keeps a place in eight bytes, fills the gradient with zeros and then adds to it. As there, the first of equal
pixels wins, and NaN wins over all. H x W map in, h x w map out, k x k square.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from stn.models.kernels.cpu_pooling import at_places
from stn.models.kernels.operators import differentiate, on_any_device

_BLOCK = 512


@triton.jit
def _corner(o, H: tl.constexpr, W: tl.constexpr, k: tl.constexpr):
    """Return where the squares of these pixels of the output begin."""
    h: tl.constexpr = H // k
    w: tl.constexpr = W // k
    return (o // (h * w)).to(tl.int64) * (H * W) + o // w % h * (k * W) + o % w * k


@triton.jit
def _forward(
    x_ptr, out_ptr, place_ptr, n, H: tl.constexpr, W: tl.constexpr, k: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    o = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    first = _corner(o, H, W, k)
    best = tl.load(x_ptr + first, o < n, 0)
    place = tl.full((BLOCK,), 0, tl.int8)
    for i in tl.static_range(1, k * k):  # type: ignore[attr-defined]
        x = tl.load(x_ptr + first + (i // k * W + i % k), o < n, 0)
        larger = (x > best) | (x != x)
        best = tl.where(larger, x, best)
        place = tl.where(larger, i, place).to(tl.int8)
    tl.store(out_ptr + o, best, o < n)
    tl.store(place_ptr + o, place, o < n)


@triton.jit
def _backward(
    grad_ptr, place_ptr, out_ptr, n, H: tl.constexpr, W: tl.constexpr, k: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    o = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    first = _corner(o, H, W, k)
    grad = tl.load(grad_ptr + o, o < n, 0)
    place = tl.load(place_ptr + o, o < n, 0)
    for i in tl.static_range(k * k):  # type: ignore[attr-defined]
        tl.store(out_ptr + first + (i // k * W + i % k), tl.where(place == i, grad, 0), o < n)


def has_kernel(x: Tensor, k: int) -> bool:
    return x.dim() == 4 and x.is_contiguous() and 2 <= k <= min(4, *x.shape[2:]) and 0 < x.numel() < 2**31


def _results(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    out = x.new_empty(*x.shape[:2], x.shape[2] // k, x.shape[3] // k)
    return out, torch.empty_like(out, dtype=torch.int8)


@on_any_device("max_pool", _results)
def _max_pool(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the maps, and the places of their pixels in the squares."""
    out, place = _results(x, k)
    H, W = x.shape[2:]
    run: Any = _forward[(triton.cdiv(out.numel(), _BLOCK),)]
    with torch.cuda.device_of(x):
        run(x, out, place, out.numel(), H, W, k, _BLOCK)
    return out, place


@on_any_device("max_pool_gradient", lambda grad, place, k, H, W: grad.new_empty(*grad.shape[:2], H, W))
def _gradient(grad: Tensor, place: Tensor, k: int, H: int, W: int) -> Tensor:
    make = grad.new_zeros if H % k or W % k else grad.new_empty
    out = make(*grad.shape[:2], H, W)
    run: Any = _backward[(triton.cdiv(grad.numel(), _BLOCK),)]
    with torch.cuda.device_of(grad):
        run(grad.contiguous(), place, out, grad.numel(), H, W, k, _BLOCK)
    return out


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    x, ctx.k = inputs
    ctx.H, ctx.W = x.shape[2:]
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Tensor | None, None]:
    return None if grad is None else _gradient(grad, *ctx.saved_tensors, ctx.k, ctx.H, ctx.W), None


def _keep_place(ctx: Any, inputs: tuple, output: Tensor) -> None:
    _, place, ctx.k, _, _ = inputs
    ctx.save_for_backward(place)


def _take(ctx: Any, grad_BDHW: Tensor) -> tuple[Tensor | None, ...]:
    return at_places(grad_BDHW, ctx.saved_tensors[0], ctx.k), None, None, None, None


differentiate("max_pool", _differentiate, _keep)
differentiate("max_pool_gradient", _take, _keep_place)


def max_pool(x_BDHW: Tensor, k: int) -> Tensor:
    """Return the largest pixel of each square of k x k; what is left over at the edges is left out."""
    return _max_pool(x_BDHW, k)[0]
