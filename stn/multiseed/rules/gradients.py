"""Gradients of convolutions on a CPU, where oneDNN's own are slower.

B batch, O channel out, C channel in, H, W.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from stn.models.kernels import cpu_convolution
from stn.models.kernels.cpu_columns import add_columns, has_kernel
from stn.models.kernels.cpu_convolution import lanes
from stn.multiseed.rules.order import in_other_hands
from stn.multiseed.ways import Pair, pair


class Kernels(NamedTuple):
    """Which passes of a convolution are computed in C."""

    result: bool = False
    filters: bool = False
    images: bool = False


def is_slow(x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any, groups: int) -> bool:
    """Whether a convolution is faster as OwnConv."""
    return (
        x.device.type == "cpu"
        and weight.requires_grad
        and x.dim() == 4
        and pair(stride) == pair(dilation) == (1, 1)
        and not isinstance(padding, str)
        and (
            _is_thin(x, weight, pair(padding), groups)
            or _is_small(x, weight, pair(padding), groups)
            or _is_odd(x, weight, pair(padding), groups)
        )
    )


def _is_thin(x: Tensor, weight: Tensor, padding: Pair, groups: int) -> bool:
    """Whether each group has one or two input channels.

    With as few filters as channels, as in a depthwise one, oneDNN's are faster: 7x7 5 against 44 ms (one core). In
    float64 OwnConv stays: its last bits are those of runs of before.
    """
    return (
        weight.shape[1] <= 2
        and (x.dtype == torch.float64 or len(weight) >= 4 * groups * weight.shape[1])
        and padding[0] < weight.shape[2] > 1
        and (x.requires_grad or not torch.is_autocast_enabled("cpu"))  # oneDNN's own weight gradient is as fast in bf16
    )


def _is_small(x: Tensor, weight: Tensor, padding: Pair, groups: int) -> bool:
    """Whether filters are larger than the map that they make, channels last in memory and enough to fill vectors of 16.

    In that order oneDNN's input gradient then takes 1.1 to 1.5 times longer (bf16: 1.9).
    """
    (O, C, k, l), (H, W) = weight.shape, x.shape[2:]
    small = k >= 5 and k > H + 2 * padding[0] - k + 1 and l > W + 2 * padding[1] - l + 1
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return small and last and x.requires_grad and x.dtype != torch.float64 and C % 16 == O // groups % 16 == 0


def _is_odd(x: Tensor, weight: Tensor, padding: Pair, groups: int) -> bool:
    """Whether channels fill no vectors of 8, which oneDNN's input gradient wants without AVX-512.

    From 10 channels to 20, of 5x5 on 12x12, it takes 1.5 times longer than in C (one thread of a Zen 3).
    """
    O, C, k, l = weight.shape
    odd = 4 <= C < 32 and (C % 8 != 0 or O // groups % 8 != 0) and min(k, l) >= 3
    learns = x.requires_grad and not torch.is_autocast_enabled("cpu")  # which has no kernel for bf16
    return odd and learns and _kernels(x, weight, None, padding, groups).images


def _kernels(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Pair, groups: int) -> Kernels:
    """Return the passes that are faster in C."""
    (O, C, k, l), (H, W) = weight.shape, x.shape[2:]
    if padding != (0, 0) or not cpu_convolution.has_kernel(x, weight, bias, groups) or in_other_hands(x, weight):
        return Kernels()
    if lanes() < 16:
        return Kernels(result=C == 1, images=C != 2)
    pixels = (H - k + 1) * (W - l + 1)
    full = pixels >= 0.75 * 8 * -(-pixels // 8) and C % 16 == O // groups % 16 == 0
    return Kernels(full, full, full)


class OwnConv(torch.autograd.Function):
    """conv2d whose input gradient is not oneDNN's for its memory order, and whose bias gradient is computed apart.

    oneDNN's own weight gradient takes 1.4 to 1.7 times longer with the bias's in it (2 cores, 64 to 256 images, 10 to
    16 filters of 5x5 to 9x9).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: Any, groups: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.has_bias, ctx.groups = pair(padding), bias is not None, groups
        ctx.in_c = _kernels(x, weight, bias, ctx.padding, groups)
        if ctx.in_c.result:
            return cpu_convolution.convolve(x, weight, x.new_zeros(len(weight)) if bias is None else bias, groups)
        return F.conv2d(x, weight, bias, padding=padding, groups=groups)

    @staticmethod
    def backward(ctx: Any, grad_BOHW: Tensor):  # type: ignore[override]
        x, weight_OCkl = ctx.saved_tensors
        groups, O = ctx.groups, len(weight_OCkl)
        how = ([1, 1], ctx.padding, [1, 1], False, [0, 0], groups)
        if torch.is_grad_enabled():  # the gradient's own gradient is wanted, which PyTorch's has
            wanted = [ctx.needs_input_grad[0], True, ctx.has_bias]
            return *torch.ops.aten.convolution_backward(grad_BOHW, x, weight_OCkl, [O], *how, wanted), None, None
        grad_bias = grad_BOHW.sum((0, 2, 3)) if ctx.has_bias else None
        if ctx.in_c.filters:
            grad_weight = cpu_convolution.to_filters(x, grad_BOHW, groups)
        else:
            only = [False, True, False]
            _, grad_weight, _ = torch.ops.aten.convolution_backward(grad_BOHW, x, weight_OCkl, [O], *how, only)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = image_gradient(grad_BOHW, weight_OCkl, x.shape, ctx.padding, groups, ctx.in_c.images)
        return grad_x, grad_weight, grad_bias, None, None


def image_gradient(
    grad_BOHW: Tensor, weight_OCkl: Tensor, shape: torch.Size, padding: Pair, groups: int, in_c: bool
) -> Tensor:
    if in_c:
        own = cpu_convolution.thin_to_image if weight_OCkl.shape[1] == 1 else cpu_convolution.to_image
        return own(grad_BOHW, weight_OCkl, *shape[2:], groups)
    of_few = _by_column if weight_OCkl.shape[1] <= 2 else _pixels_side_by_side
    return of_few(grad_BOHW, weight_OCkl, shape, padding, groups)


def _pixels_side_by_side(grad_BOHW: Tensor, weight_OCkl: Tensor, shape: torch.Size, padding: Pair, G: int) -> Tensor:
    """Let oneDNN compute with the pixels of a channel side by side in memory."""
    like = grad_BOHW.new_empty(shape)  # only its shape counts
    grad_BOHW, weight_OCkl, how = grad_BOHW.contiguous(), weight_OCkl.contiguous(), ([1, 1], padding, [1, 1])
    grad_x, _, _ = torch.ops.aten.convolution_backward(
        grad_BOHW, like, weight_OCkl, None, *how, False, [0, 0], G, [True, False, False]
    )
    return grad_x.contiguous(memory_format=torch.channels_last)


def _by_column(grad_BOHW: Tensor, weight_OCkl: Tensor, shape: torch.Size, padding: Pair, G: int) -> Tensor:
    """Convolve with each kernel column, then add the results, each shifted by its column's index.

    For thin convolutions oneDNN's own takes 3 to 7 times longer. G groups of C input and M output channels, D = G * C;
    kernels of k rows and l columns.
    """
    (pad_k, pad_l), (B, D, H, W), (O, C, k, l) = padding, shape, weight_OCkl.shape
    M, grad_W = O // G, grad_BOHW.shape[3]
    flipped_GMCkl = weight_OCkl.flip(2).view(G, M, C, k, l)
    columns_GClMk = flipped_GMCkl.permute(0, 2, 4, 1, 3)
    filters = columns_GClMk.reshape(D * l, M, k, 1).contiguous(memory_format=torch.channels_last)
    by_column = F.conv2d(grad_BOHW, filters, padding=(k - 1 - pad_k, 0), groups=G)
    if has_kernel(by_column):
        return add_columns(by_column, l, W, pad_l)
    by_column_BDlHW = by_column.unflatten(1, (D, l))
    sums_in = torch.float32 if grad_BOHW.dtype == torch.bfloat16 else grad_BOHW.dtype
    padded_BDHW = grad_BOHW.new_zeros(B, D, H, W + 2 * pad_l, dtype=sums_in)
    for j in range(l):
        padded_BDHW[..., j : j + grad_W] += by_column_BDlHW[:, :, j]
    return padded_BDHW[..., pad_l : pad_l + W].to(grad_BOHW.dtype)
