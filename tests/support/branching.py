"""An architecture that cannot train as several seeds at once.

Imported where it is used: some tests run every architecture that is registered.
"""

from torch import Tensor, nn

from stn.config.registry import register


@register("arch")
def branching(make_net, shape, classes) -> nn.Module:
    """A classifier whose path depends on the values of its weights."""

    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(784, classes)

        def forward(self, x: Tensor) -> Tensor:
            y = self.last(x.flatten(1))
            return y if self.last.weight.mean() > 0 else -y

    return Branching()
