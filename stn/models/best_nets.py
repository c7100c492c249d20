"""Our own networks, for the best accuracy that a CPU reaches in an hour."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stn.config.registry import register
from stn.models.layers import Maker, Net, Shape, average, classify, conv, dense
from stn.models.nets import conv_of_head


def _head(wiring: str) -> list[Maker]:
    loc_conv = conv_of_head(wiring)
    return [loc_conv(16, 5), loc_conv(16, 3, padding=1), dense(32)]


def _deep(wiring: str, widths: tuple[int, ...], last: Maker) -> Net:
    """Return a network of 3x3 convolutions with batch norm in pairs, the second of each pair pooled."""
    stages = [conv(width, 3, padding=1, pool=1 + i % 2, norm=True) for i, width in enumerate(widths)]
    return Net([*stages, last], _head(wiring))


@register("net")
def deep_mnist(wiring: str, classes: int) -> Net:
    """Six 3x3 convolutions with batch norm for 28x28 images."""
    return _deep(wiring, (32, 32, 64, 64, 128, 128), classify(classes, dropout=0.3))


@register("net")
def deep_cifar(wiring: str, classes: int) -> Net:
    """Six 3x3 convolutions with batch norm for 32x32 colour images, mean over the last map."""
    return _deep(wiring, (48, 48, 96, 96, 192, 192), average(classes))


class Whitening(nn.Module):
    """A fixed 2x2 convolution whose outputs are hardly correlated for CIFAR-10's images, and of variance 1.

    Its filters, and their negatives, are sums and differences of neighbours times those of colours. ``VARIANCES`` are
    those of 45,000 normalised training images along the filters; 0.0005 is added, so that noise is not amplified.
    """

    VARIANCES = (10.134, 0.331, 0.396, 0.0554, 0.828, 0.0144, 0.0167, 0.00160, 0.189, 0.00458, 0.00505, 0.00063)

    def __init__(self) -> None:
        super().__init__()
        in_place = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / math.sqrt(2)
        colours = F.normalize(torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]]))
        filters = torch.einsum("kc,yi,xj->kyxcij", colours, in_place, in_place).reshape(12, 3, 2, 2)
        filters = filters / (torch.tensor(self.VARIANCES) + 0.0005).sqrt().view(12, 1, 1, 1)
        self.weight = nn.Parameter(torch.cat([filters, -filters]), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(24))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias)


class FastBias(nn.BatchNorm2d):
    """Batch norm with its scale fixed at 1, whose bias learns 64 times as fast: an eighth of it is stored."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.weight.requires_grad_(False)

    def forward(self, input: Tensor) -> Tensor:
        running = self.running_mean, self.running_var
        return F.batch_norm(input, *running, self.weight, 8 * self.bias, self.training, 0.1, self.eps)


class Scale(nn.Module):
    """Multiply by a constant, so that logits start small and learn slowly."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def _identity_conv(width: int, pool: int = 1) -> Maker:
    """Return a maker: 3x3 convolution that starts as the identity on its first channels, max-pool, batch norm, GELU."""

    def make(shape: Shape) -> nn.Module:
        layer = nn.Conv2d(shape[0], width, 3, padding=1, bias=False)
        nn.init.dirac_(layer.weight.data[: shape[0]])
        return nn.Sequential(layer, *[nn.MaxPool2d(pool)] * (pool > 1), FastBias(width), nn.GELU())

    return make


def _whiten(shape: Shape) -> nn.Module:
    if shape[0] != 3:
        raise ValueError(f"whitened_cifar is for colour images, not for {shape[0]} channel; give another --net")
    return nn.Sequential(Whitening(), nn.GELU())


@register("net")
def whitened_cifar(wiring: str, classes: int) -> Net:
    """Airbench94 (arXiv 2404.00498): whitening, then six 3x3 convolutions, for 32x32 colour images."""
    stages: list[Maker] = [_whiten]
    for width in (64, 256, 256):
        stages += [_identity_conv(width, pool=2), _identity_conv(width)]

    def last(shape: Shape) -> nn.Module:
        linear = nn.Linear(shape[0], classes, bias=False)
        return nn.Sequential(nn.MaxPool2d(shape[1:]), nn.Flatten(), linear, Scale(1 / 9))

    return Net([*stages, last], _head(wiring))
