"""The families of transforms that a localisation net may predict, each starting at the identity.

B batch, P parameters, K control points. A family turns parameters into something that composes
and makes a grid.
"""

from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

from stn.models import grids

LINEAR = {
    "translation": "1 0 x  0 1 y  0 0 1",
    "attention": "s 0 x  0 s y  0 0 1",
    "similarity": "a -b x  b a y  0 0 1",
    "affine": "a b c  d e f  0 0 1",
    "projective": "a b c  d e f  g h 1",
}
"""What stands in the 3x3 matrix; parameters are numbered in the order of the alphabet."""


class Family(Protocol):
    identity: tuple[float, ...]
    """The parameters that change nothing."""

    def start(self, theta_BP: Tensor) -> Any:
        """One transform."""
        ...

    def then(self, before: Any, after: Any) -> Any:
        """Two transforms as one: points go through ``after`` first."""
        ...

    def grid(self, whole: Any, size: tuple[int, int], align_corners: bool, finer: int) -> Tensor:
        """Sampling points, [B, H, W, 2]."""
        ...

    def parameters(self, whole: Any) -> Tensor:
        """Of the whole transform, [B, P]."""
        ...


class Linear:
    """Matrices in homogeneous coordinates."""

    def __init__(self, name: str) -> None:
        self.entries = LINEAR[name].split()
        self.names = sorted({entry.strip("-") for entry in self.entries} - {"0", "1"})
        self.projective = self.entries[6:] != ["0", "0", "1"]
        self.identity = tuple(float(self.entries.index(name) in (0, 4, 8)) for name in self.names)

    @grids.kept
    def _basis(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Where each parameter stands, with its sign, [P, 9], and what stands there without them, [9]."""
        rows = [[(e == n) - (e == f"-{n}") for e in self.entries] for n in self.names]
        rest = [float(e == "1") for e in self.entries]
        return torch.tensor(rows, device=device, dtype=dtype), torch.tensor(rest, device=device, dtype=dtype)

    def start(self, theta_BP: Tensor) -> Tensor:
        basis_P9, rest_9 = self._basis(theta_BP.device, theta_BP.dtype)
        return ((theta_BP.unsqueeze(-1) * basis_P9).sum(1) + rest_9).view(-1, 3, 3)

    def then(self, before: Tensor, after: Tensor) -> Tensor:
        return grids.compose(before, after)

    def grid(self, whole: Tensor, size: tuple[int, int], align_corners: bool, finer: int) -> Tensor:
        points = grids.axes(size, align_corners, whole, finer)
        return grids.grid_from(*(grids.project if self.projective else grids.move)(whole, *points))

    def parameters(self, whole: Tensor) -> Tensor:
        basis_P9, _ = self._basis(whole.device, whole.dtype)
        if self.projective:
            whole = whole / whole[:, 2:, 2:]
        return (whole.flatten(1).unsqueeze(1) * basis_P9).sum(-1) / basis_P9.abs().sum(-1)


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

    def _through(self, splines: list[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        for spline in reversed(splines):
            x, y = grids.bend(spline, x, y)
        return x, y

    def grid(self, whole: list[Tensor], size: tuple[int, int], align_corners: bool, finer: int) -> Tensor:
        points = grids.plate_grid(whole[-1], size, align_corners, finer)
        return grids.grid_from(*self._through(whole[:-1], *points))

    def parameters(self, whole: list[Tensor]) -> Tensor:
        x, y = whole[-1].unsqueeze(1).unbind(-1)  # as a map of one row
        x, y = self._through(whole[:-1], x, y)
        return torch.stack([x, y], dim=-1).flatten(1)


@lru_cache(maxsize=16)
def build_family(name: str, points: int) -> Family:
    return ThinPlate(points) if name == "tps" else Linear(name)
