"""The network of a configuration."""

from importlib import import_module

import torch
from torch import nn

from stn.config import registry
from stn.config.dataset import build_dataset
from stn.config.schema import Config


def import_architecture(config: Config) -> None:
    """Import the architecture's module; undo what a plugin sets of float32's arithmetic, which is --train.tf32's."""
    import_module(registry.find("arch", config.arch.name).module)
    torch.set_float32_matmul_precision("highest")
    torch.backends.mkldnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]


def build_network(config: Config) -> nn.Module:
    """Return the network of a resolved configuration for one seed, with torch's current random state."""
    arch, dataset = config.arch, build_dataset(config.data.name)
    assert arch.net is not None, "only a resolved configuration can be built"
    entry = registry.find("arch", arch.name)
    options = {name: getattr(arch, name) for name in entry.options}
    try:
        return entry.function(registry.find("net", arch.net).function, dataset.shape, dataset.classes, **options)
    except ValueError as error:
        raise ValueError(f"{arch.name} on {arch.net}: {error}") from None
