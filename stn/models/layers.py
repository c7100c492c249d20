"""The parts of classifiers and localisation nets: makers that take an input shape.

A classifier is a list of stages; stage i ends where depth X = i + 1 is read, after the
pooling that follows the convolution.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stn.models.grids import cached_constant

Shape = tuple[int, int, int]
Maker = Callable[[Shape], nn.Module]


@dataclass(frozen=True)
class Net:
    """A classifier and the localisation net that goes with one wiring."""

    stages: Sequence[Maker]
    head: Sequence[Maker] = ()
    scale: float = 1.0
    """Side of the transformer's output over the side of its input."""


def shape_after(module: nn.Module, shape: Shape) -> Shape:
    """Return the output shape of one image, [C, H, W] or [features]."""
    training = module.training
    with torch.no_grad():
        out = module.eval()(torch.zeros(1, *shape))
    module.train(training)
    return tuple(out.shape[1:])  # type: ignore[return-value]


def build(makers: Sequence[Maker], shape: Shape) -> list[nn.Module]:
    """Return the modules of makers in a row, each for the output shape of the one before."""
    modules = []
    for make in makers:
        modules.append(make(shape))
        shape = shape_after(modules[-1], shape)
    return modules


@cached_constant
def _coordinates(H: int, W: int, radius: bool, centre: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    row = torch.linspace(-1, 1, H, device=device, dtype=dtype).view(H, 1).expand(H, W)
    column = torch.linspace(-1, 1, W, device=device, dtype=dtype).expand(H, W)
    distance = [((row - centre) ** 2 + (column - centre) ** 2).sqrt()] if radius else []
    return torch.stack([row, column, *distance]).unsqueeze(0)


class CoordConv2d(nn.Conv2d):
    """A convolution over the input and its row and column coordinates in [-1, 1].

    The coordinates are the same for every image, so their part is convolved once per
    batch and added: a bias map. ``first`` puts them before the image channels; ``radius``
    appends the distance from ``centre``.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        kernel: int,
        padding: int = 0,
        first: bool = False,
        radius: bool = False,
        centre: float = 0.0,
    ):
        self.image_channels = channels
        super().__init__(channels + 2 + radius, width, kernel, padding=padding)
        self.first, self.radius, self.centre = first, radius, centre

    def coordinates(self, x_BCHW: Tensor) -> Tensor:
        H, W = x_BCHW.shape[2:]
        return _coordinates(H, W, self.radius, self.centre, x_BCHW.device, x_BCHW.dtype)

    def forward(self, input: Tensor) -> Tensor:
        extra = self.in_channels - self.image_channels
        sizes = [extra, self.image_channels] if self.first else [self.image_channels, extra]
        parts = self.weight.split(sizes, dim=1)
        for_coordinates, for_image = parts if self.first else parts[::-1]
        bias_map = F.conv2d(self.coordinates(input), for_coordinates, self.bias, padding=self.padding)
        return F.conv2d(input, for_image, padding=self.padding) + bias_map


def conv(
    width: int,
    kernel: int,
    *,
    pool: int = 2,
    padding: int = 0,
    dropout: float = 0.0,
    coordinates: dict | None = None,
    slope: float = 0.0,
    norm: bool = False,
) -> Maker:
    """Return a maker: convolution, channel dropout, max-pool, ReLU (leaky by ``slope``; 1: none), batch norm."""

    def make(shape: Shape) -> nn.Module:
        side = shape[-1] + 2 * padding - kernel + 1
        if len(shape) != 3 or side < max(1, pool):
            raise ValueError(f"a {kernel}x{kernel} convolution does not fit a {'x'.join(map(str, shape))} map")
        if coordinates is None:
            layers: list[nn.Module] = [nn.Conv2d(shape[0], width, kernel, padding=padding)]
        else:
            layers = [CoordConv2d(shape[0], width, kernel, padding, **coordinates)]
        if dropout:
            layers.append(nn.Dropout2d(dropout))
        if pool > 1:
            layers.append(nn.MaxPool2d(pool))
        if slope < 1:
            layers.append(nn.LeakyReLU(slope) if slope else nn.ReLU())
        if norm:
            layers.append(nn.BatchNorm2d(width))
        return nn.Sequential(*layers)

    return make


def block(width: int, kernel: int, dropout: float = 0.0, **how: Any) -> Maker:
    """Return a maker: convolution without bias (``how``: stride, padding and so on), batch norm, ReLU, dropout."""

    def make(shape: Shape) -> nn.Module:
        layers = [nn.Conv2d(shape[0], width, kernel, bias=False, **how), nn.BatchNorm2d(width), nn.ReLU()]
        return nn.Sequential(*layers, *([nn.Dropout(dropout)] if dropout else []))

    return make


def mix(width: int) -> Maker:
    """Return a maker: a 1x1 convolution without bias and activation."""
    return lambda shape: nn.Conv2d(shape[0], width, 1, bias=False)


def average(classes: int) -> Maker:
    """Return a maker: a last stage without a linear layer, a 1x1 convolution and the mean over the map."""
    return lambda shape: nn.Sequential(mix(classes)(shape), nn.AvgPool2d(shape[1:]), nn.Flatten())


def dense(*widths: int, dropout: float = 0.0) -> Maker:
    """Return a maker: flatten, then fully connected layers with ReLU."""

    def make(shape: Shape) -> nn.Module:
        features = torch.Size(shape).numel()
        layers: list[nn.Module] = [nn.Flatten()]
        for width in widths:
            layers += [nn.Linear(features, width), nn.ReLU()]
            features = width
        if dropout:
            layers.append(nn.Dropout(dropout))
        return nn.Sequential(*layers)

    return make


def classify(classes: int, *hidden: int, dropout: float = 0.0) -> Maker:
    """Return a maker: the last stage, fully connected layers down to one logit per class."""

    def make(shape: Shape) -> nn.Module:
        body = dense(*hidden, dropout=dropout)(shape)
        return nn.Sequential(body, nn.Linear(shape_after(body, shape)[0], classes))

    return make
