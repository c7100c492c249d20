"""Classifiers with their localisation nets, each as a function of the wiring that uses them.

Table VI of Finnveden, Jansson and Lindeberg (arXiv 2004.11678) keeps the number of
parameters equal over wirings, so widths depend on the wiring. Adding a network: add a
function here.
"""

from stn.archs.stages import Net, classify, conv, dense, halve
from stn.registry import register

_TUTORIAL_WIDTHS = (8, 10)


def _tutorial_head(coordinates: dict | None) -> list:
    first, second = _TUTORIAL_WIDTHS
    return [conv(first, 7, coordinates=coordinates), conv(second, 5, coordinates=coordinates), dense(32)]


@register("net")
def finnveden_r(wiring: str, classes: int) -> Net:
    """Finnveden et al. for 28x28 images (rotated MNIST)."""
    width = 32 if wiring == "cnn" else 16
    heads = {"stn_c0": [dense(32, 16, 16)], "stn_c0_coord": _tutorial_head({})}
    # On R the paper's stn_c0 has no convolution that could see coordinates; with them it
    # takes the tutorial's localisation net.
    return Net([conv(width, 9), conv(32, 7), classify(classes)], heads.get(wiring, [dense(16, 16, 16)]))


@register("net")
def finnveden_t(wiring: str, classes: int) -> Net:
    """Finnveden et al. for 60x60 images (translated MNIST); the transformer halves the side."""
    width = 21 if wiring == "cnn" else 16
    coordinates = {} if wiring == "stn_c0_coord" else None
    if wiring in ("stn_c0", "stn_c0_coord"):
        head = [conv(20, 5, coordinates=coordinates), conv(20, 5, coordinates=coordinates), dense(10)]
    else:
        head = [conv(20, 5), conv(20, 5, pool=1), dense(20)]
    return Net([conv(width, 9), conv(32, 7), classify(classes)], head, scale=0.5)


@register("net")
def finnveden_s(wiring: str, classes: int) -> Net:
    """Finnveden et al. for 112x112 images (scaled MNIST)."""
    widths = (23, 21) if wiring == "cnn" else (16, 16)
    coordinates = {} if wiring == "stn_c0_coord" else None
    head = [conv(16, 5, coordinates=coordinates), conv(16, 5, coordinates=coordinates), dense(16)]
    if wiring in ("stn_c0", "stn_c0_coord"):
        head = [halve(), *head]
    return Net([conv(widths[0], 9), conv(widths[1], 7), classify(classes)], head)


@register("net")
def tutorial(wiring: str, classes: int) -> Net:
    """The PyTorch tutorial's network for 28x28 images; with stn_c0, 27,360 parameters."""
    stages = [conv(10, 5), conv(20, 5, dropout=0.5), classify(classes, 50, dropout=0.5)]
    if wiring in ("stn_c0", "stn_c0_coord"):
        return Net(stages, _tutorial_head({} if wiring == "stn_c0_coord" else None))
    return Net(stages, [conv(10, 5), dense(32)])


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
    coordinates = {} if wiring == "stn_c0_coord" else None
    head = [conv(16, 3, padding=1, coordinates=coordinates), conv(16, 3, padding=1, coordinates=coordinates), dense(32)]
    return Net(stages, head)
