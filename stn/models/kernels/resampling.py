"""Bilinear samples of bytes, as ``stn.data.geometry.resample`` takes them in 26 operations: with the same bits.

Each operation is rounded by itself: nothing is fused, and the division is not a product with an inverse.
M images, C channels, h x w their size, P positions.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 512


@triton.jit
def _pixel(image_ptr, y, x, h: tl.constexpr, w: tl.constexpr, inside):
    """Return pixels in [0, 1]; black outside of the image."""
    seen = inside & (y >= 0) & (y < h) & (x >= 0) & (x < w)
    byte = tl.load(image_ptr + y * w + x, seen, 0).to(tl.float32)
    return tl.div_rn(byte, tl.full(byte.shape, 255.0, tl.float32))


@triton.jit
def _sample(
    image_ptr, x_ptr, y_ptr, out_ptr, P, C: tl.constexpr, h: tl.constexpr, w: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    o = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    m, inside = tl.program_id(0).to(tl.int64), o < P
    x = tl.load(x_ptr + m * P + o, inside, 0) + (w + 1) / 2
    y = tl.load(y_ptr + m * P + o, inside, 0) + (h + 1) / 2
    x, y = tl.minimum(tl.maximum(x, 0.0), w + 1.0), tl.minimum(tl.maximum(y, 0.0), h + 1.0)
    left, top = tl.floor(x), tl.floor(y)
    u, v = x - left, y - top
    column, row = left.to(tl.int32) - 1, top.to(tl.int32) - 1
    for channel in tl.static_range(C):  # type: ignore[attr-defined]
        image = image_ptr + (m * C + channel) * (h * w)
        a, b = _pixel(image, row, column, h, w, inside), _pixel(image, row, column + 1, h, w, inside)
        c, d = _pixel(image, row + 1, column, h, w, inside), _pixel(image, row + 1, column + 1, h, w, inside)
        upper, lower = a + (b - a) * u, c + (d - c) * u
        tl.store(out_ptr + (m * C + channel) * P + o, upper + (lower - upper) * v, inside)


def resample(x_MChw: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return [M, C, H, W] in [0, 1]; x and y are pixels from the centre of the image, and broadcast to [M, H, W]."""
    M, C, h, w = x_MChw.shape
    x, y = (positions.expand(M, -1, -1).contiguous() for positions in torch.broadcast_tensors(x, y))
    out = torch.empty(M, C, *x.shape[1:], device=x.device)
    P = math.prod(x.shape[1:])
    run: Any = _sample[(M, triton.cdiv(P, _BLOCK))]
    with torch.cuda.device_of(x):
        run(x_MChw.contiguous(), x, y, out, P, C, h, w, _BLOCK, enable_fp_fusion=False)
    return out
