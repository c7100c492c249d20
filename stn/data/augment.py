"""Random affine transforms, crops and flips of training images."""

import torch
import torch.nn.functional as F
from torch import Tensor

from stn.config.schema import Data
from stn.data.geometry import cos_sin
from stn.data.rng import Draws
from stn.models.grids import affine_grid


def random_affine(x_MCHW: Tensor, draws: Draws, data: Data) -> Tensor:
    """Rotate, shift, scale and shear each image about its centre."""
    cos, sin = cos_sin(draws.uniform(1, -data.rotate, data.rotate)[:, 0])
    cos_skew, sin_skew = cos_sin(draws.uniform(1, -data.shear, data.shear)[:, 0])
    factor = draws.uniform(1, *data.scale)[:, 0]
    tx, ty = (2 * draws.uniform(1, -data.translate, data.translate)[:, 0] for _ in range(2))
    tan = sin_skew / cos_skew
    # The image moves by A = R(angle) @ shear @ scale, then by (tx, ty); sampling points by the inverse.
    a, b = factor * cos, factor * (cos * tan + sin)
    c, d = -factor * sin, factor * (cos - sin * tan)
    determinant = a * d - b * c
    a, b, c, d = d / determinant, -b / determinant, -c / determinant, a / determinant
    theta = torch.stack([a, b, -(a * tx + b * ty), c, d, -(c * tx + d * ty)], -1).view(-1, 2, 3)
    grid = affine_grid(theta, (x_MCHW.shape[2], x_MCHW.shape[3]), align_corners=False)
    # Not grids.sample, which is bilinear only, nor deterministic_sample: there is no gradient here.
    return F.grid_sample(x_MCHW, grid, mode=data.interpolation, padding_mode="zeros", align_corners=False)


def random_crop(x_MCHW: Tensor, draws: Draws, padding: int) -> Tensor:
    """Shift each image by up to ``padding`` pixels each way, black outside."""
    M, _, H, W = x_MCHW.shape
    offset = draws.integers(2, 2 * padding + 1)
    padded = F.pad(x_MCHW, [padding] * 4)
    y = offset[:, :1] + torch.arange(H, device=x_MCHW.device)
    x = offset[:, 1:] + torch.arange(W, device=x_MCHW.device)
    rows = torch.arange(M, device=x_MCHW.device)
    return padded[rows[:, None, None], :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)


def random_cutout(x_MCHW: Tensor, draws: Draws, side: int, mean: Tensor) -> Tensor:
    """Paint a square in each image in the mean colour; it may reach over the border."""
    inside = []
    for n in x_MCHW.shape[2:]:
        index, first = torch.arange(n, device=x_MCHW.device), draws.integers(1, n) - side // 2
        inside.append((index >= first) & (index < first + side))
    rows_MH, columns_MW = inside
    return torch.where(rows_MH[:, None, :, None] & columns_MW[:, None, None], mean, x_MCHW)


def alternate_flip(x_MCHW: Tensor, draws: Draws, epoch_M: Tensor) -> Tensor:
    """Mirror each image in every other epoch, from its first or its second."""
    flip_M = (draws.integers(1, 2)[:, 0] + epoch_M) % 2 == 1
    return torch.where(flip_M[:, None, None, None], x_MCHW.flip(-1), x_MCHW)


def random_flip(x_MCHW: Tensor, draws: Draws) -> Tensor:
    """Mirror half of the images left to right."""
    flip_M = draws.uniform(1)[:, 0] < 0.5
    return torch.where(flip_M[:, None, None, None], x_MCHW.flip(-1), x_MCHW)
