"""The network of a configuration."""

from torch import nn

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
        return entry.function(registry.find("net", arch.net).function, dataset.shape, dataset.classes, **options)
    except ValueError as error:
        raise ValueError(f"{arch.name} on {arch.net}: {error}") from None
