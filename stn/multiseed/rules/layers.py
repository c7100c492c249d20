"""Rules for the layers that cost time: convolution, linear, pooling, sampling, dropout.

S seed, B batch, C channel in, O channel out, H, W.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stn.models import kernels
from stn.multiseed.rules import pooled
from stn.multiseed.rules.basic import reduce, rule
from stn.multiseed.rules.gradients import OwnConv, is_slow
from stn.multiseed.rules.order import (
    WIDE,
    channels_of,
    in_format,
    in_functorch,
    in_other_hands,
    reshaped,
    side_by_side,
    split_seeds,
    wants_channels_last,
)
from stn.multiseed.stacked import Stacked, count_seeds, for_seeds
from stn.multiseed.ways import pair


def _convolve(x: Tensor, weight: Tensor, bias=None, stride=1, padding=0, dilation=1, groups=1, keep=False) -> Tensor:
    if x.dim() == 4 and keep and len(x) == 1:
        x = in_format(x, False)
    if x.dim() == 4 and wants_channels_last(x) and not keep:
        x = in_format(x, True)
        weight = weight.to(memory_format=torch.channels_last)  # decides where the input has one channel
    if is_slow(x, weight, stride, padding, dilation, groups):
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        out = OwnConv.apply(x, weight, bias, padding, groups)
    else:
        out = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    pooled.remember(out, x, weight, bias, (stride, padding, dilation), groups)
    return out


@rule("conv2d", alone=True)
def _conv2d(mode, func, /, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Any:
    if not any(isinstance(x, Stacked) for x in (input, weight, bias)):
        convolve = F.conv2d if in_functorch(input, weight) else _convolve
        return convolve(input, weight, bias, stride, padding, dilation, groups)
    if input.dim() != 4:
        return NotImplemented  # one image without a batch
    S = count_seeds(input, weight, bias)
    weight_OCkl = for_seeds(weight, S).flatten(0, 1)
    bias_O = None if bias is None else for_seeds(bias, S).flatten()
    keep = False
    if isinstance(input, Stacked) or groups > 1 or torch.is_grad_enabled():
        x_BSCHW = for_seeds(input, S).transpose(0, 1)
        keep = x_BSCHW.is_contiguous() and weight.shape[1] >= WIDE
        x, groups = x_BSCHW.flatten(1, 2) if keep else channels_of(for_seeds(input, S)), groups * S
    else:
        x = input  # test images: the filters of all seeds side by side, which rounds differently
    arguments = x, weight_OCkl, bias_O, stride, padding, dilation, groups
    out = mode.convolve(*arguments) if mode is not None else None
    return split_seeds(_convolve(*arguments, keep) if out is None else out, S)


@rule(
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d interpolate upsample pixel_shuffle"
)
def _each_channel(mode: Any, func: Any, /, input: Stacked, *args: Any, **kwargs: Any) -> Any:
    """Run layers that treat channels independently on the channels of all seeds."""
    name, rank = func.__name__, input.dim()
    fits = rank > 2 if name in ("interpolate", "upsample") else rank == {"1d": 3, "3d": 5}.get(name[-2:], 4)
    if not fits or kwargs.get("return_indices"):
        return NotImplemented
    if name == "adaptive_avg_pool2d" and args and args[0] in (1, (1, 1), [1, 1]):
        return reduce(mode, torch.mean, input, (2, 3), keepdim=True)
    x = side_by_side(input.every)
    out = _pooled(x, *args, **kwargs) if name == "max_pool2d" else None
    return split_seeds(func(x, *args, **kwargs) if out is None else out, len(input.every))


@rule("max_pool2d", alone=True)
def _max_pool2d(mode: Any, func: Any, /, input: Any, *args: Any, **kwargs: Any) -> Any:
    if isinstance(input, Stacked):
        return _each_channel(mode, func, input, *args, **kwargs)
    out = None if input.is_cuda else _pooled(input, *args, **kwargs)
    return func(input, *args, **kwargs) if out is None else out


def _pooled(x: Tensor, *args: Any, **kwargs: Any) -> Tensor | None:
    """Return max-pooled maps; None where there is no kernel for it."""
    side = _square(*args, **kwargs)
    if not side or in_other_hands(x):
        return None
    out = pooled.pool(x) if side == 2 else None
    return kernels.max_pool(x, side) if out is None else out


def _square(
    kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode=False, return_indices=False
) -> Any:
    """Return the side of the squares whose largest pixels a pool returns, if they fill the map; None otherwise."""
    sizes = {*pair(kernel_size), *pair(kernel_size if stride in (None, []) else stride)}
    plain = (
        len(sizes) == 1 and pair(padding) == (0, 0) and pair(dilation) == (1, 1) and not (ceil_mode or return_indices)
    )
    return sizes.pop() if plain else None


def _sample(input: Tensor, grid: Tensor, mode="bilinear", padding_mode="zeros", align_corners=None) -> Tensor:
    if input.is_cuda and torch.are_deterministic_algorithms_enabled() and input.dim() == 4 and mode == "bilinear":
        from stn.models.sampling import deterministic_sample  # imported where it is needed: it registers operators

        return deterministic_sample(input, grid, padding_mode, bool(align_corners))
    if input.dim() == 4 and not in_other_hands(input, grid):
        sampled = kernels.sample(input.unsqueeze(0), grid.unsqueeze(0), mode, padding_mode, align_corners)
        if sampled is not None:
            return sampled.squeeze(0)
    return F.grid_sample(input, grid, mode, padding_mode, align_corners)


@rule("grid_sample", alone=True)
def _grid_sample(mode: Any, func: Any, /, input: Any, grid: Any, *args: Any, **kwargs: Any) -> Any:
    """Sample the rows of all seeds as one batch."""
    if not (isinstance(input, Stacked) or isinstance(grid, Stacked)):
        return _sample(input, grid, *args, **kwargs)
    S = count_seeds(input, grid)
    if isinstance(input, Stacked) and isinstance(grid, Stacked) and not in_other_hands(input.every, grid.every):
        sampled = kernels.sample(input.every, grid.every, *args, **kwargs)
        if sampled is not None:
            return Stacked(sampled)
    x, grid = (reshaped(every, -1, *every.shape[2:]) for every in (for_seeds(input, S), for_seeds(grid, S)))
    return Stacked(_sample(x, grid, *args, **kwargs).unflatten(0, (S, -1)))


@rule("affine_grid")
def _affine_grid(mode: Any, func: Any, /, theta: Stacked, size: Any, align_corners: Any = None) -> Any:
    """Make the grids of all seeds' rows as one batch."""
    S, B = theta.every.shape[:2]
    grid_MHW2 = F.affine_grid(theta.every.flatten(0, 1), [S * B, *size[1:]], align_corners)
    return Stacked(grid_MHW2.unflatten(0, (S, B)))


@rule("dropout dropout1d dropout2d dropout3d feature_dropout", alone=True)
def _dropout(mode, func, /, input, p=0.5, training=True, inplace=False, train=True) -> Any:
    if not (training and train and p):
        return input
    in_place = inplace or func.__name__.endswith("_")
    if len(mode.seeds) > 1 and not isinstance(input, Stacked):
        if in_place:
            raise TypeError("dropout would change a tensor that all seeds share")
        input = Stacked(for_seeds(input, len(mode.seeds)))
    mask_shape = input.shape[1:]
    if func not in (F.dropout, torch.dropout):  # a whole channel is dropped or kept
        mask_shape = torch.Size([input.shape[1], *[1] * (input.dim() - 2)])
    mask = mode.mask(input, mask_shape, p)
    return input.mul_(mask) if in_place else input * mask
