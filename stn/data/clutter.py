"""Digits among clutter (Finnveden et al., section 4.1) and batched augmentation.

A perturbation takes uint8 images [M, 1, 28, 28], one stream of random numbers per image and
the pool of training images that clutter is cut from; it returns images in [0, 1] and the
pose that it applied, [M, P].
"""

import torch
from torch import Tensor

from stn.data.geometry import enlarged, exp2, resample, unit
from stn.data.rng import Draws

CROP, CROPS = 6, 6


def _cut(draws: Draws, pool: Tensor, rows: int) -> Tensor:
    """Clutter: 6x6 crops at random places of random training images, uint8 [M, crops, 6, 6]."""
    which = draws.integers(CROPS, len(pool))
    top, left = draws.integers(CROPS, 28 - CROP + 1), draws.integers(CROPS, 28 - CROP + 1)
    span = torch.arange(CROP, device=pool.device)
    y, x = (top[..., None] + span)[..., :, None], (left[..., None] + span)[..., None, :]
    return pool.view(len(pool), 28, 28)[which[..., None, None], y, x]


def _add(canvas_MHW: Tensor, patch_Mhw: Tensor, top_M: Tensor, left_M: Tensor) -> None:
    """Add one patch to each canvas, in place; within one call no two patches meet."""
    M, H, W = canvas_MHW.shape
    h, w = patch_Mhw.shape[1:]
    y = (top_M[:, None] + torch.arange(h, device=top_M.device))[:, :, None]
    x = (left_M[:, None] + torch.arange(w, device=top_M.device))[:, None, :]
    inside = (y >= 0) & (y < H) & (x >= 0) & (x < W)
    place = (y.clamp(0, H - 1) * W + x.clamp(0, W - 1)).flatten(1)
    canvas_MHW.view(M, -1).scatter_add_(1, place, (patch_Mhw * inside).flatten(1))


def translate(x_M1HW: Tensor, draws: Draws, pool: Tensor) -> tuple[Tensor, Tensor]:
    """Digit at a random place of a 60x60 canvas, six crops added. Pose: (x, y) from the centre, pixels."""
    M = len(x_M1HW)
    place_M2 = draws.integers(2, 33)
    canvas = x_M1HW.new_zeros(M, 60, 60, dtype=torch.int32)  # integers add up in any order
    _add(canvas, x_M1HW[:, 0].int(), place_M2[:, 1], place_M2[:, 0])
    crops = _cut(draws, pool, M).int()
    top, left = draws.integers(CROPS, 60 - CROP + 1), draws.integers(CROPS, 60 - CROP + 1)
    for k in range(CROPS):
        _add(canvas, crops[:, k], top[:, k], left[:, k])
    return unit(canvas.clamp_(max=255)).unsqueeze(1), place_M2.float() - 16


def rescale(x_M1HW: Tensor, draws: Draws, pool: Tensor) -> tuple[Tensor, Tensor]:
    """Digit scaled by 2^U(-1, 2) on a 112x112 canvas, six scaled crops added. Pose: log2 of the area."""
    M, window = len(x_M1HW), 4 * CROP + 4
    exponent_M1 = draws.uniform(1, -1, 2)
    still_M2 = torch.zeros_like(exponent_M1).expand(-1, 2)
    canvas = resample(x_M1HW, *enlarged(exp2(exponent_M1), still_M2, 112))[:, 0]
    crops = _cut(draws, pool, M)
    factors = exp2(draws.uniform(CROPS, -1, 2))
    free = 112 - CROP * factors  # the crop lies whole on the canvas
    centre = (
        torch.stack([draws.uniform(CROPS), draws.uniform(CROPS)], -1) * free[..., None] + CROP * factors[..., None] / 2
    )
    corner = (centre - window / 2).floor()  # a window of whole pixels, and what is left of the shift
    rest = centre - corner - window / 2
    for k in range(CROPS):
        patch = resample(crops[:, k : k + 1], *enlarged(factors[:, k : k + 1], rest[:, k], window))
        _add(canvas, patch[:, 0], corner[:, k, 1].long(), corner[:, k, 0].long())
    return canvas.clamp_(max=1).unsqueeze(1), 2 * exponent_M1
