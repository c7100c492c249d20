"""A package outside of the repository, as a user writes one: architectures, a data set, a transform, a metric."""

from pathlib import Path

MODULE = '''
"""Own architectures and the rest."""
from dataclasses import replace
from typing import Literal

import torch
from torch import nn

import stn
from stn.data.datasets import mnist_r
from stn.models.transforms import Linear

FOUR = 4


class Aligned(nn.Module):
    """A plain module with a spatial transformer of its own, which it tells of."""

    def __init__(self, shape, classes, width, act):
        super().__init__()
        C, H, W = shape
        self.loc = nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, width), act, nn.Linear(width, 6))
        nn.init.zeros_(self.loc[-1].weight)
        self.loc[-1].bias.data.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, classes))

    def warps(self, x):
        grid = nn.functional.affine_grid(self.loc(x).view(-1, 2, 3), x.size(), align_corners=False)
        return [stn.Warp(nn.functional.grid_sample(x, grid, align_corners=False), grid)]

    def forward(self, x):
        return self.body(self.warps(x)[0].image_BCHW)


@stn.register("arch")
def aligned(
    make_net, shape, classes, *, width: int = 8, act: Literal["relu", "tanh"] = "tanh", sizes: tuple[int, ...] = ()
):
    """A plain module that says how it warps."""
    return Aligned(shape, classes, width, nn.ReLU() if act == "relu" else nn.Tanh())


@stn.register("arch")
def silent(make_net, shape, classes, *, deep: bool = False):
    """A plain module that says nothing."""
    C, H, W = shape
    return nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, classes))


@stn.register("dataset")
def my_digits():
    """Rotated digits under another name."""
    return replace(mnist_r(), replicas=1)


@stn.register("transform")
def stretch():
    """Another scale for each axis."""
    return Linear("s 0 0  0 t 0  0 0 1")


@stn.register("metric")
def reach(logits, y):
    """Mean largest logit."""
    return logits.max(1).values.mean()
'''


def write_plugin(folder: Path, text: str = MODULE, name: str = "my_package") -> Path:
    """Write a package with one module, ``things``, into a folder; return the folder."""
    package = folder / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "things.py").write_text(text)
    return folder
