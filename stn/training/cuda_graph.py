"""A step of training as one CUDA graph: recorded once, replayed without the host. Plain calls elsewhere.

Must not know what a step does.
"""

from collections.abc import Callable

import torch

WARM_UP = 4
"""Steps before recording: libraries choose their algorithms in the first ones."""


class GraphedStep:
    """Calls ``step``, which works on the device alone and leaves its results in tensors that stay.

    Whatever ``step`` reads from the host is fixed in the recording, so there is one recording for
    each ``key``, such as the size of the batch. What cannot be recorded goes on as plain calls.
    """

    def __init__(
        self, step: Callable[[], None], device: torch.device, wanted: bool, tell: Callable[[str], None]
    ) -> None:
        self.step, self.tell = step, tell
        self.wanted = wanted and device.type == "cuda"
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._calls: dict[int, int] = {}
        self._side = torch.cuda.Stream(device) if self.wanted else None

    def __call__(self, key: int) -> None:
        if key in self._graphs:
            self._graphs[key].replay()
            return
        if not self.wanted:
            self.step()
            return
        self._calls[key] = self._calls.get(key, 0) + 1
        if self._calls[key] > WARM_UP and self._record(key):
            self._graphs[key].replay()
        else:
            self._on_the_side()

    def _on_the_side(self) -> None:
        """On the stream that recording needs, in order with everything before and after."""
        assert self._side is not None
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            self.step()
        torch.cuda.current_stream().wait_stream(self._side)

    def _record(self, key: int) -> bool:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._side, capture_error_mode="thread_local"):
                self.step()
        except RuntimeError as error:  # something in the step asks the host
            self.wanted = False
            torch.cuda.synchronize()
            self.tell(f"steps are not replayed as a CUDA graph: {str(error).splitlines()[0]}")
            return False
        self._graphs[key] = graph
        return True
