"""Passes of a convolution of groups of few channels: products with patches that are never stored.

A group's filters are a matrix too narrow for cuDNN's grouped kernels to be fast. Here each program multiplies them with
a tile of patches, which it reads from the map itself. Only for steps of one pixel.

float32 is multiplied as three products of TF32 parts (tf32x3), whose error is that of float32.

B batch, G groups, C channels in, M out, O = G * M, k x l kernel, H x W map in, h x w map out. A tile has N filters,
R pixels, and K elements of a patch.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_LEAST = 16
"""Rows and columns of the smallest product."""
_CHUNKS = 1024
"""Programs of the filters' gradient, about: eight for each multiprocessor."""


@triton.jit
def _convolve(
    x_ptr, filters_ptr, bias_ptr, out_ptr, B, G,
    C: tl.constexpr, M: tl.constexpr, H: tl.constexpr, W: tl.constexpr, h: tl.constexpr, w: tl.constexpr,
    k: tl.constexpr, l: tl.constexpr, top: tl.constexpr, left: tl.constexpr, BIAS: tl.constexpr,
    N: tl.constexpr, R: tl.constexpr, K: tl.constexpr, SUM: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Write N maps of a group at R pixels."""
    FULL: tl.constexpr = C * k * l
    g = tl.program_id(1)
    r = tl.program_id(0) * R + tl.arange(0, R)
    m = tl.program_id(2) * N + tl.arange(0, N)
    b, y, x = (r // (h * w)).to(tl.int64), r // w % h - top, r % w - left
    first = (b * G + g) * (C * H * W) + y * W + x
    total = tl.full((N, R), 0, SUM)
    if BIAS:
        total += tl.load(bias_ptr + g * M + m, m < M, 0).to(SUM)[:, None]
    for start in range(0, FULL, K):
        p = start + tl.arange(0, K)
        i, j = p // l % k, p % l
        taps = tl.load(
            filters_ptr + (g * M + m)[:, None] * FULL + p[None, :], (m < M)[:, None] & (p < FULL)[None, :], 0
        )
        seen = (p < FULL)[:, None] & (b < B)[None, :]
        if top + left > 0:
            down, across = y[None, :] + i[:, None], x[None, :] + j[:, None]
            seen = seen & (down >= 0) & (down < H) & (across >= 0) & (across < W)
        patches = tl.load(x_ptr + first[None, :] + (p // (k * l) * (H * W) + i * W + j)[:, None], seen, 0)
        total = tl.dot(taps, patches, total, input_precision=PARTS, out_dtype=SUM)
    place = ((b * G + g) * (M * h * w) + r % (h * w))[None, :] + (m * (h * w))[:, None]
    tl.store(out_ptr + place, total.to(out_ptr.dtype.element_ty), (m < M)[:, None] & (b < B)[None, :])


@triton.jit
def _correlate(
    x_ptr, grad_ptr, out_ptr, bias_ptr, B, G, rows,
    C: tl.constexpr, M: tl.constexpr, H: tl.constexpr, W: tl.constexpr, h: tl.constexpr, w: tl.constexpr,
    k: tl.constexpr, l: tl.constexpr, top: tl.constexpr, left: tl.constexpr, BIAS: tl.constexpr,
    N: tl.constexpr, R: tl.constexpr, K: tl.constexpr, SUM: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Write parts of the gradients of filters and bias, [chunk, G, M, C * k * l]: those of ``rows`` of the pixels."""
    FULL: tl.constexpr = C * k * l
    g, chunk = tl.program_id(1), tl.program_id(2)
    p, m = tl.program_id(0) * K + tl.arange(0, K), tl.arange(0, N)
    i, j = p // l % k - top, p % l - left
    below = p // (k * l) * (H * W) + i * W + j
    total, sums = tl.full((K, N), 0, SUM), tl.full((N, R), 0, SUM)
    for start in range(chunk * rows, chunk * rows + rows, R):
        r = start + tl.arange(0, R)
        b, y, x = (r // (h * w)).to(tl.int64), r // w % h, r % w
        seen = (p < FULL)[:, None] & (b < B)[None, :]
        if top + left > 0:
            down, across = y[None, :] + i[:, None], x[None, :] + j[:, None]
            seen = seen & (down >= 0) & (down < H) & (across >= 0) & (across < W)
        patches = tl.load(x_ptr + ((b * G + g) * (C * H * W) + y * W + x)[None, :] + below[:, None], seen, 0)
        place = ((b * G + g) * (M * h * w) + r % (h * w))[None, :] + (m * (h * w))[:, None]
        grads = tl.load(grad_ptr + place, (m < M)[:, None] & (b < B)[None, :], 0)
        total = tl.dot(patches, tl.trans(grads), total, input_precision=PARTS, out_dtype=SUM)
        if BIAS:
            sums += grads
    place = ((chunk * G + g) * M + m)[None, :] * FULL + p[:, None]
    tl.store(out_ptr + place, total, (m < M)[None, :] & (p < FULL)[:, None])
    if BIAS:
        tl.store(bias_ptr + (chunk * G + g) * M + m, tl.sum(sums, 1), m + tl.program_id(0) * N < M)  # once


def _forward_tile(N: int) -> tuple[int, int, int, int]:
    """Return pixels, elements of a patch, warps and stages, as was fastest on an H200."""
    return (256, 32, 4, 3) if N == _LEAST else (128, 16, 4, 2)


def _filters_tile(taps: int) -> tuple[int, int, int, int]:
    return (32, 128 if taps > 64 else 64, 4, 3)


def _how(x: Tensor, warps: int, stages: int) -> dict[str, Any]:
    parts = "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"
    sums = tl.float64 if x.dtype == torch.float64 else tl.float32
    return {"SUM": sums, "PARTS": parts, "num_warps": warps, "num_stages": stages}


def convolve(x_BDHW: Tensor, weight_OCkl: Tensor, bias: Tensor | None, padding: Sequence[int], G: int) -> Tensor:
    (B, _, H, W), (O, C, k, l) = x_BDHW.shape, weight_OCkl.shape
    (top, left), M = padding, O // G
    h, w = H + 2 * top - k + 1, W + 2 * left - l + 1
    N = min(max(_LEAST, triton.next_power_of_2(M)), 64)
    R, K, *program = _forward_tile(N)
    out = x_BDHW.new_empty(B, O, h, w)
    bias_O = None if bias is None else bias.contiguous()
    shape = C, M, H, W, h, w, k, l, top, left, bias is not None
    run: Any = _convolve[triton.cdiv(B * h * w, R), G, triton.cdiv(M, N)]
    with torch.cuda.device_of(out):
        run(x_BDHW.contiguous(), weight_OCkl.contiguous(), bias_O, out, B, G, *shape, N, R, K, **_how(out, *program))
    return out


def image_gradient(grad_BOhw: Tensor, weight_OCkl: Tensor, padding: Sequence[int], G: int) -> Tensor:
    """Convolve with the filters turned round, and channels in and out exchanged."""
    O, C, k, l = weight_OCkl.shape
    turned = weight_OCkl.view(G, -1, C, k, l).transpose(1, 2).flip(-2, -1).reshape(G * C, O // G, k, l)
    return convolve(grad_BOhw, turned, None, [k - 1 - padding[0], l - 1 - padding[1]], G)


def filter_gradient(
    grad_BOhw: Tensor, x_BDHW: Tensor, weight_OCkl: Tensor, padding: Sequence[int], G: int, has_bias: bool
) -> tuple[Tensor, Tensor | None]:
    """Return sums over chunks of pixels, then over the chunks, in a fixed order; and those for the bias."""
    (B, _, H, W), (_, O, h, w), (C, k, l) = x_BDHW.shape, grad_BOhw.shape, weight_OCkl.shape[1:]
    M, (R, K, *program) = O // G, _filters_tile(C * k * l)
    tiles, pixels = triton.cdiv(C * k * l, K), max(1, B * h * w)
    rows = R * triton.cdiv(triton.cdiv(pixels, R), max(1, _CHUNKS // (tiles * G)))
    chunks = triton.cdiv(pixels, rows)
    dtype = torch.promote_types(x_BDHW.dtype, torch.float32)
    parts = x_BDHW.new_empty((chunks, *weight_OCkl.shape), dtype=dtype)
    bias_parts = x_BDHW.new_empty((chunks, O), dtype=dtype) if has_bias else None
    shape = C, M, H, W, h, w, k, l, *padding, has_bias, max(_LEAST, triton.next_power_of_2(M))
    run: Any = _correlate[tiles, G, chunks]
    tensors = x_BDHW.contiguous(), grad_BOhw.contiguous(), parts, bias_parts
    with torch.cuda.device_of(parts):
        run(*tensors, B, G, rows, *shape, R, K, **_how(x_BDHW, *program))
    filters, bias = (None if part is None else part.sum(0).to(x_BDHW.dtype) for part in (parts, bias_parts))
    assert filters is not None
    return filters, bias
