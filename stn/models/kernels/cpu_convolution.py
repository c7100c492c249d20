"""Convolutions of small maps with many channels on a CPU, where oneDNN's reach a tenth to three quarters of its speed.

B batch, G groups of C channels and O filters of k x l, H x W map, h x w the result's; P is O or C in whole vectors.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from stn.models.kernels import compiled
from stn.models.kernels.compiled import call, fits
from stn.models.kernels.operators import operator

_LAST = torch.channels_last
_PIXELS, _FLOATS = 2**14, 2**17
"""Pixels of a map, and floats of one in whole vectors: what a thread has of them on its stack."""


def lanes() -> int:
    """Return the floats of a vector: 16 with AVX-512, 8 with AVX2; 0 where there are no functions, or none measured."""
    functions = compiled.library().functions
    return functions.vector_lanes() if functions else 0


def has_kernel(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> bool:
    """Whether a convolution without padding, stride and dilation has kernels; PyTorch tells what is wrong with one."""
    (G_O, C, k, l), (H, W) = weight.shape, x.shape[2:]
    tensors = (x, weight) if bias is None else (x, weight, bias)
    channels = G_O % groups == 0 and x.shape[1] == groups * C
    sizes = k <= H and l <= W and H * W <= _PIXELS and (bias is None or bias.shape == (G_O,))
    if not (channels and sizes and x.is_contiguous(memory_format=_LAST) and fits(*tensors) and lanes()):
        return False
    return C % lanes() == 0 or whole(C) * H * (W + 32 + l) <= _FLOATS


def whole(channels: int) -> int:
    """Return the floats of the vectors that this many fill."""
    vector = lanes() or 8
    return -(-channels // vector) * vector


def _filled(x: Tensor) -> Tensor:
    """Return a tensor whose last axis is whole vectors, filled with zeros."""
    missing = whole(x.shape[-1]) - x.shape[-1]
    return (F.pad(x, (0, missing)) if missing else x).contiguous()


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
    filters_GklCP = _filled(weight.view(groups, O, C, k, l).permute(0, 3, 4, 2, 1))
    bias_GP = _filled(bias.view(groups, O))
    x = x.contiguous(memory_format=_LAST)
    call("convolve", x, filters_GklCP, bias_GP, out, B, H, W, groups, C, O, k, l, bias_GP.shape[1])
    return out


@operator(
    "convolve_last_to_image(Tensor grad, Tensor weight, int H, int W, int groups) -> Tensor",
    lambda grad, weight, H, W, groups: _maps(grad, len(grad), groups * weight.shape[1], H, W),
)
def to_image(grad: Tensor, weight: Tensor, H: int, W: int, groups: int) -> Tensor:
    """Return the gradient of the maps."""
    G_O, C, k, l = weight.shape
    out, O = _maps(grad, len(grad), groups * C, H, W), G_O // groups
    filters_GklOP = _filled(weight.view(groups, O, C, k, l).permute(0, 3, 4, 1, 2))
    grad = grad.contiguous(memory_format=_LAST)
    call("convolve_to_image", grad, filters_GklOP, out, len(grad), H, W, groups, C, O, k, l, filters_GklOP.shape[-1])
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
    grad_BhwGP = _filled(grad.permute(0, 2, 3, 1).reshape(B, h, w, groups, O))
    P = grad_BhwGP.shape[-1]
    out_GklCP = grad.new_empty(groups, k, l, C, P)
    x = x.contiguous(memory_format=_LAST)
    call("convolve_to_filters", x, grad_BhwGP, out_GklCP, B, H, W, groups, C, P, k, l)
    return out_GklCP[..., :O].permute(0, 4, 3, 1, 2).contiguous().view(G_O, C, k, l)


@operator(
    "thin_to_image(Tensor grad, Tensor weight, int H, int W, int groups) -> Tensor",
    lambda grad, weight, H, W, groups: grad.new_empty(len(grad), groups, H, W),
)
def thin_to_image(grad: Tensor, weight: Tensor, H: int, W: int, groups: int) -> Tensor:
    """Return the gradient of maps of one channel a group."""
    G_O, _, k, l = weight.shape
    out = grad.new_empty(len(grad), groups, H, W)
    filters = F.pad(weight.view(G_O, k, l), (0, 0, 1, 1))
    grad = grad.contiguous(memory_format=_LAST)
    call("thin_to_image", grad, filters, out, len(grad), H, W, groups, G_O // groups, k, l)
    return out
