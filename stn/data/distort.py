"""Images of any size turned, enlarged, shifted or bent: what the rotated, Jaderberg's and Lin and Lucey's sets do.

As in ``clutter``: uint8 images [M, C, H, W], a stream of random numbers per image and a pool that
is not needed here; images in [0, 1] and the pose, [M, P].
"""

import math

import torch
from torch import Tensor

from stn.data.geometry import displaced, exp2, log2, resample, turned
from stn.data.rng import Draws


def rotate(x_MCHW: Tensor, draws: Draws, pool: Tensor, limit: float = 90) -> tuple[Tensor, Tensor]:
    """Rotation uniform in [-limit, limit] degrees, bilinear. Pose: degrees, counter-clockwise as seen."""
    degrees_M1 = draws.uniform(1, -limit, limit)
    one_M1 = torch.ones_like(degrees_M1)
    still_M2 = torch.zeros_like(degrees_M1).expand(-1, 2)
    return resample(x_MCHW, *turned(degrees_M1, one_M1, still_M2, x_MCHW.shape[-1])), degrees_M1


def turn_scale_place(x_MCHW: Tensor, draws: Draws, pool: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation U(-45, 45) degrees, scale U(0.7, 1.2), then shift U(-7, 7) pixels per axis, on 42x42."""
    degrees_M1, factor_M1 = draws.uniform(1, -45, 45), draws.uniform(1, 0.7, 1.2)
    shift_M2 = draws.uniform(2, -7, 7)
    x = resample(x_MCHW, *turned(degrees_M1, factor_M1, shift_M2, 42))
    return x, torch.cat([degrees_M1, 2 * log2(factor_M1), shift_M2], 1)


def jostle(x_MCHW: Tensor, draws: Draws, pool: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation U(-30, 30) degrees, scale 0.8 to 1.25 log-uniform, then shift U(-4, 4) pixels per axis."""
    most = math.log2(1.25)
    degrees_M1, exponent_M1 = draws.uniform(1, -30, 30), draws.uniform(1, -most, most)
    shift_M2 = draws.uniform(2, -4, 4)
    x = resample(x_MCHW, *turned(degrees_M1, exp2(exponent_M1), shift_M2, x_MCHW.shape[-1]))
    return x, torch.cat([degrees_M1, 2 * exponent_M1, shift_M2], 1)


def bend(x_MCHW: Tensor, draws: Draws, pool: Tensor, n: int, std: float) -> tuple[Tensor, Tensor]:
    """Scale U(0.75, 1), then n points of a grid N(0, std) pixels off: 4 projective, more a thin-plate spline."""
    factor_M1 = draws.uniform(1, 0.75, 1)
    moved_M2n = draws.normal(2 * n, std)
    x = resample(x_MCHW, *displaced(moved_M2n.unflatten(1, (n, 2)), factor_M1, x_MCHW.shape[-1]))
    return x, torch.cat([2 * log2(factor_M1), moved_M2n], 1)


def shake(x_MCHW: Tensor, draws: Draws, pool: Tensor) -> tuple[Tensor, Tensor]:
    """Corners N(0, 1/4) off and all four together once more, per axis; the image spans [-1, 1] between pixel centres.

    As in the code of Lin and Lucey: 3.375 pixels of 28, where their paper says 3.5.
    """
    size = x_MCHW.shape[-1]
    std = 0.25 * (size - 1) / 2
    moved_M42 = draws.normal(8, std).unflatten(1, (4, 2)) + draws.normal(2, std).unsqueeze(1)
    x = resample(x_MCHW, *displaced(moved_M42, torch.ones_like(moved_M42[:, 0, :1]), size))
    return x, moved_M42.flatten(1)
