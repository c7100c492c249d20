"""The architectures: what the localisation head reads, and what the transformer resamples.

A warp may stand between any two stages of any classifier. Adding an architecture: add a
function here; it takes the network's maker, the image shape and the number of classes.
"""

import copy
from collections.abc import Callable

from torch import Tensor, nn

from stn.archs.stages import Maker, Net, Shape, build, shape_after
from stn.registry import register
from stn.warp import SpatialTransformer

MakeNet = Callable[[str, int], Net]


class Transformed(nn.Module):
    """A classifier in stages with a transformer before stage ``at``.

    The head reads what the first ``shared`` stages make of the transformer's input, or what
    the transformer's own trunk makes of it.
    """

    def __init__(self, stages: list[nn.Module], st: SpatialTransformer, at: int = 0, shared: int = 0) -> None:
        super().__init__()
        self.stages, self.st, self.at, self.shared = nn.ModuleList(stages), st, at, shared

    def _run(self, x: Tensor, first: int, last: int) -> Tensor:
        for i in range(first, last):
            x = self.stages[i](x)
        return x

    def warp(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """What the rest of the classifier sees, and the transform that made it."""
        return self.st(self._run(x_BCHW, 0, self.at), lambda y: self._run(y, self.at, self.at + self.shared))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self._run(self.warp(x_BCHW)[0], self.at, len(self.stages))


def _depth(depth: int, makers: list[Maker], least: int) -> int:
    if not least <= depth < len(makers):
        raise ValueError(f"arch.depth {depth} is not possible here: {least} to {len(makers) - 1}")
    return depth


def _scaled(shape: Shape, scale: float) -> Shape:
    return (shape[0], round(shape[1] * scale), round(shape[2] * scale))


def _head(net: Net, features: Shape) -> tuple[nn.Module, int]:
    try:
        head = nn.Sequential(*build(net.head, features))
    except ValueError as error:
        raise ValueError(f"the localisation net cannot read this depth: {error}") from None
    return head, shape_after(head, features)[0]


def _on_image(net: Net, shape: Shape, depth: int, copied: bool, st_options: dict) -> Transformed:
    """The transformer resamples the input image; the head reads it at ``depth``."""
    warped = _scaled(shape, net.scale)
    stages = build(net.stages, warped)
    trunk = nn.Sequential(*stages[:depth])
    head, hidden = _head(net, shape_after(trunk, shape))
    own = copy.deepcopy(trunk) if copied and depth else None
    st = SpatialTransformer(head, hidden, warped[1:], own, **st_options)
    return Transformed(stages, st, shared=0 if copied else depth)


@register("arch")
def cnn(make_net: MakeNet, shape: Shape, classes: int) -> nn.Module:
    """The plain classifier: the baseline without a transformer."""
    return nn.Sequential(*build(make_net("cnn", classes).stages, shape))


@register("arch", extends=SpatialTransformer)
def stn_c0(make_net: MakeNet, shape: Shape, classes: int, **st) -> nn.Module:
    """The head reads the image; the image is warped."""
    return _on_image(make_net("stn_c0", classes), shape, 0, False, st)


@register("arch", extends=SpatialTransformer)
def stn_c0_coord(make_net: MakeNet, shape: Shape, classes: int, **st) -> nn.Module:
    """As stn_c0, with CoordConv in the localisation net (CoordConv-LN)."""
    return _on_image(make_net("stn_c0_coord", classes), shape, 0, False, st)


@register("arch", extends=SpatialTransformer)
def stn_cx(make_net: MakeNet, shape: Shape, classes: int, *, depth: int = 1, **st) -> nn.Module:
    """The head reads the feature map after X convolutions; that feature map is warped."""
    net = make_net("stn_cx" if depth else "stn_c0", classes)
    _depth(depth, list(net.stages), 0)
    below = build(net.stages[:depth], shape)
    features = shape_after(nn.Sequential(*below), shape)
    warped = _scaled(features, net.scale)
    above = build(net.stages[depth:], warped)
    head, hidden = _head(net, features)
    return Transformed([*below, *above], SpatialTransformer(head, hidden, warped[1:], **st), at=depth)


@register("arch", extends=SpatialTransformer)
def stn_dlx(make_net: MakeNet, shape: Shape, classes: int, *, depth: int = 1, **st) -> nn.Module:
    """The head reads a copy of the first X convolutions, with its own weights; the image is warped."""
    net = make_net("stn_dlx" if depth else "stn_c0", classes)
    return _on_image(net, shape, _depth(depth, list(net.stages), 0), True, st)


@register("arch", extends=SpatialTransformer)
def stn_slx(make_net: MakeNet, shape: Shape, classes: int, *, depth: int = 1, **st) -> nn.Module:
    """The head reads the classifier's own first X convolutions, which run again on the warped image."""
    net = make_net("stn_slx" if depth else "stn_c0", classes)
    return _on_image(net, shape, _depth(depth, list(net.stages), 0), False, st)


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
