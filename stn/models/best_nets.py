"""Our own networks, for the best accuracy that a CPU reaches in an hour."""

from torch import Tensor, nn

from stn.config.registry import register
from stn.models.layers import Maker, Net, Shape, average, classify, conv, dense
from stn.models.nets import conv_of_head


def _head(wiring: str) -> list[Maker]:
    loc_conv = conv_of_head(wiring)
    return [loc_conv(16, 5), loc_conv(16, 3, padding=1), dense(32)]


def _deep(wiring: str, widths: tuple[int, ...], last: Maker) -> Net:
    """3x3 convolutions with batch norm in pairs, the second of each pooled."""
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


class Scale(nn.Module):
    """Multiply by a constant, so that logits start small and learn slowly."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def _identity_conv(width: int, pool: int = 1) -> Maker:
    """3x3 convolution that starts as the identity on its first channels, max-pool, batch norm, GELU."""

    def make(shape: Shape) -> nn.Module:
        layer = nn.Conv2d(shape[0], width, 3, padding=1, bias=False)
        nn.init.dirac_(layer.weight.data[: shape[0]])
        return nn.Sequential(layer, *[nn.MaxPool2d(pool)] * (pool > 1), nn.BatchNorm2d(width), nn.GELU())

    return make


@register("net")
def wide_cifar(wiring: str, classes: int) -> Net:
    """Seven 3x3 convolutions for 32x32 colour images, after airbench94 (arXiv 2404.00498) without its whitening."""
    stages = [_identity_conv(24)]
    for width in (64, 256, 256):
        stages += [_identity_conv(width, pool=2), _identity_conv(width)]

    def last(shape: Shape) -> nn.Module:
        linear = nn.Linear(shape[0], classes, bias=False)
        return nn.Sequential(nn.MaxPool2d(shape[1:]), nn.Flatten(), linear, Scale(1 / 9))

    return Net([*stages, last], _head(wiring))
