"""The rule for linear layers: one product of matrices for each seed, as one batch.

S seed, M rows, I inputs, O outputs.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from stn.multiseed.rules.basic import rule
from stn.multiseed.stacked import Stacked, count_seeds, for_seeds


class _Linear(torch.autograd.Function):
    """Linear layers whose weight gradient is made as [O, I], like the weights.

    Torch's own is [I, O], which for 6,272 inputs and 10 outputs takes three times longer with MKL (4 seeds, 64 rows).
    """

    @staticmethod
    def forward(ctx: Any, x_SMI: Tensor, weight_SOI: Tensor, bias_SO: Tensor | None) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x_SMI, weight_SOI)
        ctx.has_bias = bias_SO is not None
        return _product(x_SMI, weight_SOI, bias_SO)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_SMO: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x_SMI, weight_SOI = ctx.saved_tensors
        grad_x = torch.bmm(grad_SMO, weight_SOI) if ctx.needs_input_grad[0] else None
        grad_weight = torch.bmm(grad_SMO.mT, x_SMI) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight, grad_SMO.sum(1) if ctx.has_bias else None


def _product(x_SMI: Tensor, weight_SOI: Tensor, bias_SO: Tensor | None) -> Tensor:
    if bias_SO is None:
        return torch.bmm(x_SMI, weight_SOI.mT)
    return torch.baddbmm(bias_SO.unsqueeze(1), x_SMI, weight_SOI.mT)


@rule("linear")
def _linear(mode: Any, func: Any, /, input: Any, weight: Any, bias: Any = None) -> Stacked:
    if bias is not None and bias.dim() == 0:
        return NotImplemented  # beside S, it would be broadcast over rows
    S = count_seeds(input, weight, bias)
    x, weight_SOI = for_seeds(input, S), for_seeds(weight, S)
    bias_SO = None if bias is None else for_seeds(bias, S)
    if x.dtype == torch.float64:  # with several threads a batched product rounds differently from a single one
        biases = [None] * S if bias_SO is None else bias_SO.unbind()
        return Stacked(torch.stack(list(map(F.linear, x.unbind(), weight_SOI.unbind(), biases))))
    x_SMI = x.reshape(S, -1, x.shape[-1])
    plain = x.is_cuda or torch.is_autocast_enabled(x.device.type)
    out_SMO = (_product if plain else _Linear.apply)(x_SMI, weight_SOI, bias_SO)
    return Stacked(out_SMO.view(*x.shape[:-1], weight_SOI.shape[1]))
