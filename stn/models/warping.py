"""How a network warps its images: as a Transformed network, or as a plain module with a method ``warps``.

``warps(x_BCHW)`` of a plain module returns a list with one stn.Warp: the image as the classifier reads it, and the grid
[B, H, W, 2] at which the input image was sampled, in the units of torch's grid_sample. An attribute ``align_corners``
says which of the two conventions these are (False, unless it is there).
"""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from stn.models.transformer import Options, Warp
from stn.models.wirings import Transformed


class PlainWarping:
    """A plain module that warps the image, with the attributes of Transformed that pose metrics and pictures read."""

    def __init__(self, module: Any, shape: tuple[int, ...]) -> None:
        self.module = module
        self.options = Options(align_corners=bool(getattr(module, "align_corners", False)))
        transformer = SimpleNamespace(side=shape[-1], size=None, finer=1, options=self.options, heads=[module])
        self.at, self.st, self.stages = (0,), [transformer], nn.ModuleList()

    def warps(self, x_BCHW: Tensor) -> list[Warp]:
        (warp,) = self.module.warps(x_BCHW)
        return [warp._replace(steps=[warp.image_BCHW])]


Warping = Transformed | PlainWarping


def warping(network: nn.Module, shape: tuple[int, ...]) -> Warping | None:
    """Return how a network warps images of this shape; None if it does not, or has no method ``warps``."""
    if isinstance(network, Transformed):
        return network
    return PlainWarping(network, shape) if callable(getattr(network, "warps", None)) else None


def check_warps(network: nn.Module, shape: tuple[int, ...]) -> None:
    """Raise ValueError if a plain module's ``warps`` does not return what this module's docstring says."""
    if not isinstance(warping(network, shape), PlainWarping):
        return
    training = network.training
    try:
        network.eval()
        with torch.no_grad():
            warps = network.warps(torch.zeros(2, *shape, dtype=next(network.parameters()).dtype))  # type: ignore[operator]
    except Exception as error:
        raise ValueError(f"its warps(x) fails: {type(error).__name__}: {error}") from None
    finally:
        network.train(training)
    if not isinstance(warps, list) or len(warps) != 1 or not isinstance(warps[0], Warp):
        raise ValueError("its warps(x) must return a list with one stn.Warp")
    image, grid = warps[0].image_BCHW, warps[0].grid_BHW2
    if image.dim() != 4 or len(image) != 2 or grid.shape != (2, *image.shape[2:], 2):
        raise ValueError(
            f"its warps(x) returns an image of {[*image.shape]} and a grid of {[*grid.shape]}, "
            "not [B, C, H, W] and [B, H, W, 2]"
        )
