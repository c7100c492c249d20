"""What parameters do to images: the geometry under the pictures.

Everything is drawn from the transform's parameters, so that what was recorded during training and
what the final weights say look alike; a test holds that against the network's own images.
B batch, P parameters, C channel, H W map.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stn.data.stream import Stream
from stn.evaluation import pose
from stn.models.grids import axes, bend, compose, grid_from, project, sample
from stn.models.wirings import Transformed
from stn.pictures.sheet import Strip
from stn.runs.directory import Row


def image_grids(model: Transformed, shape: tuple[int, ...], theta_BP: Tensor) -> list[Tensor]:
    """Where parameters sample the *image*, [B, H, W, 2] for each of parallel transforms.

    A transform of a feature map acts on the image through the map's own coordinates, which are
    ``pixels`` wide; several transforms compose, points going through the last one first. (Of
    composed splines the parameters say where control points go, and nothing between them.)
    """
    st, o, on_image = model.st[-1], model.options, model.at[-1] == 0
    size, finer = (st.size, st.finer) if on_image else (shape[1:], 1)
    widths = [o.parallel * len(each.family.identity) for each in model.st]  # type: ignore[arg-type, union-attr]
    parts = [part.chunk(o.parallel, 1) for part in theta_BP.split(widths, 1)]
    grids = []
    for k in range(o.parallel):
        x, y = axes(size, o.align_corners, theta_BP, finer)  # type: ignore[arg-type]
        matrix_B33 = None
        for at, part in reversed(list(zip(model.at, parts, strict=True))):
            r = pose.pixels(model, shape, at) / pose.pixels(model, shape, 0)
            found = st.family.start(part[k])  # type: ignore[operator, union-attr]
            if isinstance(found, list):  # a spline
                x, y = (r * point for point in bend(found[0], x / r, y / r))
            else:
                found = found * found.new_tensor([[1, 1, r], [1, 1, r], [1 / r, 1 / r, 1]])
                matrix_B33 = found if matrix_B33 is None else compose(found, matrix_B33)
        grids.append(grid_from(*(x, y) if matrix_B33 is None else project(matrix_B33, x, y)))
    return grids


def outline(grid_BHW2: Tensor, side: Sequence[int], align_corners: bool) -> Tensor:
    """The border of a grid as a closed line in pixels, [B, points, 2]."""
    edges = [grid_BHW2[:, 0], grid_BHW2[:, :, -1], grid_BHW2[:, -1].flip(1), grid_BHW2[:, :, 0].flip(1)]
    n_2 = torch.tensor([side[1], side[0]])  # x first
    line = torch.cat(edges, 1)
    return (line + 1) / 2 * (n_2 - 1) if align_corners else ((line + 1) * n_2 - 1) / 2


def as_maps(x_BCHW: Tensor) -> Tensor:
    """A feature map for the eye: the mean over channels, from the least to the most of all of them."""
    x_B1HW = x_BCHW.mean(1, keepdim=True)
    return (x_B1HW - x_B1HW.min()) / (x_B1HW.max() - x_B1HW.min()).clamp(min=1e-6)


@dataclass(frozen=True)
class Subject:
    """A network, the numbers of the test images that it is shown with, and its record, if there is one."""

    model: Transformed
    stream: Stream
    title: str
    numbers: list[int]
    rows: list[Row]

    @property
    def x_BCHW(self) -> Tensor:
        return self.stream.test_images(torch.tensor(self.numbers)).x_BCHW

    def theta(self, x_BCHW: Tensor) -> Tensor:
        return torch.cat([warp.theta_BP for warp in self.model.warps(x_BCHW)], 1)

    def recorded(self, row: Row) -> Tensor:
        return torch.tensor(row["theta"])[self.numbers]

    def warped(self, x_BCHW: Tensor, theta_BP: Tensor) -> list[Tensor]:
        """The images under the parameters, for each of parallel transforms."""
        o, finer = self.model.options, 1 if self.model.at[-1] else int(self.model.st[-1].finer)  # type: ignore[arg-type]
        grids = image_grids(self.model, self.stream.dataset.shape, theta_BP)
        found = [F.avg_pool2d(sample(x_BCHW, g, o.padding, o.align_corners), finer) for g in grids]
        return [self.stream.as_image(image) for image in found]

    def strips(self, label: str, x_BCHW: Tensor, theta_BP: Tensor) -> list[Strip]:
        images = self.warped(x_BCHW, theta_BP)
        return [Strip(f"{label} ({k + 1})" if len(images) > 1 else label, each) for k, each in enumerate(images)]
