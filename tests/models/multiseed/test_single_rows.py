"""A batch of one row, whose own stride may be any: PyTorch's gradients are wrong then, with one thread."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stn.data.rng import initialised
from stn.multiseed.model import StackedModel


class Narrow(nn.Module):
    """Convolutions whose gradient PyTorch gets wrong of a single row with an unusual stride."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.first, self.one = kind, nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.groups, self.of_row, self.out = nn.Conv2d(8, 8, 1, groups=2), nn.Linear(8, 64), nn.Linear(8, 5)
        self.norm = nn.InstanceNorm2d(8, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu()
        B, C, H, W = y.shape
        if self.kind == "dynamic":
            filters = self.of_row(y.mean((2, 3))).view(B * C, C, 1, 1)
            y = F.conv2d(y.reshape(1, B * C, H, W), filters, groups=B).view(B, C, H, W)
        elif self.kind == "row by row":
            y = torch.cat([self.groups(row.unsqueeze(0)) for row in y])
        elif self.kind == "instance norm":
            y = self.norm(y).relu()
        return self.out(self.one(y).relu().mean((2, 3)))


@pytest.mark.parametrize("kind", ["plain", "dynamic", "row by row", "instance norm"])
@pytest.mark.parametrize("S", [1, 4])
@pytest.mark.parametrize("B", [1, 3])
def test_a_batch_of_one_row_has_the_gradients_of_others(S: int, B: int, kind: str, one_thread: None) -> None:
    def build() -> nn.Module:
        return Narrow(kind)

    model, x = StackedModel(build, list(range(S))).train(), torch.randn(S, B, 3, 8, 8)
    model(x, 0, torch.arange(B)).square().sum().backward()
    for s in range(S):
        itself = initialised(build, s).double()
        itself(x[s].double()).square().sum().backward()
        for name, p in itself.named_parameters():
            ours, theirs = model.stacked[name].grad, torch.zeros_like(p) if p.grad is None else p.grad
            ours = torch.zeros(S, *p.shape) if ours is None else ours
            assert float((ours[s] - theirs).abs().max()) <= 1e-3 * float(theirs.abs().max()), name
