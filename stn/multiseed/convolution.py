"""Ways to convolve the maps of several seeds, and the choice between them by timing on the device.

All ways give what conv2d with groups gives. On CUDA no way is best for every shape: groups of one input channel leave
cuDNN for kernels whose weight gradient is slow. B batch, G groups, C channels in, M out, D = G * C, k x l kernel,
h x w map out, N = h * w, K = C * k * l.
"""

import math
import statistics
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from stn.multiseed.memory import free_bytes

_COLUMNS_SHARE = 0.05
"""Of the free memory: there are two such matrices in the backward pass."""
Pair = tuple[int, int]
Way = Literal["grouped", "channels_last", "loop", "unfold"]


def pair(value: Any) -> Pair:
    return (value, value) if isinstance(value, int) else tuple(value)


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


def unfold(x_BDHW: Tensor, weight: Tensor, bias: Tensor | None, *how: Any, groups: int) -> Tensor:
    """Multiply matrices of all patches with the filters; the matrices are made anew for the backward pass."""
    if torch.is_autocast_enabled(x_BDHW.device.type):
        dtype = torch.get_autocast_dtype(x_BDHW.device.type)
        x_BDHW, weight, bias = x_BDHW.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    out_BDhw = _Unfolded.apply(x_BDHW, weight, *how, groups)
    return out_BDhw if bias is None else out_BDhw + bias.view(-1, 1, 1)


class _Unfolded(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_BDHW: Tensor, weight_OCkl: Tensor, stride: Pair, padding: Pair, dilation: Pair, groups: int
    ) -> Tensor:
        ctx.save_for_backward(x_BDHW, weight_OCkl)
        ctx.how, ctx.groups = (stride, padding, dilation), groups
        kernel = weight_OCkl.shape[2:]
        columns_BGKN, size = _columns(x_BDHW, kernel, stride, padding, dilation, groups)
        return (weight_OCkl.view(groups, -1, columns_BGKN.shape[2]) @ columns_BGKN).flatten(1, 2).unflatten(2, size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BOhw: Tensor):  # type: ignore[override]
        (x_BDHW, weight_OCkl), (stride, padding, dilation) = ctx.saved_tensors, ctx.how
        grad_BGMN = grad_BOhw.flatten(2).unflatten(1, (ctx.groups, -1))
        grad_x = grad_weight = None
        if ctx.needs_input_grad[1]:
            columns_BGKN, _ = _columns(x_BDHW, weight_OCkl.shape[2:], stride, padding, dilation, ctx.groups)
            grad_weight = (grad_BGMN @ columns_BGKN.mT).sum(0).view_as(weight_OCkl)
        if ctx.needs_input_grad[0]:
            weight_GMK = weight_OCkl.flatten(1).view(ctx.groups, -1, weight_OCkl[0].numel())
            columns_AKN = (weight_GMK.mT @ grad_BGMN).flatten(0, 1)  # A = B * G
            grad_x = F.fold(columns_AKN, x_BDHW.shape[2:], weight_OCkl.shape[2:], dilation, padding, stride)
            grad_x = grad_x.view_as(x_BDHW)
        return grad_x, grad_weight, None, None, None, None


def _columns(
    x_BDHW: Tensor, kernel: torch.Size, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> tuple[Tensor, Pair]:
    """Return what each output pixel sees, in one copy (im2col takes a launch for each image), and the output's size."""
    if any(padding):
        x_BDHW = F.pad(x_BDHW, (padding[1], padding[1], padding[0], padding[0]))
    x_BDHW = x_BDHW.contiguous()
    B, D, H, W = x_BDHW.shape
    spans = [d * (n - 1) + 1 for n, d in zip(kernel, dilation, strict=True)]
    h, w = ((n - span) // s + 1 for n, span, s in zip((H, W), spans, stride, strict=True))
    shape = B, groups, D // groups, *kernel, h, w
    strides = D * H * W, D // groups * H * W, H * W, dilation[0] * W, dilation[1], stride[0] * W, stride[1]
    return x_BDHW.as_strided(shape, strides).reshape(B, groups, -1, h * w), (h, w)


WAYS: dict[str, Callable[..., Tensor]] = {
    "grouped": grouped,
    "channels_last": channels_last,
    "loop": loop,
    "unfold": unfold,
}
assert tuple(WAYS) == get_args(Way)


class Convolutions:
    """How each shape is convolved: one way for all, or (auto, on CUDA) the fastest, timed when it is first met."""

    def __init__(self, wish: Literal["auto"] | Way, tell: Callable[[str], None] = lambda text: None) -> None:
        self.wish, self._tell = wish, tell
        self.chosen: dict[str, str] = {}
        """The way of each shape that was timed; a run that resumes goes on with it."""

    def __call__(
        self, x_BDHW: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
    ) -> Tensor | None:
        """Return the convolution; None where there is no choice, and conv2d as it is will do."""
        if groups == 1 or isinstance(padding, str) or (self.wish == "auto" and not x_BDHW.is_cuda):
            return None
        arguments = x_BDHW, weight, bias, pair(stride), pair(padding), pair(dilation)
        name = self._choose(arguments, groups) if self.wish == "auto" else self.wish
        return WAYS[name](*arguments, groups=groups)

    def _choose(self, arguments: tuple, groups: int) -> str:
        x, weight = arguments[:2]
        trains = torch.is_grad_enabled()
        O, C, k, l = weight.shape
        use = ("backward to the image" if x.requires_grad else "backward") if trains else "forward"
        H, W = x.shape[2:]
        key = f"{groups} x {C} to {O // groups} channels, {k}x{l} on {H}x{W}, {str(x.dtype)[6:]}, {use}"
        if key not in self.chosen:
            if torch.cuda.is_current_stream_capturing() or get_proxy_mode() is not None:
                return "grouped"  # nothing can be timed here
            times = {
                name: _milliseconds(way, arguments, groups, trains)
                for name, way in WAYS.items()
                if name != "unfold" or _columns_fit(x, weight)
            }
            torch.cuda.empty_cache()
            self.chosen[key] = min(times, key=times.__getitem__)
            shown = ", ".join(f"{name} {ms:.2f}" for name, ms in times.items())
            self._tell(f"convolution of {key}: {self.chosen[key]} (ms: {shown})")
        return self.chosen[key]


def _columns_fit(x_BDHW: Tensor, weight_OCkl: Tensor) -> bool:
    """Whether the matrices of patches, which are in no estimate of a block's memory, are small beside what is free."""
    columns = x_BDHW.numel() * weight_OCkl[0, 0].numel() * x_BDHW.element_size()
    return columns <= _COLUMNS_SHARE * free_bytes(x_BDHW.device)


def _milliseconds(way: Callable[..., Tensor], arguments: tuple, groups: int, trains: bool, repeats: int = 5) -> float:
    """Return the median time of a pass on the device; infinite for a way that cannot run."""
    x, weight, bias, *how = arguments
    x, weight = x.detach().requires_grad_(trains and x.requires_grad), weight.detach().requires_grad_(trains)
    needs = [tensor for tensor in (x, weight) if tensor.requires_grad]
    times = []
    try:
        for _ in range(2 + repeats):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            out = way(x, weight, None if bias is None else bias.detach(), *how, groups=groups)
            if trains:
                torch.autograd.grad(out, needs, torch.ones_like(out))
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
    except RuntimeError:  # out of memory, or a shape that a library refuses
        return math.inf
    return statistics.median(times[2:])
