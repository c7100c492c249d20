"""The network of a configuration."""

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from stn.config import registry
from stn.config.dataset import build_dataset
from stn.config.schema import Config


def build_network(config: Config) -> nn.Module:
    """Return the network of a resolved configuration for one seed, with torch's current random state."""
    arch, dataset = config.arch, build_dataset(config.data.name)
    assert arch.net is not None, "only a resolved configuration can be built"
    entry = registry.find("arch", arch.name)
    options = {name: getattr(arch, name) for name in entry.options}
    try:
        network = entry.function(registry.find("net", arch.net).function, dataset.shape, dataset.classes, **options)
    except ValueError as error:
        raise ValueError(f"{arch.name} on {arch.net}: {error}") from None
    if isinstance(network, nn.Module) and any(map(is_lazy, network.parameters())):
        training = network.training
        network.eval()
        with torch.no_grad():
            network(torch.zeros(2, *dataset.shape))
        network.train(training)
    return network  # type: ignore[no-any-return]
