"""A training step as a CUDA graph: captured once and replayed."""

from collections.abc import Callable
from contextlib import suppress

import torch

from stn.multiseed.memory import stream_of

WARM_UP = 4
"""Steps before the capture: libraries choose their algorithms in the first ones."""
LARGE = 1 / 16
"""Share of a device's memory from which graphs are freed for an evaluation, and captured anew after it."""


class GraphedStep:
    """Calls ``step``, which must not sync with the host and must write its results into existing tensors.

    A capture freezes whatever ``step`` reads from the host, so there is a graph for each ``key``, such as the size of
    the batch. A step that cannot be captured is called as it is.
    """

    def __init__(
        self, step: Callable[[], None], device: torch.device, enabled: bool, warn: Callable[[str], None]
    ) -> None:
        self.step, self.warn = step, warn
        self.enabled = enabled and device.type == "cuda"
        self._device = device
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._calls: dict[int, int] = {}
        self._side_stream = stream_of(device, "steps") if self.enabled else None
        self._pool = torch.cuda.graph_pool_handle() if self.enabled else None
        """The memory of all graphs: one runs at a time, and what is in it does not outlive a step."""
        self._held = 0
        """Bytes of that memory."""

    def __call__(self, key: int) -> None:
        if key in self._graphs:
            self._graphs[key].replay()
            return
        if not self.enabled:
            self.step()
            return
        self._calls[key] = self._calls.get(key, 0) + 1
        if self._calls[key] > WARM_UP and self._capture(key):
            self._graphs[key].replay()
        else:
            self._call_on_side_stream()

    def make_room(self, optimiser: torch.optim.Optimizer) -> None:
        """Free the memory of large graphs, with the gradients in it; the next step is captured anew."""
        if self._held <= LARGE * torch.cuda.get_device_properties(self._device).total_memory:
            return
        optimiser.zero_grad()
        torch.cuda.synchronize(self._device)
        for graph in self._graphs.values():
            graph.reset()
        self._graphs.clear()
        self._held, self._pool = 0, torch.cuda.graph_pool_handle()
        torch.cuda.empty_cache()

    def _call_on_side_stream(self) -> None:
        """Call the step on the stream that the capture uses, in order with everything before and after."""
        assert self._side_stream is not None
        self._side_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side_stream):
            self.step()
        torch.cuda.current_stream().wait_stream(self._side_stream)

    def _capture(self, key: int) -> bool:
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        torch.cuda.empty_cache()  # free what plain steps have cached; the graph has memory of its own
        before = torch.cuda.memory_reserved(self._device)
        try:
            with torch.cuda.graph(graph, self._pool, self._side_stream, capture_error_mode="thread_local"):
                self.step()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # something in the step syncs with the host
            self.enabled = False
            self._clean_up(stream)
            cause = error.__context__ or error  # the error is that the graph is broken, its context is what broke it
            self.warn(f"steps are not replayed as a CUDA graph: {str(cause).splitlines()[0]}")
            return False
        self._graphs[key] = graph
        self._held += torch.cuda.memory_reserved(self._device) - before
        return True

    def _clean_up(self, stream: torch.cuda.Stream) -> None:
        """Restore stream, allocator and generator, which torch 2.11 leaves as they were in the failed capture."""
        assert self._side_stream is not None
        assert self._pool is not None
        torch.cuda.set_stream(stream)
        torch.cuda.synchronize()
        index = self._side_stream.device_index
        with suppress(RuntimeError, AttributeError):  # where torch has done so itself, or calls it otherwise
            torch._C._cuda_endAllocateToPool(index, self._pool)
        generator = torch.cuda.default_generators[index]
        generator.graphsafe_set_state(generator.clone_state())
