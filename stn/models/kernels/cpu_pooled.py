"""Gradients of convolutions whose maps are max-pooled right away, on a CPU: from the pixels that won alone.

B batch, G groups of C channels and O filters of k x l, H x W map, h x w the pooled one's, p rows and q columns of zeros
on each side of a map; P is l * C in whole vectors.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from stn.models.kernels import cpu_pooling
from stn.models.kernels.compiled import call, fits
from stn.models.kernels.cpu_convolution import lanes, whole
from stn.models.kernels.operators import operator

_LAST = torch.channels_last
_FLOATS, _FILTERS, _MOST = 2**17, 2**12, 2**31
"""Of an image of a group, which a thread has on its stack; of a group; numbers of 32 bits."""


def has_kernel(maps: Tensor, x: Tensor, weight: Tensor, groups: int, padding: tuple[int, int] = (0, 0)) -> bool:
    """Whether a convolution without stride and dilation, pooled in squares of 2x2, has kernels."""
    (G_O, C, k, l), (B, D, H, W), (p, q) = weight.shape, x.shape, padding
    H, W = H + 2 * p, W + 2 * q
    sizes = (groups * C, G_O, H - k + 1, W - l + 1) == (D, *maps.shape[1:]) and p < k and q < l
    small = H * W * C <= _FLOATS and G_O // groups <= _FILTERS and max(B * H * W * C, 16 * weight.numel()) < _MOST
    kernels = sizes and small and cpu_pooling.has_kernel(maps, 2) and fits(x, weight) and lanes() > 0
    return kernels and x.is_contiguous(memory_format=_LAST)


@operator(
    "pooled_to_filters(Tensor x, Tensor grad, Tensor place, int k, int l, int groups, int p, int q) -> Tensor",
    lambda x, grad, place, k, l, groups, p, q: grad.new_empty(grad.shape[1], x.shape[1] // groups, k, l),
)
def to_filters(x: Tensor, grad_BDhw: Tensor, place_BDhw: Tensor, k: int, l: int, groups: int, p: int, q: int) -> Tensor:
    """Return the gradient of the filters from that of the pooled maps."""
    (B, D, H, W), G_O = x.shape, grad_BDhw.shape[1]
    C, O = D // groups, G_O // groups
    P = whole(l * C)
    out, apart = x.new_empty(G_O, k, P), x.new_empty(B * D * (H + 2 * p) * (W + 2 * q) + P)
    x, grad_BDhw, place_BDhw = (tensor.contiguous(memory_format=_LAST) for tensor in (x, grad_BDhw, place_BDhw))
    call("pooled_to_filters", x, grad_BDhw, place_BDhw, out, apart, B, H, W, groups, C, O, k, l, P, p, q)
    return out[..., : l * C].unflatten(-1, (l, C)).permute(0, 3, 1, 2).contiguous()


@operator(
    "pooled_to_image(Tensor grad, Tensor place, Tensor weight, int H, int W, int groups, int p, int q) -> Tensor",
    lambda grad, place, weight, H, W, groups, p, q: torch.empty(
        (len(grad), groups * weight.shape[1], H, W), dtype=grad.dtype, device=grad.device, memory_format=_LAST
    ),
)
def to_image(
    grad_BDhw: Tensor, place_BDhw: Tensor, weight: Tensor, H: int, W: int, groups: int, p: int, q: int
) -> Tensor:
    """Return the gradient of the maps that were convolved from that of the pooled ones."""
    (G_O, C, k, l), B = weight.shape, len(grad_BDhw)
    P = whole(l * C)
    filters = F.pad(weight.permute(0, 2, 3, 1).reshape(G_O, k, l * C), (0, P - l * C)).contiguous()
    out = torch.empty((B, groups * C, H, W), dtype=weight.dtype, device=weight.device, memory_format=_LAST)
    grad_BDhw, place_BDhw = (tensor.contiguous(memory_format=_LAST) for tensor in (grad_BDhw, place_BDhw))
    call("pooled_to_image", grad_BDhw, place_BDhw, filters, out, B, H, W, groups, C, G_O // groups, k, l, P, p, q)
    return out
