"""The network and the test images that pictures show, and the geometry under the pictures.

Everything is drawn from the transform's parameters, so that the snapshots of a training run and the final weights look
alike; a test compares that with the network's own images. B batch, P parameters, C channel, H W map.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stn.data.stream import Stream
from stn.evaluation.pictures.plans import Strip
from stn.evaluation.pose import pixels_per_unit
from stn.models.grids import axes, compose, grid_from, project, sample
from stn.models.transforms import Linear
from stn.models.warping import PlainWarping, Warping
from stn.runs.directory import Row


def strip(label: str, images: Iterable[Tensor], titles: Sequence[str] = (), outlines: Iterable[Tensor] = ()) -> Strip:
    """Return a row of images, [C, H, W] each, without PyTorch's tensors."""
    return Strip(label, [image.numpy() for image in images], titles, [lines.numpy() for lines in outlines])


def image_grids(model: Warping, shape: tuple[int, ...], theta_BP: Tensor) -> list[Tensor]:
    """Return the points of the *image* that parameters sample, [B, H, W, 2] for each of parallel transforms.

    Points go through the last transformer first, each in the units of the map that it warps. (For splines in a row the
    parameters say only where control points go.)
    """
    last: Any = model.st[-1]
    o, family, P = model.options, last.family, len(last.family.identity)
    size, finer = ((shape[1], shape[2]), 1) if model.at[-1] else (last.size, last.finer)
    units = [pixels_per_unit(model, shape, at) / pixels_per_unit(model, shape, 0) for at in model.at]
    grids = []
    for k in range(o.parallel):
        x, y = axes(size, o.align_corners, theta_BP, finer)
        starts = [(t * o.parallel + k) * P for t in range(len(units))]
        transforms = [family.start(theta_BP[:, start : start + P]) for start in starts]
        if isinstance(family, Linear):
            matrices = [_in_image_units(A_B33, unit) for A_B33, unit in zip(transforms, units, strict=True)]
            x, y = project(reduce(compose, matrices), x, y)
        else:
            for transform, unit in reversed(list(zip(transforms, units, strict=True))):
                x, y = (unit * point for point in family.move(transform, x / unit, y / unit))
        grids.append(grid_from(x, y))
    return grids


def _in_image_units(A_B33: Tensor, unit: float) -> Tensor:
    """Return the matrix for points in units of the image: translations grow with the unit, the last row shrinks."""
    return A_B33 * A_B33.new_tensor([[1, 1, unit], [1, 1, unit], [1 / unit, 1 / unit, 1]])


def outline(grid_BHW2: Tensor, side: Sequence[int], align_corners: bool) -> Tensor:
    """Return the border of a grid as a closed line in pixels, [B, points, 2]."""
    edges = [grid_BHW2[:, 0], grid_BHW2[:, :, -1], grid_BHW2[:, -1].flip(1), grid_BHW2[:, :, 0].flip(1)]
    line = torch.cat(edges, 1)
    n_2 = torch.tensor([side[1], side[0]])  # x first
    return (line + 1) / 2 * (n_2 - 1) if align_corners else ((line + 1) * n_2 - 1) / 2


def as_maps(x_BCHW: Tensor) -> Tensor:
    """Return a feature map as grey images: the mean over channels, scaled to [0, 1] over the batch."""
    x_B1HW = x_BCHW.mean(1, keepdim=True)
    return (x_B1HW - x_B1HW.min()) / (x_B1HW.max() - x_B1HW.min()).clamp(min=1e-6)


@dataclass(frozen=True)
class Subject:
    """A network, the numbers of the test images to show, and the snapshots of its training, if there are any."""

    model: Warping
    stream: Stream
    title: str
    numbers: list[int]
    rows: list[Row]

    @property
    def x_BCHW(self) -> Tensor:
        return self.stream.test_images(torch.tensor(self.numbers, device=self.stream.device)).x_BCHW

    def theta(self, x_BCHW: Tensor) -> Tensor | None:
        """Return the parameters of all transforms; None for a plain module, which has only ``warps``."""
        if isinstance(self.model, PlainWarping):
            return None
        return torch.cat([warp.theta_BP for warp in self.model.warps(x_BCHW)], 1)

    def recorded(self, row: Row) -> Tensor:
        return torch.tensor(row["theta"])[self.numbers]

    def grids(self, x_BCHW: Tensor) -> list[Tensor]:
        """Return where the network samples the image, for each of parallel transforms."""
        theta_BP = self.theta(x_BCHW)
        if theta_BP is None:
            return [self.model.warps(x_BCHW)[0].grid_BHW2]
        return image_grids(self.model, self.stream.dataset.shape, theta_BP)

    def warped(self, x_BCHW: Tensor, theta_BP: Tensor | None) -> list[Tensor]:
        """Return the images under the parameters, for each of parallel transforms."""
        if theta_BP is None:
            image_BCHW = self.model.warps(x_BCHW)[0].image_BCHW
            return [self.stream.as_image(image_BCHW) if image_BCHW.shape[1] == x_BCHW.shape[1] else as_maps(image_BCHW)]
        o, last = self.model.options, self.model.st[-1]
        finer = 1 if self.model.at[-1] else int(last.finer)  # type: ignore[arg-type]
        grids = image_grids(self.model, self.stream.dataset.shape, theta_BP)
        found = [F.avg_pool2d(sample(x_BCHW, grid, o.padding, o.align_corners), finer) for grid in grids]
        return [self.stream.as_image(image) for image in found]

    def strips(self, label: str, x_BCHW: Tensor, theta_BP: Tensor | None) -> list[Strip]:
        images = self.warped(x_BCHW, theta_BP)
        labels = [f"{label} ({k + 1})" for k in range(len(images))] if len(images) > 1 else [label]
        return list(map(strip, labels, images))
