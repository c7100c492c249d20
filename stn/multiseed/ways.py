"""Ways to convolve the maps of several seeds: all give what conv2d with groups gives.

On CUDA no way is best for every shape: groups of one input channel leave cuDNN for kernels whose weight gradient is
slow. B batch, D = G * C channels of all groups.
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from stn.multiseed.memory import MOST_ELEMENTS
from stn.multiseed.passes import convolve

Pair = tuple[int, int]
MOST_PROGRAMS = 65_535
"""In the second dimension of a CUDA grid, which has one for each group."""
Way = Literal["grouped", "channels_last", "loop", "unfold", "rows", "whole", "triton"]


def pair(value: Any) -> Pair:
    return (value, value) if isinstance(value, int) else tuple(value) * (3 - len(value))


def grouped(x_BDHW: Tensor, weight: Tensor, bias: Tensor | None, *how: Any, groups: int) -> Tensor:
    stride, padding, dilation = how
    return F.conv2d(x_BDHW, weight, bias, stride, padding, dilation, groups)


def channels_last(x_BDHW: Tensor, weight: Tensor, bias: Tensor | None, *how: Any, groups: int) -> Tensor:
    x_BDHW, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x_BDHW, weight))
    stride, padding, dilation = how
    return F.conv2d(x_BDHW, weight, bias, stride, padding, dilation, groups)


def loop(x_BDHW: Tensor, weight: Tensor, bias: Tensor | None, *how: Any, groups: int) -> Tensor:
    """Convolve group by group."""
    biases = [None] * groups if bias is None else bias.chunk(groups)
    parts = zip(x_BDHW.chunk(groups, 1), weight.chunk(groups), biases, strict=True)
    return torch.cat([F.conv2d(x, w, b, *how) for x, w, b in parts], 1)


def by_passes(ways: str, x_BDHW: Tensor, weight: Tensor, bias: Tensor | None, *how: Any, groups: int) -> Tensor:
    """Convolve in ways of our own; autocast does not see into them."""
    if torch.is_autocast_enabled(x_BDHW.device.type):
        dtype = torch.get_autocast_dtype(x_BDHW.device.type)
        x_BDHW, weight, bias = x_BDHW.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    return convolve(x_BDHW, weight, bias, *how, groups, ways)


def has_kernel(arguments: tuple, groups: int) -> bool:
    """Whether Triton has kernels for a shape: steps of one pixel, and few channels, since many are cuDNN's."""
    x, weight, _, stride, padding, dilation = arguments
    O, C, k, l = weight.shape
    steps = (*stride, *dilation) == (1, 1, 1, 1) and padding[0] < k and padding[1] < l
    few = C <= 32 and O // groups <= 64 and groups <= MOST_PROGRAMS
    return steps and few and len(x) * max(O, groups * C) * x[0, 0].numel() <= MOST_ELEMENTS


WHOLE: dict[str, Callable[..., Tensor]] = {"grouped": grouped, "channels_last": channels_last, "loop": loop}
"""Ways whose backward pass is PyTorch's."""
OWN = ("grouped", "unfold", "rows", "whole", "triton")
"""Ways of each pass by itself."""
WAYS = (*WHOLE, *OWN[1:])
assert get_args(Way) == WAYS
