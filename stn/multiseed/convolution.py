"""Ways to convolve the maps of several seeds, and the choice between them by timing on the device.

All ways give what conv2d with groups gives. On CUDA no way is best for every shape: groups of one input channel leave
cuDNN for kernels whose weight gradient is slow. B batch, G groups, C channels in, M out, D = G * C, k x l kernel,
h x w map out, N = h * w, K = C * k * l.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from stn.multiseed.memory import free_bytes
from stn.multiseed.products import MOST_WASTE, conv_product, scratch_elements, waste

_COLUMNS_SHARE = 0.05
"""Share of the free memory that a way's matrices may take; the backward pass has two of them."""
_REPLAYS = 10
Pair = tuple[int, int]
Way = Literal["grouped", "channels_last", "loop", "unfold", "rows", "whole"]


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


def product(way: str, x_BDHW: Tensor, weight: Tensor, bias: Tensor | None, *how: Any, groups: int) -> Tensor:
    """Multiply matrices: of patches with the filters (unfold), or of rows or whole maps with the filters as bands."""
    if torch.is_autocast_enabled(x_BDHW.device.type):
        dtype = torch.get_autocast_dtype(x_BDHW.device.type)
        x_BDHW, weight, bias = x_BDHW.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    out_BDhw = conv_product(x_BDHW, weight, *how, groups, way)
    return out_BDhw if bias is None else out_BDhw + bias.view(-1, 1, 1)


WAYS: dict[str, Callable[..., Tensor]] = {
    "grouped": grouped,
    "channels_last": channels_last,
    "loop": loop,
    "unfold": partial(product, "unfold"),
    "rows": partial(product, "rows"),
    "whole": partial(product, "whole"),
}
assert tuple(WAYS) == get_args(Way)


class Convolutions:
    """How each shape is convolved: one way for all, or (auto, on CUDA) the fastest, timed when it is first met."""

    def __init__(self, wish: Literal["auto"] | Way, tell: Callable[[str], None] = lambda text: None) -> None:
        self.wish, self._tell = wish, tell
        self.chosen: dict[str, str] = {}
        """The way of each shape that was timed; a resumed run keeps it."""

    def __call__(
        self, x_BDHW: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
    ) -> Tensor | None:
        """Return the convolution; None where plain conv2d is taken, as for a single group."""
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
                return "channels_last"  # nothing can be timed here
            times = {
                name: _milliseconds(way, arguments, groups, trains)
                for name, way in WAYS.items()
                if _worth_trying(name, x, weight)
            }
            torch.cuda.empty_cache()
            self.chosen[key] = min(times, key=times.__getitem__)
            shown = ", ".join(f"{name} {ms:.2f}" for name, ms in times.items())
            self._tell(f"convolution of {key}: {self.chosen[key]} (ms: {shown})")
        return self.chosen[key]


def _worth_trying(name: str, x_BDHW: Tensor, weight_OCkl: Tensor) -> bool:
    """Whether a way's matrices are small beside the free memory: the estimate of a block's memory leaves them out."""
    if name not in ("unfold", "rows", "whole"):
        return True
    fits = scratch_elements(x_BDHW, weight_OCkl, name) * x_BDHW.element_size() <= _COLUMNS_SHARE * free_bytes(
        x_BDHW.device
    )
    return fits and waste(x_BDHW, weight_OCkl, name) <= MOST_WASTE


def _milliseconds(way: Callable[..., Tensor], arguments: tuple, groups: int, trains: bool) -> float:
    """Return the time of a pass on the device, replayed as a graph like a step; infinite for a way that cannot run."""
    x, weight, bias, *how = arguments
    x, weight = x.detach().requires_grad_(trains and x.requires_grad), weight.detach().requires_grad_(trains)
    needs = [tensor for tensor in (x, weight) if tensor.requires_grad]

    def once() -> None:
        out = way(x, weight, None if bias is None else bias.detach(), *how, groups=groups)
        if trains:
            torch.autograd.grad(out, needs, torch.ones_like(out))

    stream, graph = torch.cuda.Stream(x.device), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(stream):
            for _ in range(2):  # libraries choose their algorithms
                once()
    except RuntimeError:  # out of memory, or a shape that a library refuses
        return math.inf
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        once()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    graph.replay()
    start.record()
    for _ in range(_REPLAYS):
        graph.replay()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / _REPLAYS
