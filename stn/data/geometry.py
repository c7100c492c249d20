"""Sampling points of perturbed images in the plain ones, and how these are sampled.

M images, C channel, h w their size, H W the perturbed image's. Positions are pixels from the centre of the plain image;
x and y broadcast to [M, H, W]. Every operation is rounded by itself (none is fused, no division becomes a product with
an inverse), so that test images have the same bits on every machine.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from stn.models import kernels
from stn.models.grids import cached_constant, control_points, plate_grid
from stn.models.kernels import cpu_sampling

_PARTS = 1024
"""Positions are rounded to this fraction of a pixel: the last bits of float64 ones depend on the machine."""


def cos_sin(degrees: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and sine, computed in float64: the last bit of an fp32 function may depend on the batch."""
    angle = torch.deg2rad(degrees.double())
    return angle.cos().float(), angle.sin().float()


def exp2(x: Tensor) -> Tensor:
    return torch.exp2(x.double()).float()


def log2(x: Tensor) -> Tensor:
    return torch.log2(x.double()).float()


@cached_constant
def _white(device: torch.device) -> Tensor:
    return torch.full((), 255.0, device=device)


def unit(x: Tensor) -> Tensor:
    """Scale bytes to [0, 1]; divides by a tensor, because for a number CUDA multiplies with its inverse."""
    return x.float().div_(_white(x.device))


@cached_constant
def offsets(size: int, device: torch.device) -> Tensor:
    """Return the pixel centres of one side, from the middle."""
    return torch.arange(size, device=device) - (size - 1) / 2


def resample(x_MChw: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Sample bytes at positions, which it may overwrite, bilinear with black outside: [M, C, H, W] in [0, 1].

    Not F.grid_sample, whose last bits depend on the instruction set: the SHA-256 of every perturbed test set is fixed.
    For a batch of 256 on one core it takes 1.1 (mnist_r) and 1.0 (mnist_s) times as long as F.grid_sample.
    """
    if x.is_cuda and not kernels.missing():
        from stn.models.kernels.resampling import resample as in_one_launch

        return in_one_launch(x_MChw, x, y)
    M, C, h, w = x_MChw.shape
    pitch = w + 3  # one black pixel before, two after: positions are clamped, neighbours are not
    dark = F.pad(unit(x_MChw), (1, 2, 1, 2))
    if (sampled := cpu_sampling.resample(dark, x, y)) is not None:
        return sampled
    dark = dark.flatten(2)
    x, y = x.add_((w + 1) / 2).clamp_(0, w + 1), y.add_((h + 1) / 2).clamp_(0, h + 1)
    left, top = x.floor(), y.floor()
    u, v = x.sub_(left).unsqueeze(1), y.sub_(top).unsqueeze(1)
    index = (top.mul_(pitch) + left).long()  # whole numbers: exact
    shape = (M, C, *index.shape[1:])
    index = index.view(M, 1, -1).expand(-1, C, -1)
    a, b, c, d = (dark[..., k:].gather(2, index).view(shape) for k in (0, 1, pitch, pitch + 1))
    a += b.sub_(a).mul_(u)
    c += d.sub_(c).mul_(u)
    a += c.sub_(a).mul_(v)
    return a


def turned(degrees_M1: Tensor, factor_M1: Tensor | None, shift_M2: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
    """Return positions that turn the image counter-clockwise as seen, enlarge it, then shift it."""
    cos, sin = (v.unsqueeze(-1) if factor_M1 is None else (v / factor_M1).unsqueeze(-1) for v in cos_sin(degrees_M1))
    u_M1W, v_MH1 = enlarged(None, shift_M2, size, degrees_M1.device)
    # Sampling points turn the other way than the image; the row axis points down.
    return cos * u_M1W - sin * v_MH1, sin * u_M1W + cos * v_MH1


def enlarged(
    factor_M1: Tensor | None, shift_M2: Tensor | None, size: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return positions that enlarge the image about its centre, then shift it: x [M, 1, W] and y [M, H, 1]."""
    x_MW = y_MH = offsets(size, device).unsqueeze(0)
    if shift_M2 is not None:
        x_MW, y_MH = (x_MW - s_M1 for s_M1 in shift_M2.split(1, dim=1))
    if factor_M1 is not None:
        x_MW, y_MH = x_MW / factor_M1, y_MH / factor_M1
    return x_MW.unsqueeze(1), y_MH.unsqueeze(2)


def _cross(a_M211: Tensor, b_M211: Tensor) -> Tensor:
    """Return the signed area between plane vectors, [M, 1, 1, 1]."""
    return a_M211[:, :1] * b_M211[:, 1:] - a_M211[:, 1:] * b_M211[:, :1]


def quadrilateral(to_M42: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return a size x size grid under the projective map that takes its corners, row by row, to ``to_M42``; float64.

    Heckbert's closed form, times its denominator, so that it is never NaN: points on the horizon are far away instead.
    The horizon crosses 0.45 % of mnist_p's images and one in 20,000 of mnist_h's.
    """
    p0, p1, p3, p2 = to_M42.double()[..., None, None].unbind(1)  # around the quadrilateral, [M, 2, 1, 1]
    d1, d2, sides = p1 - p2, p3 - p2, p0 - p1 + p2 - p3
    g, h, i = _cross(sides, d2), _cross(d1, sides), _cross(d1, d2)
    s = torch.arange(size, device=to_M42.device).double() / max(size - 1, 1)
    t = s.unsqueeze(1)
    depth = g * s + h * t + i
    depth = torch.where(depth.abs() < 1e-9, 1e-9, depth)
    along_s, along_t, start = (p1 - p0) * i + p1 * g, (p3 - p0) * i + p3 * h, p0 * i
    x, y = ((along_s * s + along_t * t + start) / depth).unbind(1)
    return x, y


def displaced(moved_MK2: Tensor, factor_M1: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return positions that enlarge the image, then move K points of a regular grid over it, row by row.

    The output shows at each of these points what the enlarged image has ``moved_MK2`` pixels from it. Four points are
    corners of a projective map, more control a thin-plate spline.
    """
    half, side = (size - 1) / 2, round(moved_MK2.shape[1] ** 0.5)
    home_K2 = control_points(side, moved_MK2.device, torch.float64)
    to_MK2 = (home_K2 * half + moved_MK2) / factor_M1.unsqueeze(2)
    if side == 2:
        x, y = quadrilateral(to_MK2, size)
    else:
        x, y = (p * half for p in plate_grid(to_MK2 / half, (size, size), True))
    x, y = ((p * _PARTS).round().div_(_PARTS).float() for p in (x, y))
    return x, y
