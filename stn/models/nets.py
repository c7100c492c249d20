"""Classifiers with their localisation nets, each as a function of the wiring that uses them.

A network may differ with the wiring: some papers keep the number of parameters equal. To add one, add a function.
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from stn.config.registry import register
from stn.models.layers import Maker, Net, average, block, classify, conv, dense, mix

ON_IMAGE = ("stn_c0", "stn_c0_coord")
"""Wirings whose localisation net reads the image."""


def conv_of_head(wiring: str) -> Callable[..., Maker]:
    """Return ``conv`` for a localisation net, over coordinates too where the wiring is CoordConv's."""
    return partial(conv, coordinates={} if wiring == "stn_c0_coord" else None)


# ---- Finnveden, Jansson and Lindeberg (arXiv 2004.11678), Table VI


@register("net")
def finnveden_r(wiring: str, classes: int) -> Net:
    """Finnveden et al. for 28x28 images (rotated MNIST)."""
    width = 32 if wiring == "cnn" else 16
    # The paper's stn_c0 has no convolution that could see coordinates; stn_c0_coord takes the tutorial's head.
    heads = {"stn_c0": [dense(32, 16, 16)], "stn_c0_coord": _tutorial_head({}, {})}
    return Net([conv(width, 9), conv(32, 7), classify(classes)], heads.get(wiring, [dense(16, 16, 16)]))


@register("net")
def finnveden_t(wiring: str, classes: int) -> Net:
    """Finnveden et al. for 60x60 images (translated MNIST); the transformer halves the side."""
    width, loc_conv = 21 if wiring == "cnn" else 16, conv_of_head(wiring)
    head = [conv(20, 5), conv(20, 5, pool=1), dense(20)]
    if wiring in ON_IMAGE:
        head = [loc_conv(20, 5), loc_conv(20, 5), dense(10)]
    return Net([conv(width, 9), conv(32, 7), classify(classes)], head, scale=0.5)


@register("net")
def finnveden_s(wiring: str, classes: int) -> Net:
    """Finnveden et al. for 112x112 images (scaled MNIST)."""
    widths, loc_conv = (23, 21) if wiring == "cnn" else (16, 16), conv_of_head(wiring)
    halve: list[Maker] = [lambda shape: nn.AvgPool2d(2)] if wiring in ON_IMAGE else []  # bilinear, to half the side
    head = [*halve, loc_conv(16, 5), loc_conv(16, 5), dense(16)]
    return Net([conv(widths[0], 9), conv(widths[1], 7), classify(classes)], head)


# ---- the PyTorch tutorial's network, and what three projects made of it


def _tutorial_head(first: dict | None, second: dict | None, slope: float = 0.0) -> list[Maker]:
    return [conv(8, 7, coordinates=first, slope=slope), conv(10, 5, coordinates=second, slope=slope), dense(32)]


def _tutorial(wiring: str, classes: int, *coordinates: dict | None, slope: float = 0.0, norm: bool = False) -> Net:
    """Return the network; with CoordConv, its localisation net has these coordinates in its two convolutions."""
    heads = {"stn_c0": _tutorial_head(None, None, slope), "stn_c0_coord": _tutorial_head(*coordinates, slope=slope)}
    stages = [conv(10, 5, norm=norm), conv(20, 5, dropout=0.5, norm=norm), classify(classes, 50, dropout=0.5)]
    return Net(stages, heads.get(wiring, [conv(10, 5), dense(32)]))


@register("net")
def tutorial(wiring: str, classes: int) -> Net:
    """The PyTorch tutorial's network for 28x28 images; CoordConv as in PyTorch-STN (vicsesi)."""
    return _tutorial(wiring, classes, {}, {})


@register("net")
def tutorial_leaky(wiring: str, classes: int) -> Net:
    """As tutorial, with leaky ReLU (0.01) after the localisation net's convolutions."""
    return _tutorial(wiring, classes, {}, {}, slope=0.01)


@register("net")
def tutorial_linear(wiring: str, classes: int) -> Net:
    """As tutorial, without activation after the localisation net's convolutions: leaky ReLU of slope 1."""
    return _tutorial(wiring, classes, {}, {}, slope=1.0)


@register("net")
def tutorial_first(wiring: str, classes: int) -> Net:
    """As tutorial, CoordConv in the first convolution only, coordinates in front (uam-biometrics)."""
    return _tutorial(wiring, classes, {"first": True}, None)


_CORNER = {"radius": True, "centre": 0.5}
"""The distance is taken from half way to a corner: coordinates run from -1 to 1."""


@register("net")
def tutorial_radius(wiring: str, classes: int) -> Net:
    """As tutorial, CoordConv with the distance from (0.5, 0.5) as a third channel (manuelrames)."""
    return _tutorial(wiring, classes, _CORNER, _CORNER)


@register("net")
def tutorial_centre(wiring: str, classes: int) -> Net:
    """As tutorial, CoordConv with the distance from the true centre as a third channel."""
    return _tutorial(wiring, classes, {"radius": True}, {"radius": True})


@register("net")
def tutorial_norm(wiring: str, classes: int) -> Net:
    """As tutorial_radius, with batch norm after each ReLU of the classifier's convolutions (manuelrames, later)."""
    return _tutorial(wiring, classes, _CORNER, _CORNER, norm=True)


# ---- Jaderberg et al. (arXiv 1506.02025), distorted MNIST; widths for about 400,000 parameters on 28x28


@register("net")
def jaderberg_fcn(wiring: str, classes: int) -> Net:
    """Jaderberg et al., fully connected classifier and localisation net."""
    return Net([dense(352), dense(352), classify(classes)], [dense(32, 32, 32)])


@register("net")
def jaderberg_cnn(wiring: str, classes: int) -> Net:
    """Jaderberg et al., convolutional classifier and localisation net."""
    loc_conv = conv_of_head(wiring)
    convolutions = [loc_conv(20, 5), loc_conv(20, 5)] if wiring in ON_IMAGE else [conv(20, 5)]
    return Net([conv(64, 9), conv(122, 7), classify(classes)], [*convolutions, dense(32)])


# ---- Lin and Lucey (CVPR 2017)


@register("net")
def icstn(wiring: str, classes: int) -> Net:
    """Lin and Lucey for 28x28 images under homography noise; as cnn their larger classifier."""
    if wiring == "cnn":
        narrow = [conv(3, 3, pool=1), conv(6, 3), conv(9, 3, pool=1), conv(12, 3, pool=1)]
        return Net([*narrow, classify(classes, 48)])
    loc_conv = conv_of_head(wiring)
    return Net([conv(3, 9, pool=1), classify(classes)], [loc_conv(4, 7, pool=1), loc_conv(8, 7), dense(48)])


# ---- CIFAR-10


@register("net")
def lenet(wiring: str, classes: int) -> Net:
    """LeNet for 32x32 colour images with a wide localisation net (lavanyanemani96)."""
    loc_conv = conv_of_head(wiring)
    head = [loc_conv(64, 7), loc_conv(128, 5), dense(256)] if wiring in ON_IMAGE else [dense(64)]
    return Net([conv(6, 5), conv(16, 5), classify(classes, 120, 84)], head)


@register("net")
def dilated(wiring: str, classes: int) -> Net:
    """Fourteen depthwise, dilated and grouped convolutions for 32x32 colour images (rajy4683)."""
    near = partial(block, kernel=3, dropout=0.1, padding=1)
    stages = [
        *(near(24), near(24), near(24, stride=2, dilation=2, padding=2), mix(24)),
        *(near(24), near(24, groups=24), near(24, stride=2, dilation=2, padding=2, groups=12), mix(48)),
        *(near(48, dilation=2, padding=2), near(48, dilation=2, padding=2, groups=48), mix(96)),
        *(near(96), near(96, groups=12), average(classes)),
    ]
    if wiring not in ON_IMAGE:
        return Net(stages, [conv(10, 3, padding=1), conv(10, 3, padding=1), dense(32)])
    loc_conv = conv_of_head(wiring)
    linear = partial(loc_conv, 8, 3, pool=1, slope=1.0)
    return Net(stages, [linear(), linear(), loc_conv(8, 7), loc_conv(10, 5), dense(32)])


@register("net")
def cifar_small(wiring: str, classes: int) -> Net:
    """Five 3x3 convolutions for 32x32 colour images, dropout before the last layer."""
    near = partial(conv, kernel=3, padding=1)
    stages = [near(32, pool=1), near(32), near(64, pool=1), near(64), near(128), classify(classes, dropout=0.3)]
    near = partial(conv_of_head(wiring), kernel=3, padding=1)
    return Net(stages, [near(16), near(16), dense(32)])
