"""Times of a convolution on the device, as a whole and pass by pass."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from stn.multiseed.memory import drop_cached, stream_of
from stn.multiseed.passes import PASSES, Backward
from stn.multiseed.products import Product
from stn.multiseed.ways import by_passes

_REPLAYS = 10


def whole_call(way: Callable[..., Tensor], arguments: tuple, groups: int, trains: bool) -> Callable[[], Any]:
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


def pass_calls(ways: list[str], arguments: tuple, groups: int, trains: bool) -> dict[str, dict[str, Callable[[], Any]]]:
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


def milliseconds(once: Callable[[], Any]) -> float:
    """Return the time of a call on the device, replayed as a graph like a step; infinite for one that cannot run."""
    current, graph = torch.cuda.current_stream(), torch.cuda.CUDAGraph()
    try:
        return _timed(once, current, graph)
    finally:
        graph.reset()
        drop_cached(current.device)  # the next graph cannot take what this one had


def _timed(once: Callable[[], Any], current: torch.cuda.Stream, graph: torch.cuda.CUDAGraph) -> float:
    stream = stream_of(current.device, "timing")
    stream.wait_stream(current)
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
