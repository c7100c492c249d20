"""Where each pixel of a perturbed image looks in the plain one, and what it sees there.

M images, C channel, h w their size, H W the perturbed one's. Positions are pixels from the
centre of the plain image; x and y broadcast to [M, H, W]. A number is rounded after each
operation, never fused with the next one, and a quotient is never a product with an inverse, so
test images are the same bits on every machine.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from stn.models.grids import control_points, plate_grid

_FINE = 1024
"""Positions out of float64 become multiples of this part of a pixel: their last bits depend on the machine."""


def cos_sin(degrees: Tensor) -> tuple[Tensor, Tensor]:
    """In float64, then rounded: an fp32 function may differ in the last bit with a number's place in a batch."""
    angle = torch.deg2rad(degrees.double())
    return angle.cos().float(), angle.sin().float()


def exp2(x: Tensor) -> Tensor:
    return torch.exp2(x.double()).float()


def log2(x: Tensor) -> Tensor:
    return torch.log2(x.double()).float()


def unit(x: Tensor) -> Tensor:
    """Bytes to [0, 1]. By a tensor: CUDA multiplies with the inverse of a number."""
    return x.float().div_(torch.full((), 255.0, device=x.device))


def offsets(size: int, device: torch.device) -> Tensor:
    """Pixel centres of one side."""
    return torch.arange(size, device=device) - (size - 1) / 2


def resample(x_MChw: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Bytes at positions, which are used up, bilinear with black outside: [M, C, H, W] in [0, 1].

    Not F.grid_sample, whose last bits depend on the instruction set: the SHA-256 of every perturbed test set is
    fixed. Training images use it as well: on one core a batch of 256 takes 1.1 (mnist_r) and 1.0 (mnist_s) times as
    long as with F.grid_sample.
    """
    M, C, h, w = x_MChw.shape
    pitch = w + 3  # one black pixel before, two after: positions are clamped, not neighbours
    dark = F.pad(unit(x_MChw), (1, 2, 1, 2)).flatten(2)
    x, y = x.add_((w + 1) / 2).clamp_(0, w + 1), y.add_((h + 1) / 2).clamp_(0, h + 1)
    left, top = x.floor(), y.floor()
    u, v = x.sub_(left).unsqueeze(1), y.sub_(top).unsqueeze(1)
    place = (top.mul_(pitch) + left).long()  # whole numbers: exact
    shape = (M, C, *place.shape[1:])
    place = place.view(M, 1, -1).expand(-1, C, -1)
    a, b, c, d = (dark[..., k:].gather(2, place).view(shape) for k in (0, 1, pitch, pitch + 1))
    a += b.sub_(a).mul_(u)
    c += d.sub_(c).mul_(u)
    a += c.sub_(a).mul_(v)
    return a


def turned(degrees_M1: Tensor, factor_M1: Tensor, shift_M2: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Positions that turn the image counter-clockwise as seen, enlarge it, then shift it."""
    cos, sin = ((v / factor_M1).unsqueeze(-1) for v in cos_sin(degrees_M1))
    u_M1W, v_MH1 = enlarged(torch.ones_like(factor_M1), shift_M2, size)
    # Sampling points turn the other way than the image; the row axis points down.
    return cos * u_M1W - sin * v_MH1, sin * u_M1W + cos * v_MH1


def enlarged(factor_M1: Tensor, shift_M2: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Positions that enlarge the image about its centre, then shift it: x [M, 1, W] and y [M, H, 1]."""
    x_MW, y_MH = ((offsets(size, factor_M1.device) - s) / factor_M1 for s in shift_M2.split(1, dim=1))
    return x_MW.unsqueeze(1), y_MH.unsqueeze(2)


def quadrilateral(to_M42: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """A size x size grid under the projective map that takes its corners, row by row, to four places; float64.

    Heckbert's closed form, times its denominator: where three corners are in line the map is
    what is left of it, and a point on its horizon is far away. Never NaN. The horizon crosses
    0.45 % of mnist_p's images and one in 20,000 of mnist_h's.
    """
    (x0, y0), (x1, y1), (x3, y3), (x2, y2) = (p.unbind(1) for p in to_M42.double()[..., None, None].unbind(1))
    dx1, dx2, sx = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    dy1, dy2, sy = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    g, h, i = sx * dy2 - dx2 * sy, dx1 * sy - sx * dy1, dx1 * dy2 - dx2 * dy1
    s = torch.arange(size, device=to_M42.device).double() / max(size - 1, 1)
    t = s.unsqueeze(1)
    depth = g * s + h * t + i
    depth = torch.where(depth.abs() < 1e-9, 1e-9, depth)
    x, y = (
        (((p1 - p0) * i + p1 * g) * s + ((p3 - p0) * i + p3 * h) * t + p0 * i) / depth
        for p0, p1, p3 in ((x0, x1, x3), (y0, y1, y3))
    )
    return x, y


def displaced(moved_MK2: Tensor, factor_M1: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Positions that enlarge the image, then move K points of a regular grid over it, row by row.

    The output shows at each of these points what the enlarged image has ``moved_MK2`` pixels
    from it. Four points are corners of a projective map, more control a thin-plate spline.
    """
    half, side = (size - 1) / 2, round(moved_MK2.shape[1] ** 0.5)
    home_K2 = control_points(side, moved_MK2.device, torch.float64)
    to_MK2 = (home_K2 * half + moved_MK2) / factor_M1.unsqueeze(2)
    if side == 2:
        positions = quadrilateral(to_MK2, size)
    else:
        positions = tuple(p * half for p in plate_grid(to_MK2 / half, (size, size), True))
    x, y = ((p * _FINE).round().div_(_FINE).float() for p in positions)
    return x, y
