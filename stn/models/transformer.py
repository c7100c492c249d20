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
    """The result of a transformer, or of a plain module that reports its warps (stn.models.warping)."""

    image_BCHW: Tensor
    grid_BHW2: Tensor
    """Where the whole transform samples; for parallel ones, the first."""
    theta_BP: Tensor = torch.empty(0)
    """Parameters of the whole transform; of parallel ones side by side. Empty where a plain module has none."""
    steps: Sequence[Tensor] = ()
    """The result of every resampling; the last is the image."""


class Localisation(nn.Module):
    """Maps features to the parameters of a transform, initially the identity.

    The head reads the output of the classifier's first ``depth`` stages, or of a trunk of its own.
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

    In sequence, heads and the iterations of each compose: the *original* map is resampled by the whole transform
    each time, the last time to its new size. All parameters belong to the localisation's parameter group.
    """

    def __init__(self, heads: Sequence[Localisation], side: int, size: tuple[int, int], options: Options) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        if options.antialias and size[0] >= side:
            raise ValueError(f"arch.antialias needs an output smaller than {side} pixels, this one has {size[0]}")
        self.side, self.size, self.options = side, size, options  # input side, output size
        self.family = build_family(options.transform, options.points)
        self.finer = max(1, math.ceil(side / size[0])) if options.antialias else 1
        self.bypassed = False
        """Whether to use the identity instead, to measure the classifier without the transform."""

    def _resample(self, x_BCHW: Tensor, transform: Any, last: bool) -> tuple[Tensor, Tensor]:
        """Return the map under a transform, and the grid where it was sampled."""
        o = self.options
        size, finer = (self.size, self.finer) if last else ((x_BCHW.shape[2], x_BCHW.shape[3]), 1)
        grid_BHW2 = self.family.grid(transform, size, o.align_corners, finer)
        image_BCHW = sample(x_BCHW, grid_BHW2, o.padding, o.align_corners)
        if finer > 1:
            image_BCHW = F.avg_pool2d(image_BCHW, finer)
        return image_BCHW, grid_BHW2

    def _chain(self, x_BCHW: Tensor, heads: Sequence[Any], run_stages: Callable[[Tensor, int], Tensor]) -> Warp:
        """Resample the map by the transforms of these heads, composed one after the other."""
        iterations = self.options.iterations if self.training else self.options.test_iterations
        turns = [head for head in heads for _ in range(iterations or self.options.iterations)]
        composed: Any = None
        steps = [(x_BCHW, x_BCHW)]
        for turn, head in enumerate(turns, 1):
            seen_BCHW, _ = steps[-1]
            features = run_stages(seen_BCHW, head.depth)
            theta_BP = head.start.expand(len(features), -1) if self.bypassed else head(features)
            transform: Any = self.family.start(theta_BP)
            composed = transform if turn == 1 else self.family.then(composed, transform)
            steps.append(self._resample(x_BCHW, composed, last=turn == len(turns)))
        image_BCHW, grid_BHW2 = steps[-1]
        theta_BP = self.family.parameters(composed)
        # Propagate NaN and inf in theta to the loss; the grid's clamp would hide them.
        image_BCHW = image_BCHW + 0 * theta_BP.detach().sum(1).view(-1, 1, 1, 1)
        return Warp(image_BCHW, grid_BHW2, theta_BP, [step_BCHW for step_BCHW, _ in steps[1:]])

    def forward(self, x_BCHW: Tensor, run_stages: Callable[[Tensor, int], Tensor]) -> Warp:
        """Warp a map; ``run_stages`` runs as many of the classifier's stages as a head's depth says."""
        if self.options.parallel == 1:
            return self._chain(x_BCHW, list(self.heads), run_stages)
        warps = [self._chain(x_BCHW, [head], run_stages) for head in self.heads]
        images, thetas = torch.cat([w.image_BCHW for w in warps], 1), torch.cat([w.theta_BP for w in warps], 1)
        return Warp(images, warps[0].grid_BHW2, thetas, [step for w in warps for step in w.steps])

    def distance_from_identity(self, warp: Warp) -> Tensor:
        """Return the squared distance of the parameters from the identity, [B]."""
        start = self.heads[0].start.repeat(self.options.parallel)  # type: ignore[operator, union-attr]
        return (warp.theta_BP - start).square().sum(1)


def is_localisation(name: str) -> bool:
    """Whether a parameter belongs to a transformer, by its full name: networks call theirs ``st``."""
    return "st" in name.split(".")
