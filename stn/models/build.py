"""Architectures: importing this package fills the registry."""


from torch import nn

from stn.config import registry
from stn.config.schema import Arch
from stn.models import nets, wirings
from stn.models.layers import Shape

__all__ = ["build_model", "nets", "wirings"]


def build_model(arch: Arch, shape: Shape, classes: int) -> nn.Module:
    """The network of a resolved configuration, with torch's current random state."""
    assert arch.net is not None, "only a resolved configuration can be built"
    build, _, defaults = registry.find("arch", arch.name)
    options = {name: getattr(arch, name) for name in defaults}
    try:
        return build(registry.find("net", arch.net).function, shape, classes, **options)
    except ValueError as error:
        raise ValueError(f"{arch.name} on {arch.net}: {error}") from None
