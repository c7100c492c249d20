"""Rules for the layers that cost time: convolution, linear, pooling, batch norm, sampling, dropout.

Feature maps are [B, S * C, H, W] in memory (channels last on a CPU), so that a convolution of
every seed is one grouped convolution, and pooling and batch norm see more channels.
S seed, B batch, C channel in, O channel out, H, W.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stn.multiseed.rules import rule
from stn.multiseed.stacked import ALONE, RULES, Stacked
from stn.multiseed.thin_conv import ThinConv, is_thin


def _channels_last(x: Tensor) -> bool:
    """1.2 to 1.5 times faster on a CPU, max-pooling 7 to 16 times; on CUDA not measured."""
    return x.device.type == "cpu" and x.dtype != torch.float64


def _channels(x_SBCHW: Tensor) -> Tensor:
    """[B, S * C, H, W]: a view of what another layer has made, else one copy."""
    if _channels_last(x_SBCHW):
        return x_SBCHW.permute(1, 3, 4, 0, 2).contiguous().flatten(3).permute(0, 3, 1, 2)
    return x_SBCHW.transpose(0, 1).flatten(1, 2)


def _seeds(x_BDHW: Tensor, S: int) -> Stacked:
    return Stacked(x_BDHW.unflatten(1, (S, -1)).transpose(0, 1))


def _convolve(input: Tensor, weight: Tensor, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Tensor:
    x = input
    if x.dim() == 4 and _channels_last(x):
        x = x.contiguous(memory_format=torch.channels_last)
        weight = weight.to(memory_format=torch.channels_last)  # decides where the input has one channel
    if is_thin(x, weight, stride, padding, dilation, groups):
        return ThinConv.apply(x, weight, bias, padding, groups)
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


@rule("conv2d")
def _conv2d(mode, func, /, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Any:
    if not isinstance(weight, Stacked) or input.dim() != 4 or isinstance(bias, Tensor) != isinstance(bias, Stacked):
        return NotImplemented  # a filter that seeds share, one image without a batch: vmap
    S = len(weight.every)
    weight_OCkl = weight.every.flatten(0, 1)
    bias_O = None if bias is None else bias.every.flatten()
    if isinstance(input, Stacked) or groups > 1 or torch.is_grad_enabled():
        x = _channels(input.every if isinstance(input, Stacked) else input.expand(S, *input.shape))
        groups *= S
    else:
        x = input  # test images: the filters of all seeds side by side, which rounds differently
    return _seeds(_convolve(x, weight_OCkl, bias_O, stride, padding, dilation, groups), S)


ALONE[F.conv2d] = ALONE[torch.conv2d] = lambda mode, func, /, *args, **kwargs: _convolve(*args, **kwargs)


@rule("linear")
def _linear(mode: Any, func: Any, /, input: Any, weight: Any, bias: Any = None) -> Any:
    if not isinstance(weight, Stacked) and bias is None:  # a constant, the same for every seed
        return Stacked(torch.stack([F.linear(x, weight) for x in input.every.unbind()]))
    if not isinstance(weight, Stacked) or isinstance(bias, Tensor) != isinstance(bias, Stacked):
        return NotImplemented
    S, O, I = weight.every.shape
    x = input.every if isinstance(input, Stacked) else input.expand(S, *input.shape)
    if x.dtype == torch.float64:  # with several threads a batched product rounds otherwise than one alone
        biases = [None] * S if bias is None else bias.every.unbind()
        return Stacked(torch.stack(list(map(F.linear, x.unbind(), weight.every.unbind(), biases))))
    x_SMI, weight_SIO = x.reshape(S, -1, I), weight.every.transpose(1, 2)
    out = torch.bmm(x_SMI, weight_SIO) if bias is None else torch.baddbmm(bias.every.unsqueeze(1), x_SMI, weight_SIO)
    return Stacked(out.view(*x.shape[:-1], O))


@rule("max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d interpolate upsample pixel_shuffle")
def _each_channel(mode: Any, func: Any, /, input: Stacked, *args: Any, **kwargs: Any) -> Any:
    """Layers that treat each channel by itself."""
    if input.dim() != 4 or kwargs.get("return_indices"):
        return NotImplemented
    return _seeds(func(_channels(input.every), *args, **kwargs), len(input.every))


@rule("batch_norm")
def _batch_norm(mode: Any, func: Any, /, input: Any, *args: Any, **kwargs: Any) -> Any:
    """Running statistics are [S, C] in memory and change in place."""
    if not isinstance(input, Stacked) or input.dim() not in (2, 4):
        return NotImplemented
    S = len(input.every)
    x = _channels(input.every) if input.dim() == 4 else input.every.transpose(0, 1).flatten(1)

    def flat(value: Any) -> Any:
        if isinstance(value, Tensor) and not isinstance(value, Stacked):
            value = Stacked(value.expand(S, *value.shape))
        return value.every.reshape(-1) if isinstance(value, Stacked) else value

    out = func(x, *map(flat, args), **{key: flat(value) for key, value in kwargs.items()})
    return _seeds(out, S) if input.dim() == 4 else Stacked(out.unflatten(1, (S, -1)).transpose(0, 1))


def _sample(input: Tensor, grid: Tensor, mode="bilinear", padding_mode="zeros", align_corners=None) -> Tensor:
    if input.is_cuda and torch.are_deterministic_algorithms_enabled() and input.dim() == 4 and mode == "bilinear":
        from stn.models.sampling import deterministic_sample  # imported where it is needed: it registers operators

        return deterministic_sample(input, grid, padding_mode, bool(align_corners))
    return F.grid_sample(input, grid, mode, padding_mode, align_corners)


ALONE[F.grid_sample] = lambda mode, func, /, *args, **kwargs: _sample(*args, **kwargs)


@rule("grid_sample")
def _grid_sample(mode: Any, func: Any, /, input: Any, grid: Any, *args: Any, **kwargs: Any) -> Any:
    """The rows of all seeds are one batch."""
    S = len(input.every if isinstance(input, Stacked) else grid.every)

    def merged(x: Tensor) -> Tensor:
        return (x.every if isinstance(x, Stacked) else x.expand(S, *x.shape)).flatten(0, 1)

    return Stacked(_sample(merged(input), merged(grid), *args, **kwargs).unflatten(0, (S, -1)))


def _dropout(mode: Any, func: Any, /, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    if not training or not p:
        return input
    alike = input.shape[1:] if func in _EACH else torch.Size([input.shape[1], *[1] * (input.dim() - 2)])
    return input * mode.mask(input, alike, p)


_EACH = (F.dropout, torch.dropout)
for table in (RULES, ALONE):
    table.update(dict.fromkeys((*_EACH, F.dropout1d, F.dropout2d, F.dropout3d, torch.feature_dropout), _dropout))
