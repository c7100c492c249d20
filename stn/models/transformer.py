"""The spatial transformer: localisation heads, the transform that they predict, and its sampler.

B batch, C channel, H W map, P parameters of a transform.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stn.models.grids import sample
from stn.models.transforms import build_family


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every architecture with a transformer."""

    transform: str = "affine"
    points: int = 4
    iterations: int = 1
    test_iterations: int | None = None
    parallel: int = 1
    size: int | None = None
    antialias: bool = False
    padding: str = "border"
    align_corners: bool = True
    identity: str = "bias"
    feed_theta: bool = False
    theta_decay: float = 0.0


class Warp(NamedTuple):
    """The result of a transformer."""

    image_BCHW: Tensor
    theta_BP: Tensor
    """Parameters of the whole transform; of parallel ones side by side."""
    grid_BHW2: Tensor
    """Where the whole transform samples; for parallel ones, the first."""
    steps: list[Tensor]
    """The result of every resampling; the last is the image."""


class Localisation(nn.Module):
    """Maps features to the parameters of a transform, initially the identity.

    ``depth`` says how many of the classifier's stages the head looks through; with a trunk
    of its own it looks through that.
    """

    def __init__(
        self, head: nn.Module, hidden: int, start: Sequence[float], depth: int, trunk: nn.Module | None, residual: bool
    ) -> None:
        super().__init__()
        self.trunk, self.head, self.last = trunk, head, nn.Linear(hidden, len(start))
        self.depth = depth
        self.start: Tensor
        self.register_buffer("start", torch.tensor(start), persistent=False)
        self.residual = residual
        nn.init.zeros_(self.last.weight)
        with torch.no_grad():
            self.last.bias.copy_(self.start * float(not residual))

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.head(features if self.trunk is None else self.trunk(features))
        with torch.autocast(hidden.device.type, enabled=False):  # bf16 next to 1 is a fifth of a pixel in 112
            theta_BP = self.last(hidden.to(self.last.weight.dtype))
        return theta_BP + self.start if self.residual else theta_BP


class SpatialTransformer(nn.Module):
    """Resamples a map by the transforms that its heads predict, in sequence or (parallel) side by side.

    Heads in a row, and iterations of each, compose: the *original* map is resampled by the whole
    transform each time. The last time it gets its new size. Everything in here belongs to the
    localisation's parameter group.
    """

    def __init__(self, heads: Sequence[Localisation], side: int, size: tuple[int, int], options: Options) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.side, self.size, self.options = side, size, options  # of the map that comes in, and of what goes out
        self.family = build_family(options.transform, options.points)
        self.finer = max(1, math.ceil(side / size[0])) if options.antialias else 1
        self.bypassed = False
        """Whether to use the identity instead, to measure the classifier without the transform."""

    def _chain(self, x_BCHW: Tensor, heads: Sequence[Any], look: Callable[[Tensor, int], Tensor]) -> Warp:
        o = self.options
        iterations = o.iterations if self.training else o.test_iterations or o.iterations
        turns = [head for head in heads for _ in range(iterations)]
        whole, seen_BCHW, steps = None, x_BCHW, []
        grid_BHW2 = x_BCHW.new_empty(0)
        for k, head in enumerate(turns):
            features = look(seen_BCHW, head.depth)
            found = self.family.start(head.start.expand(len(features), -1) if self.bypassed else head(features))
            whole = found if whole is None else self.family.then(whole, found)
            last = k == len(turns) - 1
            size, finer = (self.size, self.finer) if last else ((x_BCHW.shape[2], x_BCHW.shape[3]), 1)
            grid_BHW2 = self.family.grid(whole, size, o.align_corners, finer)
            seen_BCHW = sample(x_BCHW, grid_BHW2, o.padding, o.align_corners)
            seen_BCHW = F.avg_pool2d(seen_BCHW, finer) if finer > 1 else seen_BCHW
            steps.append(seen_BCHW)
        theta_BP = self.family.parameters(whole)
        # Propagate NaN and inf in theta to the loss; the grid's clamp would hide them.
        image_BCHW = seen_BCHW + 0 * theta_BP.detach().sum(1).view(-1, 1, 1, 1)
        return Warp(image_BCHW, theta_BP, grid_BHW2, steps)

    def forward(self, x_BCHW: Tensor, look: Callable[[Tensor, int], Tensor]) -> Warp:
        """``look`` runs the classifier's own stages that a head of some depth reads."""
        if self.options.parallel == 1:
            return self._chain(x_BCHW, list(self.heads), look)
        warps = [self._chain(x_BCHW, [head], look) for head in self.heads]
        images, thetas = torch.cat([w.image_BCHW for w in warps], 1), torch.cat([w.theta_BP for w in warps], 1)
        return Warp(images, thetas, warps[0].grid_BHW2, [step for w in warps for step in w.steps])

    def away(self, warp: Warp) -> Tensor:
        """Return the squared distance of the parameters from the identity, [B]."""
        start = self.heads[0].start.repeat(self.options.parallel)  # type: ignore[operator, union-attr]
        return (warp.theta_BP - start).square().sum(1)


def is_localisation(name: str) -> bool:
    """Whether a parameter belongs to a transformer, by its full name: networks call theirs ``st``."""
    return "st" in name.split(".")
