"""A network that applies one operation, and seeds of a network by themselves, to compare a block with."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from stn.multiseed.model import StackedModel, with_penalty


class Op(nn.Module):
    """An operation between weights and logits."""

    def __init__(self, act: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.act, self.w = act, nn.Parameter(torch.randn(4))
        self.shift: Tensor
        self.register_buffer("shift", torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x.mul(self.w.view(4, 1, 1)) + self.shift[:, None, None], self.w).flatten(1)


def stack_alone(model: StackedModel, x_SBCHW: Tensor, step: int, row_B: Tensor) -> Tensor:
    """Return the logits of every seed's network, run by itself."""
    return torch.stack([with_penalty(model.alone(s, x_BCHW, step, row_B))[0] for s, x_BCHW in enumerate(x_SBCHW)])


def modified(y: Tensor, change: Callable[[Tensor], object]) -> Tensor:
    y = y * 1
    change(y)
    return y


def compare(act: Callable[[Tensor, Tensor], Tensor]) -> StackedModel:
    model = StackedModel(lambda: Op(act), [7, 8, 9], dtype=torch.float64)
    x = torch.linspace(-3, 3, 3 * 6 * 4 * 5 * 5, dtype=torch.float64).mul(9).sin().view(3, 6, 4, 5, 5)
    results = []
    for together in (True, False):
        rows = torch.arange(6)
        out = model(x, 5, rows) if together else stack_alone(model, x, 5, rows)
        grads = torch.autograd.grad((out * out.detach().cos()).sum(), list(model.parameters()), allow_unused=True)
        results.append([out, *grads])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)
    assert not torch.equal(results[0][0][0], results[0][0][1])
    return model
