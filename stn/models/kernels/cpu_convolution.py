"""Convolutions of small maps with many channels on a CPU, where oneDNN's reach half to three quarters of its speed.

Only with AVX-512: held to AVX2, oneDNN's are faster from 16 channels to 32, and as fast from 32.

B batch, G groups of C channels and O filters of k x l, H x W map, h x w the result's.
"""

import torch
from torch import Tensor

from stn.models.kernels.compiled import call, fits, has_wide_vectors
from stn.models.kernels.operators import operator

_LAST = torch.channels_last
_CHANNELS = 16
"""Channels and filters of a group come in as many, a vector of the widest kind."""


def has_kernel(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> bool:
    """Whether a convolution without padding, stride and dilation has kernels; PyTorch tells what is wrong with one."""
    (G_O, C, k, l), tensors = weight.shape, (x, weight) if bias is None else (x, weight, bias)
    channels = G_O % (groups * _CHANNELS) == C % _CHANNELS == 0 and x.shape[1] == groups * C
    sizes = x.shape[2] >= k and x.shape[3] >= l and (bias is None or bias.shape == (G_O,))
    return has_wide_vectors() and channels and sizes and x.is_contiguous(memory_format=_LAST) and fits(*tensors)


def _maps(like: Tensor, *size: int) -> Tensor:
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=_LAST)


def _outputs(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    G_O, _, k, l = weight.shape
    return _maps(x, len(x), G_O, x.shape[2] - k + 1, x.shape[3] - l + 1)


@operator("convolve_last(Tensor x, Tensor weight, Tensor bias, int groups) -> Tensor", _outputs)
def convolve(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """Return conv2d of maps with channels last; the bias of a convolution without one is zeros."""
    (B, _, H, W), (G_O, C, k, l) = x.shape, weight.shape
    out, O = _outputs(x, weight, bias, groups), G_O // groups
    filters_GklCO = weight.view(groups, O, C, k, l).permute(0, 3, 4, 2, 1).contiguous()
    x = x.contiguous(memory_format=_LAST)
    call("convolve", x, filters_GklCO, bias.contiguous(), out, B, H, W, groups, C, O, k, l)
    return out


@operator(
    "convolve_last_to_image(Tensor grad, Tensor weight, int H, int W, int groups) -> Tensor",
    lambda grad, weight, H, W, groups: _maps(grad, len(grad), groups * weight.shape[1], H, W),
)
def to_image(grad: Tensor, weight: Tensor, H: int, W: int, groups: int) -> Tensor:
    """Return the gradient of the maps."""
    G_O, C, k, l = weight.shape
    out, O = _maps(grad, len(grad), groups * C, H, W), G_O // groups
    filters_GklOC = weight.view(groups, O, C, k, l).permute(0, 3, 4, 1, 2).contiguous()
    grad = grad.contiguous(memory_format=_LAST)
    call("convolve_to_image", grad, filters_GklOC, out, len(grad), H, W, groups, C, O, k, l)
    return out


@operator(
    "convolve_last_to_filters(Tensor x, Tensor grad, int groups) -> Tensor",
    lambda x, grad, groups: grad.new_empty(
        grad.shape[1], x.shape[1] // groups, *(n - m + 1 for n, m in zip(x.shape[2:], grad.shape[2:], strict=True))
    ),
)
def to_filters(x: Tensor, grad: Tensor, groups: int) -> Tensor:
    """Return the gradient of the filters."""
    (B, D, H, W), (_, G_O, h, w) = x.shape, grad.shape
    C, O, k, l = D // groups, G_O // groups, H - h + 1, W - w + 1
    out_GklCO = grad.new_empty(groups, k, l, C, O)
    call(
        "convolve_to_filters",
        *(x.contiguous(memory_format=_LAST), grad.contiguous(memory_format=_LAST), out_GklCO),
        *(B, H, W, groups, C, O, k, l),
    )
    return out_GklCO.permute(0, 4, 3, 1, 2).contiguous().view(G_O, C, k, l)
