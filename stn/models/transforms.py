"""The families of transforms that a localisation net may predict, each starting at the identity.

``start`` makes a transform of parameters [B, P], ``then`` one of two, where points go through ``after`` first. ``grid``
returns a whole transform's sampling points [B, H, W, 2], ``parameters`` its parameters, ``move`` where it takes points;
the parameters ``identity`` change nothing. A plugin adds a family with @stn.register("transform"): a function that
returns such an object, most simply a Linear of its own entries. B batch, P parameters, K control points.
"""

from functools import lru_cache

import torch
from torch import Tensor

from stn.config import registry
from stn.config.registry import register
from stn.models import grids


class Linear:
    """Matrices in homogeneous coordinates, of these entries; parameters are numbered in the order of the alphabet."""

    def __init__(self, entries: str) -> None:
        self.entries = entries.split()
        self.names = sorted({entry.strip("-") for entry in self.entries} - {"0", "1"})
        self.projective = self.entries[6:] != ["0", "0", "1"]
        self.identity = tuple(float(self.entries.index(name) in (0, 4, 8)) for name in self.names)

    @grids.cached_constant
    def _basis(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Return parameters' signs in each entry, [P, 9], entries' constants, [9], and entries per parameter, [P]."""
        signs = [[(entry == name) - (entry == f"-{name}") for entry in self.entries] for name in self.names]
        constants = [float(entry == "1") for entry in self.entries]
        basis_P9 = torch.tensor(signs, device=device, dtype=dtype)
        return basis_P9, torch.tensor(constants, device=device, dtype=dtype), basis_P9.abs().sum(-1)

    def start(self, theta_BP: Tensor) -> Tensor:
        basis_P9, constant_9, _ = self._basis(theta_BP.device, theta_BP.dtype)
        return ((theta_BP.unsqueeze(-1) * basis_P9).sum(1) + constant_9).view(-1, 3, 3)

    def then(self, before: Tensor, after: Tensor) -> Tensor:
        return grids.compose(before, after)

    def grid(self, whole: Tensor, size: tuple[int, int], align_corners: bool, finer: int) -> Tensor:
        points = grids.axes(size, align_corners, whole, finer)
        return grids.grid_from(*(grids.project if self.projective else grids.move)(whole, *points))

    def move(self, whole: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return grids.project(whole, x, y)

    def parameters(self, whole: Tensor) -> Tensor:
        basis_P9, _, uses_P = self._basis(whole.device, whole.dtype)
        if self.projective:
            whole = whole / whole[:, 2:, 2:]
        return (whole.flatten(1).unsqueeze(1) * basis_P9).sum(-1) / uses_P


class ThinPlate:
    """A thin-plate spline; the parameters are where it takes a regular grid of control points."""

    def __init__(self, side: int) -> None:
        self.side = side
        points = grids.control_points(side, torch.device("cpu"), torch.float32)
        self.identity = tuple(points.flatten().tolist())

    def start(self, theta_BP: Tensor) -> list[Tensor]:
        return [theta_BP.view(-1, self.side**2, 2)]

    def then(self, before: list[Tensor], after: list[Tensor]) -> list[Tensor]:
        return [*before, *after]

    def move(self, splines: list[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        for spline in reversed(splines):
            x, y = grids.bend(spline, x, y)
        return x, y

    def grid(self, whole: list[Tensor], size: tuple[int, int], align_corners: bool, finer: int) -> Tensor:
        points = grids.plate_grid(whole[-1], size, align_corners, finer)
        return grids.grid_from(*self.move(whole[:-1], *points))

    def parameters(self, whole: list[Tensor]) -> Tensor:
        x, y = whole[-1].unsqueeze(1).unbind(-1)  # as a map of one row
        x, y = self.move(whole[:-1], x, y)
        return torch.stack([x, y], dim=-1).flatten(1)


Family = Linear | ThinPlate


@register("transform")
def translation() -> Linear:
    """Shift."""
    return Linear("1 0 x  0 1 y  0 0 1")


@register("transform")
def attention() -> Linear:
    """Shift and one scale for both axes."""
    return Linear("s 0 x  0 s y  0 0 1")


@register("transform")
def similarity() -> Linear:
    """Shift, rotation and one scale."""
    return Linear("a -b x  b a y  0 0 1")


@register("transform")
def affine() -> Linear:
    """Any matrix and shift."""
    return Linear("a b c  d e f  0 0 1")


@register("transform")
def projective() -> Linear:
    """A change of perspective."""
    return Linear("a b c  d e f  g h 1")


@register("transform")
def tps(*, points: int = 4) -> ThinPlate:
    """Thin-plate spline through a grid of control points."""
    return ThinPlate(points)


@lru_cache(maxsize=16)
def build_family(name: str, points: int) -> Family:
    entry = registry.find("transform", name)
    return entry.function(**({"points": points} if "points" in entry.options else {}))
