"""The architectures: what the localisation heads read, and what the transformer resamples.

A transformer may stand between any two stages of any classifier. To add an architecture, add a
function here; it takes the network's maker, the image shape and the number of classes.
"""

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from stn.config.registry import register
from stn.models.layers import CoordConv2d, Net, Shape, build, shape_after
from stn.models.transformer import Localisation, Options, SpatialTransformer, Warp
from stn.models.transforms import build_family

MakeNet = Callable[[str, int], Net]
Depth = int | tuple[int, ...]


class Transformed(nn.Module):
    """A classifier in stages, with transformers before some of them."""

    def __init__(self, stages: list[nn.Module], sts: dict[int, SpatialTransformer], options: Options) -> None:
        super().__init__()
        self.stages, self.st = nn.ModuleList(stages), nn.ModuleList(sts.values())
        self.at, self.options = tuple(sts), options
        if options.feed_theta:
            self._widen_last_layer(sum(st.options.parallel * len(st.family.identity) for st in sts.values()))

    def _widen_last_layer(self, more: int) -> None:
        stage = self.stages[-1]
        linear = stage[-1] if isinstance(stage, nn.Sequential) else None
        if not isinstance(linear, nn.Linear):
            raise ValueError("arch.feed_theta needs a classifier that ends in a linear layer")
        stage[-1] = nn.Linear(linear.in_features + more, linear.out_features)  # type: ignore[index]

    def _run(self, x: Tensor, first: int, last: int) -> Tensor:
        for i in range(first, last):
            x = self.stages[i](x)
        return x

    def warps(self, x_BCHW: Tensor) -> list[Warp]:
        """Return what each transformer does to a batch; the remaining stages read the last one's image."""
        warps: list[Warp] = []
        before = 0
        for at, st in zip(self.at, self.st, strict=True):
            x_BCHW = self._run(x_BCHW, before, at)
            warps.append(st(x_BCHW, lambda y, depth, at=at: self._run(y, at, at + depth)))
            x_BCHW, before = warps[-1].image_BCHW, at
        return warps

    def forward(self, x_BCHW: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits; in training with a decay of theta, also each image's penalty."""
        warps = self.warps(x_BCHW)
        x = self._run(warps[-1].image_BCHW, self.at[-1], len(self.stages) - 1)
        if self.options.feed_theta:
            body, linear = self.stages[-1]  # type: ignore[misc]
            logits = linear(torch.cat([body(x), *(warp.theta_BP.to(x.dtype) for warp in warps)], dim=1))
        else:
            logits = self.stages[-1](x)
        if not (self.training and self.options.theta_decay):
            return logits
        distances = [st.distance_from_identity(warp) for st, warp in zip(self.st, warps, strict=True)]  # type: ignore[operator]
        return logits, self.options.theta_decay * torch.stack(distances).sum(0)


def _depths(depth: Depth, net: Net) -> tuple[int, ...]:
    depths = (depth,) if isinstance(depth, int) else tuple(depth)
    if not depths or list(depths) != sorted(set(depths)):
        raise ValueError(f"arch.depth {depth} needs different depths in rising order")
    for d in depths:
        if not 0 <= d < len(net.stages):
            raise ValueError(f"arch.depth {d} is not possible here: 0 to {len(net.stages) - 1}")
    return depths


def _resized(shape: Shape, net: Net, options: Options) -> Shape:
    """Return the shape of a transformer's output for a map."""
    if len(shape) != 3:
        raise ValueError("after a fully connected layer there is no map to warp; give a smaller --arch.depth")
    height, width = (options.size or round(n * net.scale) for n in shape[1:])
    return shape[0] * options.parallel, height, width


def _localise(net: Net, features: Shape, depth: int, trunk: nn.Module | None, options: Options) -> list[Localisation]:
    """Return the localisation heads of one depth: one for each parallel transform."""
    identity = build_family(options.transform, options.points).identity
    heads = []
    for _ in range(options.parallel):
        try:
            head = nn.Sequential(*build(net.head, features))
        except ValueError as error:
            raise ValueError(f"the localisation net cannot read this depth: {error}") from None
        hidden = shape_after(head, features)[0]
        heads.append(Localisation(head, hidden, identity, depth, trunk, options.identity == "residual"))
    return heads


def _on_image(make: Callable[[int], Net], shape: Shape, depth: Depth, copied: bool, options: Options) -> Transformed:
    """Return a network that warps the input image; each head reads it through as many stages as its depth says."""
    net = make(depth if isinstance(depth, int) else max(depth, default=0))
    depths = _depths(depth, net)
    if options.parallel > 1 and depths != (0,):
        raise ValueError("parallel transforms need depth 0: stages cannot read one image and several at once")
    warped = _resized(shape, net, options)
    stages = build(net.stages, warped)
    heads = []
    for d in depths:
        trunk = nn.Sequential(*stages[:d])
        own_trunk = copy.deepcopy(trunk) if copied and d else None
        try:
            features = shape_after(trunk, shape)
        except RuntimeError:
            raise ValueError(
                f"the first {d} stages cannot read images of both sizes, {shape[1:]} and {warped[1:]}"
            ) from None
        heads += _localise(make(d), features, 0 if copied else d, own_trunk, options)
    return Transformed(stages, {0: SpatialTransformer(heads, shape[1], warped[1:], options)}, options)


@register("arch")
def cnn(make_net: MakeNet, shape: Shape, classes: int) -> nn.Module:
    """The plain classifier: the baseline without a transformer."""
    return nn.Sequential(*build(make_net("cnn", classes).stages, shape))


@register("arch", extends=Options)
def stn_c0(make_net: MakeNet, shape: Shape, classes: int, **st) -> nn.Module:
    """The head reads the image; the image is warped."""
    return _on_image(lambda _: make_net("stn_c0", classes), shape, 0, False, Options(**st))


@register("arch", extends=Options)
def stn_c0_coord(make_net: MakeNet, shape: Shape, classes: int, **st) -> nn.Module:
    """As stn_c0, with CoordConv in the localisation net (CoordConv-LN)."""
    model = _on_image(lambda _: make_net("stn_c0_coord", classes), shape, 0, False, Options(**st))
    if not any(isinstance(module, CoordConv2d) for module in model.st.modules()):
        raise ValueError("this localisation net has no convolution that could see coordinates")
    return model


@register("arch", extends=Options)
def stn_cx(make_net: MakeNet, shape: Shape, classes: int, *, depth: Depth = 1, **st) -> nn.Module:
    """The head reads the feature map after X convolutions; that feature map is warped."""
    options = Options(**st)
    net = make_net("stn_cx" if depth else "stn_c0", classes)
    depths, stages, sts = _depths(depth, net), [], {}
    for i, maker in enumerate(net.stages):
        if i in depths:
            last = i == depths[-1]  # the last one gives the map its new size
            here = options if last else replace(options, size=None, antialias=False)
            out = _resized(shape, net if last else Net(net.stages), here)
            heads = _localise(make_net("stn_cx" if i else "stn_c0", classes), shape, 0, None, options)
            sts[i] = SpatialTransformer(heads, shape[1], out[1:], here)
            shape = out
        stages += build([maker], shape)
        shape = shape_after(stages[-1], shape)
    return Transformed(stages, sts, options)


@register("arch", extends=Options)
def stn_dlx(make_net: MakeNet, shape: Shape, classes: int, *, depth: Depth = 1, **st) -> nn.Module:
    """The head reads a copy of the first X convolutions, with its own weights; the image is warped."""
    return _on_image(lambda d: make_net("stn_dlx" if d else "stn_c0", classes), shape, depth, True, Options(**st))


@register("arch", extends=Options)
def stn_slx(make_net: MakeNet, shape: Shape, classes: int, *, depth: Depth = 1, **st) -> nn.Module:
    """The head reads the classifier's own first X convolutions, which run again on the warped image."""
    return _on_image(lambda d: make_net("stn_slx" if d else "stn_c0", classes), shape, depth, False, Options(**st))


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
