"""The seed axis: any number of seeds of one network behind one module, SBCHW -> SBK.

S seed, B batch, C channel, H, W, K class. Networks are ordinary modules that see one seed.
Random operations inside them become pure functions of (seed, step, row), and two slow
spots of the CPU are replaced. Must not know the data set or the optimiser.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from stn.rng import Draws, Site, derived_seed


class _ThinConv(torch.autograd.Function):
    """conv2d whose input gradient is computed one kernel column at a time.

    For an input of one or two channels oneDNN's own takes 3 to 7 times longer (2 cores, 64 to
    256 images, 10 to 16 filters of 5x5 to 9x9).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.has_bias = padding, bias is not None
        return F.conv2d(x, weight, bias, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BOHW: Tensor):  # type: ignore[override]
        x, weight_OCkl = ctx.saved_tensors
        O, C, k, l = weight_OCkl.shape
        (ph, pw), (H, W) = ctx.padding, x.shape[2:]
        columns = weight_OCkl.flip(2).permute(1, 3, 0, 2).reshape(C * l, O, k, 1)
        columns = columns.contiguous(memory_format=torch.channels_last)
        taps = F.conv2d(grad_BOHW, columns, padding=(k - 1 - ph, 0)).unflatten(1, (C, l))
        width = grad_BOHW.shape[3]
        total = grad_BOHW.new_zeros(len(x), C, H, W + 2 * pw)
        for j in range(l):
            total[..., j : j + width] += taps[:, :, j]
        _, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            grad_BOHW, x, weight_OCkl, [O], [1, 1], list(ctx.padding), [1, 1], False, [0, 0], 1, [False, True, True]
        )
        return total[..., pw : pw + W], grad_weight, grad_bias if ctx.has_bias else None, None


def _pair(value: Any) -> tuple[int, int] | None:
    if isinstance(value, str):
        return None
    return (value, value) if isinstance(value, int) else tuple(value)


def _conv2d(mode: "SeedOps", x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Tensor:
    pad = _pair(padding)
    thin = (
        x.device.type == "cpu"
        and x.requires_grad
        and x.dim() == 4
        and x.shape[1] <= 2
        and groups == 1
        and _pair(stride) == _pair(dilation) == (1, 1)
        and pad is not None
        and pad[0] < weight.shape[2] > 1
        and not torch.is_autocast_enabled("cpu")
    )
    if thin:
        return _ThinConv.apply(x, weight, bias, pad)  # type: ignore[return-value]
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def _dropout(mode: "SeedOps", x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return x * mode.mask(x, x.shape[1:], p) if training and p else x


def _feature_dropout(mode: "SeedOps", x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False):
    return x * mode.mask(x, torch.Size([x.shape[1], *[1] * (x.dim() - 2)]), p) if training and p else x


_REPLACED: dict[Any, Callable] = {
    F.conv2d: _conv2d,
    F.dropout: _dropout,
    F.dropout1d: _feature_dropout,
    F.dropout2d: _feature_dropout,
    F.dropout3d: _feature_dropout,
}


class SeedOps(TorchFunctionMode):
    """While it is entered, dropout is a function of (seed, step, call, row): the same on any ranks."""

    def __init__(self, seed: int, step: int | Tensor, row_B: Tensor) -> None:
        super().__init__()
        self.seed, self.step, self.row_B, self.calls = seed, step, row_B, 0

    def mask(self, x: Tensor, shape: torch.Size, p: float) -> Tensor:
        """0 or 1 / (1 - p) for each number of each row, also where the network has split rows in parts."""
        each, rest = divmod(len(x), len(self.row_B))
        assert rest == 0, "dropout over a dimension that is not made of whole rows"
        self.calls += 1
        n = each * shape.numel()
        index = self.row_B.unsqueeze(-1) * n + torch.arange(n, device=x.device)
        drop = Draws(self.seed, Site.DROPOUT, self.calls, self.step, device=x.device).chance(index, p)
        return drop.logical_not_().to(x.dtype).mul_(1 / (1 - p)).view(len(x), *shape)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        replaced = _REPLACED.get(func)
        if replaced is not None:
            return replaced(self, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


class Seeds(nn.Module):
    """The networks of a block of seeds; ``build`` makes one from torch's random state."""

    def __init__(self, build: Callable[[], nn.Module], seeds: list[int]) -> None:
        super().__init__()
        self.seeds, self.compiled, models = seeds, False, []
        for seed in seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derived_seed(seed, Site.INIT))
                models.append(build())
        self.models = nn.ModuleList(models)

    def forward(self, x_SBCHW: Tensor, step: int, row_B: Tensor) -> Tensor:
        """Logits in training mode; random numbers depend on step and row only."""
        outs = []
        key = torch.tensor(step, device=x_SBCHW.device) if self.compiled else step  # a number would be compiled in
        for seed, model, x_BCHW in zip(self.seeds, self.models, x_SBCHW, strict=True):
            with SeedOps(seed, key, row_B):
                outs.append(model(x_BCHW))
        return torch.stack(outs)

    def predict(self, x_BCHW: Tensor) -> Tensor:
        """Logits of the same images for every seed."""
        return torch.stack([model(x_BCHW) for model in self.models])

    def compile_each(self) -> None:
        self.compiled = True
        for model in self.models:
            model.compile()
