"""The families of transforms, and networks that have them."""

import torch

from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data
from stn.models.build import build_network
from stn.models.wirings import Transformed

LINEAR = ["translation", "attention", "similarity", "affine", "projective"]
FAMILIES = [*LINEAR, "tps"]


def make(arch: str, dataset: str = "mnist", **options) -> Transformed:
    config = resolve(Config(arch=Arch(name=arch, **options), data=Data(name=dataset)))
    torch.manual_seed(0)
    model = build_network(config)
    assert isinstance(model, Transformed)
    return model
