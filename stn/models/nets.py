"""Classifiers with their localisation nets, each as a function of the wiring that uses them.

A network may differ with the wiring: some papers keep the number of parameters equal over
wirings. Adding a network: add a function here.
"""

from stn.config.registry import register
from stn.models.layers import Maker, Net, average, block, classify, conv, dense, halve, mix


def _coord(wiring: str) -> dict | None:
    """Coordinates for every convolution of the localisation net, where the wiring wants them."""
    return {} if wiring == "stn_c0_coord" else None


# ---- Finnveden, Jansson and Lindeberg (arXiv 2004.11678), Table VI


@register("net")
def finnveden_r(wiring: str, classes: int) -> Net:
    """Finnveden et al. for 28x28 images (rotated MNIST)."""
    width = 32 if wiring == "cnn" else 16
    # On R the paper's stn_c0 has no convolution that could see coordinates; with them it
    # takes the tutorial's localisation net.
    heads = {"stn_c0": [dense(32, 16, 16)], "stn_c0_coord": _tutorial_head([{}, {}])}
    return Net([conv(width, 9), conv(32, 7), classify(classes)], heads.get(wiring, [dense(16, 16, 16)]))


@register("net")
def finnveden_t(wiring: str, classes: int) -> Net:
    """Finnveden et al. for 60x60 images (translated MNIST); the transformer halves the side."""
    width, coordinates = 21 if wiring == "cnn" else 16, _coord(wiring)
    if wiring in ("stn_c0", "stn_c0_coord"):
        head = [conv(20, 5, coordinates=coordinates), conv(20, 5, coordinates=coordinates), dense(10)]
    else:
        head = [conv(20, 5), conv(20, 5, pool=1), dense(20)]
    return Net([conv(width, 9), conv(32, 7), classify(classes)], head, scale=0.5)


@register("net")
def finnveden_s(wiring: str, classes: int) -> Net:
    """Finnveden et al. for 112x112 images (scaled MNIST)."""
    widths, coordinates = (23, 21) if wiring == "cnn" else (16, 16), _coord(wiring)
    head = [conv(16, 5, coordinates=coordinates), conv(16, 5, coordinates=coordinates), dense(16)]
    if wiring in ("stn_c0", "stn_c0_coord"):
        head = [halve(), *head]
    return Net([conv(widths[0], 9), conv(widths[1], 7), classify(classes)], head)


# ---- the PyTorch tutorial's network, and what three projects made of it


def _tutorial_head(coordinates: list[dict | None], slope: float = 0.0) -> list[Maker]:
    first, second = coordinates
    return [conv(8, 7, coordinates=first, slope=slope), conv(10, 5, coordinates=second, slope=slope), dense(32)]


def _tutorial(wiring: str, classes: int, coordinates: list[dict | None], slope: float = 0.0, norm: bool = False) -> Net:
    stages = [
        conv(10, 5, norm=norm),
        conv(20, 5, dropout=0.5, norm=norm),
        classify(classes, 50, dropout=0.5),
    ]
    if wiring == "stn_c0_coord":
        return Net(stages, _tutorial_head(coordinates, slope))
    return Net(stages, _tutorial_head([None, None], slope) if wiring == "stn_c0" else [conv(10, 5), dense(32)])


@register("net")
def tutorial(wiring: str, classes: int) -> Net:
    """The PyTorch tutorial's network for 28x28 images; CoordConv as in PyTorch-STN (vicsesi)."""
    return _tutorial(wiring, classes, [{}, {}])


@register("net")
def tutorial_leaky(wiring: str, classes: int) -> Net:
    """As tutorial, with leaky ReLU (0.01) after the localisation net's convolutions."""
    return _tutorial(wiring, classes, [{}, {}], slope=0.01)


@register("net")
def tutorial_linear(wiring: str, classes: int) -> Net:
    """As tutorial, without activation after the localisation net's convolutions: leaky ReLU of slope 1."""
    return _tutorial(wiring, classes, [{}, {}], slope=1.0)


@register("net")
def tutorial_first(wiring: str, classes: int) -> Net:
    """As tutorial, CoordConv in the first convolution only, coordinates in front (uam-biometrics)."""
    return _tutorial(wiring, classes, [{"first": True}, None])


_CORNER = {"radius": True, "centre": 0.5}
"""The distance is taken from half way to a corner: coordinates run from -1 to 1."""


@register("net")
def tutorial_radius(wiring: str, classes: int) -> Net:
    """As tutorial, CoordConv with the distance from (0.5, 0.5) as a third channel (manuelrames)."""
    return _tutorial(wiring, classes, [_CORNER, _CORNER])


@register("net")
def tutorial_centre(wiring: str, classes: int) -> Net:
    """As tutorial, CoordConv with the distance from the true centre as a third channel."""
    return _tutorial(wiring, classes, [{"radius": True}, {"radius": True}])


@register("net")
def tutorial_norm(wiring: str, classes: int) -> Net:
    """As tutorial_radius, with batch norm after each ReLU of the classifier's convolutions (manuelrames, later)."""
    return _tutorial(wiring, classes, [_CORNER, _CORNER], norm=True)


# ---- Jaderberg et al. (arXiv 1506.02025), distorted MNIST; widths for about 400,000 parameters on 28x28


@register("net")
def jaderberg_fcn(wiring: str, classes: int) -> Net:
    """Jaderberg et al., fully connected classifier and localisation net."""
    return Net([dense(352), dense(352), classify(classes)], [dense(32, 32, 32)])


@register("net")
def jaderberg_cnn(wiring: str, classes: int) -> Net:
    """Jaderberg et al., convolutional classifier and localisation net."""
    stages, coordinates = [conv(64, 9), conv(122, 7), classify(classes)], _coord(wiring)
    if wiring not in ("stn_c0", "stn_c0_coord"):
        return Net(stages, [conv(20, 5), dense(32)])
    return Net(stages, [conv(20, 5, coordinates=coordinates), conv(20, 5, coordinates=coordinates), dense(32)])


# ---- Lin and Lucey (CVPR 2017)


@register("net")
def icstn(wiring: str, classes: int) -> Net:
    """Lin and Lucey for 28x28 images under homography noise; as cnn their larger classifier."""
    if wiring == "cnn":
        narrow = [conv(3, 3, pool=1), conv(6, 3), conv(9, 3, pool=1), conv(12, 3, pool=1)]
        return Net([*narrow, classify(classes, 48)])
    coordinates = _coord(wiring)
    head = [conv(4, 7, pool=1, coordinates=coordinates), conv(8, 7, coordinates=coordinates), dense(48)]
    return Net([conv(3, 9, pool=1), classify(classes)], head)


# ---- our own, for the best accuracy with at most a million parameters


def _normed(*widths: int) -> list[Maker]:
    """3x3 convolutions with batch norm in pairs, the second of each pooled."""
    return [conv(width, 3, padding=1, pool=1 + i % 2, norm=True) for i, width in enumerate(widths)]


@register("net")
def deep_mnist(wiring: str, classes: int) -> Net:
    """Six 3x3 convolutions with batch norm for 28x28 images."""
    coordinates = _coord(wiring)
    head = [conv(16, 5, coordinates=coordinates), conv(16, 3, padding=1, coordinates=coordinates), dense(32)]
    return Net([*_normed(32, 32, 64, 64, 128, 128), classify(classes, dropout=0.3)], head)


@register("net")
def deep_cifar(wiring: str, classes: int) -> Net:
    """Six 3x3 convolutions with batch norm for 32x32 colour images, mean over the last map."""
    coordinates = _coord(wiring)
    head = [conv(16, 5, coordinates=coordinates), conv(16, 3, padding=1, coordinates=coordinates), dense(32)]
    return Net([*_normed(48, 48, 96, 96, 192, 192), average(classes)], head)


# ---- CIFAR-10


@register("net")
def lenet(wiring: str, classes: int) -> Net:
    """LeNet for 32x32 colour images with a wide localisation net (lavanyanemani96)."""
    stages = [conv(6, 5), conv(16, 5), classify(classes, 120, 84)]
    if wiring in ("stn_c0", "stn_c0_coord"):
        coordinates = _coord(wiring)
        return Net(stages, [conv(64, 7, coordinates=coordinates), conv(128, 5, coordinates=coordinates), dense(256)])
    return Net(stages, [dense(64)])


@register("net")
def dilated(wiring: str, classes: int) -> Net:
    """Fourteen depthwise, dilated and grouped convolutions for 32x32 colour images (rajy4683)."""

    def near(width: int, **how: int) -> Maker:
        return block(width, 3, 0.1, **({"padding": 1} | how))

    stages = [
        *(near(24), near(24), near(24, stride=2, dilation=2, padding=2), mix(24)),
        *(near(24), near(24, groups=24), near(24, stride=2, dilation=2, padding=2, groups=12), mix(48)),
        *(near(48, dilation=2, padding=2), near(48, dilation=2, padding=2, groups=48), mix(96)),
        *(near(96), near(96, groups=12), average(classes)),
    ]
    if wiring not in ("stn_c0", "stn_c0_coord"):
        return Net(stages, [conv(10, 3, padding=1), conv(10, 3, padding=1), dense(32)])
    coordinates = _coord(wiring)

    def flat(kernel: int, pool: int = 1) -> Maker:
        return conv(8, kernel, pool=pool, coordinates=coordinates, slope=0.0 if pool > 1 else 1.0)

    return Net(stages, [flat(3), flat(3), flat(7, pool=2), conv(10, 5, coordinates=coordinates), dense(32)])


@register("net")
def cifar_small(wiring: str, classes: int) -> Net:
    """Five 3x3 convolutions for 32x32 colour images, dropout before the last layer."""
    stages = [
        conv(32, 3, padding=1, pool=1),
        conv(32, 3, padding=1),
        conv(64, 3, padding=1, pool=1),
        conv(64, 3, padding=1),
        conv(128, 3, padding=1),
        classify(classes, dropout=0.3),
    ]
    coordinates = _coord(wiring)
    head = [conv(16, 3, padding=1, coordinates=coordinates), conv(16, 3, padding=1, coordinates=coordinates), dense(32)]
    return Net(stages, head)
