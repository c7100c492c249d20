"""Networks for tests."""

from collections.abc import Callable

import torch
from torch import nn

from stn.config.registry import register
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data
from stn.models.build import build_network
from stn.models.layers import Net, Shape, classify, conv, dense
from stn.models.transformer import Localisation, SpatialTransformer
from stn.models.wirings import Transformed
from stn.multiseed.checks.as_written import traces_as_it_runs
from stn.multiseed.checks.one_result import depends_on_batch, keeps_beside_checkpoints

BATCH_NORM = "batch_norm"


@register("net")
def batch_norm(wiring: str, classes: int) -> Net:
    """For 28x28 images: batch norm with both kinds of dropout, a combination that no paper's network has."""

    def first(shape: Shape) -> nn.Module:
        return nn.Sequential(nn.Conv2d(shape[0], 8, 5), nn.BatchNorm2d(8), nn.MaxPool2d(2), nn.ReLU())

    coordinates = {} if wiring == "stn_c0_coord" else None
    stages = [first, conv(16, 5, dropout=0.3), classify(classes, 32, dropout=0.5)]
    return Net(stages, [conv(8, 5, coordinates=coordinates), dense(16)])


def has_one_result(build: Callable[[], nn.Module], shape: Shape, parts: int = 2) -> None:
    """Assert that a network is refused for nothing, compiled, resumed, and with its batch divided."""
    assert traces_as_it_runs(build, shape)
    assert not keeps_beside_checkpoints(build, shape)
    for training in (False, True):
        assert not depends_on_batch(build, shape, training, parts)


def seeded_network(arch: str, dataset: str = "mnist", **options) -> nn.Module:
    """Return an architecture for a data set, as ``train.py --arch`` builds it for one seed."""
    config = resolve(Config(arch=Arch(name=arch, **options), data=Data(name=dataset)))
    torch.manual_seed(0)
    return build_network(config)


def config_of(arch: str, dataset: str, **options) -> Config:
    return resolve(Config(arch=Arch(name=arch, **options), data=Data(name=dataset, limit_test=300)))


def localisation(model: nn.Module) -> Localisation:
    """Return the localisation network of a model's first transformer."""
    assert isinstance(model, Transformed)
    transformer = model.st[0]
    assert isinstance(transformer, SpatialTransformer)
    first = transformer.heads[0]
    assert isinstance(first, Localisation)
    return first


def invert_affine(theta_B23: torch.Tensor) -> torch.Tensor:
    """Return the matrices whose affine maps undo those of ``theta_B23``."""
    a, b, c, d = (theta_B23[:, i, j] for i in (0, 1) for j in (0, 1))
    inverse = torch.stack([d, -b, -c, a], dim=1).view(-1, 2, 2) / (a * d - b * c).view(-1, 1, 1)
    shift = (inverse * theta_B23[:, None, :2, 2]).sum(-1, keepdim=True)
    return torch.cat([inverse, -shift], dim=2)
