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

from stn.models import kernels
from stn.multiseed.memory import MOST_ELEMENTS, free_bytes
from stn.multiseed.passes import PASSES, Backward, convolve
from stn.multiseed.products import MOST_WASTE, Product, scratch_elements, waste

_COLUMNS_SHARE = 0.05
"""Share of the free memory that a way's matrices may take; the backward pass has two of them."""
_REPLAYS = 10
Pair = tuple[int, int]
Way = Literal["grouped", "channels_last", "loop", "unfold", "rows", "whole", "triton"]


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
    few = C <= 32 and O // groups <= 64
    return steps and few and len(x) * max(O, groups * C) * x[0, 0].numel() <= MOST_ELEMENTS


WHOLE: dict[str, Callable[..., Tensor]] = {"grouped": grouped, "channels_last": channels_last, "loop": loop}
"""Ways whose backward pass is PyTorch's."""
OWN = ("grouped", "unfold", "rows", "whole", "triton")
"""Ways of each pass by itself."""
WAYS = (*WHOLE, *OWN[1:])
assert get_args(Way) == WAYS


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
        if name in WHOLE or (name == "triton" and not has_kernel(arguments, groups)):
            return WHOLE.get(name, grouped)(*arguments, groups=groups)
        return by_passes(name, *arguments, groups=groups)

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
            self.chosen[key] = self._fastest(key, arguments, groups, trains)
        return self.chosen[key]

    def _fastest(self, key: str, arguments: tuple, groups: int, trains: bool) -> str:
        own = [way for way in OWN if _worth_trying(way, arguments, groups)]
        if not self.chosen and (reason := kernels.missing()):
            self._tell(f"convolutions without Triton's kernels: {reason}")
        whole = {name: _milliseconds(_whole(way, arguments, groups, trains)) for name, way in WHOLE.items()}
        by_pass = {
            part: {way: _milliseconds(once) for way, once in calls.items()}
            for part, calls in _passes(own, arguments, groups, trains).items()
        }
        torch.cuda.empty_cache()
        best = {part: min(times, key=times.__getitem__) for part, times in by_pass.items()}
        together = sum(by_pass[part][way] for part, way in best.items())
        chosen = min(whole, key=whole.__getitem__) if min(whole.values()) <= together else "/".join(best.values())
        tables = {"all passes": whole} | by_pass
        shown = [f"{part}: " + ", ".join(f"{way} {ms:.2f}" for way, ms in t.items()) for part, t in tables.items()]
        self._tell(f"convolution of {key}: {chosen} (ms of {'; '.join(shown)})")
        return chosen


def _worth_trying(name: str, arguments: tuple, groups: int) -> bool:
    """Whether a way can be fast, and has matrices that are small beside the free memory: no estimate has them in it."""
    x_BDHW, weight_OCkl = arguments[:2]
    if name == "triton":  # no product of tiles is fast in double precision
        return x_BDHW.dtype != torch.float64 and has_kernel(arguments, groups) and not kernels.missing()
    if name == "grouped":
        return True
    scratch = scratch_elements(x_BDHW, weight_OCkl, name) * x_BDHW.element_size()
    fits = scratch <= _COLUMNS_SHARE * free_bytes(x_BDHW.device)
    return fits and waste(x_BDHW, weight_OCkl, name) <= MOST_WASTE


def _whole(way: Callable[..., Tensor], arguments: tuple, groups: int, trains: bool) -> Callable[[], Any]:
    """Return a call of forward and backward pass."""
    x, weight, bias, *how = arguments
    x, weight = x.detach().requires_grad_(trains and x.requires_grad), weight.detach().requires_grad_(trains)
    bias = None if bias is None else bias.detach()
    needs = [tensor for tensor in (x, weight) if tensor.requires_grad]
    grads: list[Tensor] = []

    def once() -> None:
        out = way(x, weight, bias, *how, groups=groups)
        if trains:
            grads[:] = grads or [torch.ones_like(out)]
            torch.autograd.grad(out, needs, grads)

    return once


def _passes(ways: list[str], arguments: tuple, groups: int, trains: bool) -> dict[str, dict[str, Callable[[], Any]]]:
    """Return a call of each pass in each of our own ways."""
    x, weight, bias, stride, padding, dilation = arguments
    x, weight, bias = x.detach(), weight.detach(), None if bias is None else bias.detach()
    how = stride, padding, dilation
    calls = {"forward": {way: partial(by_passes, way, x, weight, bias, *how, groups=groups) for way in ways}}
    if not trains:
        return calls
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    x, weight = x.to(dtype), weight.to(dtype)
    grad = x.new_ones(Product(x, weight, *how, groups, "rows").size)

    def run(part: str, way: str) -> Tensor:
        with torch.autocast("cuda", enabled=False):
            return getattr(Backward(grad, x, weight, how, groups), part)(way)

    parts = PASSES[1:] if arguments[0].requires_grad else PASSES[1:2]
    return calls | {part: {way: partial(run, part, way) for way in ways} for part in parts}


def _milliseconds(once: Callable[[], Any]) -> float:
    """Return the time of a call on the device, replayed as a graph like a step; infinite for one that cannot run."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(stream):
            for _ in range(2):  # libraries choose their algorithms
                once()
    except Exception:  # out of memory, a shape that a library refuses, a kernel that does not compile
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
