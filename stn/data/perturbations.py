"""Perturbations of test and training images: rotated, Jaderberg's, Lin and Lucey's, and cluttered sets.

A perturbation takes uint8 images [M, C, H, W], one stream of random numbers per image and the pool of training images
that clutter is cut from; it returns images in [0, 1] and the pose that it applied, [M, P].
"""

import math

import torch
from torch import Tensor

from stn.data.geometry import displaced, enlarged, exp2, log2, resample, turned, unit
from stn.data.rng import Draws

CROP, CROPS = 6, 6


def rotate(x_MCHW: Tensor, draws: Draws, pool: Tensor, limit: float = 90) -> tuple[Tensor, Tensor]:
    """Rotate by U(-limit, limit) degrees, bilinearly. Pose: degrees, counter-clockwise as seen."""
    degrees_M1 = draws.uniform(1, -limit, limit)
    return resample(x_MCHW, *turned(degrees_M1, None, None, x_MCHW.shape[-1])), degrees_M1


def turn_scale_shift(x_MCHW: Tensor, draws: Draws, pool: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate by U(-45, 45) degrees, scale by U(0.7, 1.2), then shift by U(-7, 7) pixels per axis, on 42x42."""
    degrees_M1, factor_M1 = draws.uniform(1, -45, 45), draws.uniform(1, 0.7, 1.2)
    shift_M2 = draws.uniform(2, -7, 7)
    x = resample(x_MCHW, *turned(degrees_M1, factor_M1, shift_M2, 42))
    return x, torch.cat([degrees_M1, 2 * log2(factor_M1), shift_M2], 1)


def jostle(x_MCHW: Tensor, draws: Draws, pool: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate by U(-30, 30) degrees, scale by 0.8 to 1.25, log-uniform, then shift by U(-4, 4) pixels per axis."""
    limit = math.log2(1.25)
    degrees_M1, exponent_M1 = draws.uniform(1, -30, 30), draws.uniform(1, -limit, limit)
    shift_M2 = draws.uniform(2, -4, 4)
    x = resample(x_MCHW, *turned(degrees_M1, exp2(exponent_M1), shift_M2, x_MCHW.shape[-1]))
    return x, torch.cat([degrees_M1, 2 * exponent_M1, shift_M2], 1)


def bend(x_MCHW: Tensor, draws: Draws, pool: Tensor, n: int, std: float) -> tuple[Tensor, Tensor]:
    """Scale by U(0.75, 1), then move n points of a grid by N(0, std) pixels: 4 projective, more a thin-plate spline."""
    factor_M1 = draws.uniform(1, 0.75, 1)
    moved_M2n = draws.normal(2 * n, std)
    x = resample(x_MCHW, *displaced(moved_M2n.unflatten(1, (n, 2)), factor_M1, x_MCHW.shape[-1]))
    return x, torch.cat([2 * log2(factor_M1), moved_M2n], 1)


def shake(x_MCHW: Tensor, draws: Draws, pool: Tensor) -> tuple[Tensor, Tensor]:
    """Move each corner, and then all four, by N(0, 1/4) per axis; the image spans [-1, 1] between pixel centres.

    As in the code of Lin and Lucey: 3.375 pixels of 28, where their paper says 3.5.
    """
    size = x_MCHW.shape[-1]
    std = 0.25 * (size - 1) / 2
    moved_M42 = draws.normal(8, std).unflatten(1, (4, 2)) + draws.normal(2, std).unsqueeze(1)
    x = resample(x_MCHW, *displaced(moved_M42, torch.ones_like(moved_M42[:, 0, :1]), size))
    return x, moved_M42.flatten(1)


def translate_in_clutter(x_M1HW: Tensor, draws: Draws, pool: Tensor) -> tuple[Tensor, Tensor]:
    """Put the digit anywhere on a 60x60 canvas and add six crops. Pose: (x, y) from the centre, pixels."""
    corner_M2 = draws.integers(2, 33)
    canvas_MHW = x_M1HW.new_zeros(len(x_M1HW), 60, 60, dtype=torch.int32)  # integers add up in any order
    _add(canvas_MHW, x_M1HW[:, 0].int(), corner_M2[:, 1], corner_M2[:, 0])
    crops = _crops(draws, pool).int()
    top, left = draws.integers(CROPS, 60 - CROP + 1), draws.integers(CROPS, 60 - CROP + 1)
    for k in range(CROPS):
        _add(canvas_MHW, crops[:, k], top[:, k], left[:, k])
    return unit(canvas_MHW.clamp_(max=255)).unsqueeze(1), corner_M2.float() - 16


def scale_in_clutter(x_M1HW: Tensor, draws: Draws, pool: Tensor) -> tuple[Tensor, Tensor]:
    """Scale the digit by 2^U(-1, 2) on a 112x112 canvas and add six scaled crops. Pose: log2 of the area."""
    exponent_M1 = draws.uniform(1, -1, 2)
    canvas_MHW = resample(x_M1HW, *enlarged(exp2(exponent_M1), None, 112, x_M1HW.device))[:, 0]
    crops = _crops(draws, pool)
    factors = exp2(draws.uniform(CROPS, -1, 2))
    side = CROP * factors.unsqueeze(-1)
    centre = torch.stack([draws.uniform(CROPS), draws.uniform(CROPS)], -1) * (112 - side) + side / 2
    window = 4 * CROP + 4
    corner = (centre - window / 2).floor()  # a window of whole pixels, and what is left of the shift
    rest = centre - corner - window / 2
    for k in range(CROPS):
        patch = resample(crops[:, k : k + 1], *enlarged(factors[:, k : k + 1], rest[:, k], window, x_M1HW.device))
        _add(canvas_MHW, patch[:, 0], corner[:, k, 1].long(), corner[:, k, 0].long())
    return canvas_MHW.clamp_(max=1).unsqueeze(1), 2 * exponent_M1


def _crops(draws: Draws, pool: Tensor) -> Tensor:
    """Return 6x6 crops at random positions of random training images, uint8 [M, crops, 6, 6]."""
    image = draws.integers(CROPS, len(pool))
    top, left = draws.integers(CROPS, 28 - CROP + 1), draws.integers(CROPS, 28 - CROP + 1)
    span = torch.arange(CROP, device=pool.device)
    y, x = (top[..., None] + span)[..., :, None], (left[..., None] + span)[..., None, :]
    return pool.view(len(pool), 28, 28)[image[..., None, None], y, x]


def _add(canvas_MHW: Tensor, patch_Mhw: Tensor, top_M: Tensor, left_M: Tensor) -> None:
    """Add one patch to each canvas, in place; no two patches of one call share a canvas, so the order is free."""
    M, H, W = canvas_MHW.shape
    h, w = patch_Mhw.shape[1:]
    y = (top_M[:, None] + torch.arange(h, device=top_M.device))[:, :, None]
    x = (left_M[:, None] + torch.arange(w, device=top_M.device))[:, None, :]
    inside = (y >= 0) & (y < H) & (x >= 0) & (x < W)
    pixel = (y.clamp(0, H - 1) * W + x.clamp(0, W - 1)).flatten(1)
    canvas_MHW.view(M, -1).scatter_add_(1, pixel, (patch_Mhw * inside).flatten(1))
