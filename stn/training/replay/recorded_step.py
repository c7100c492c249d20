"""A training step on a CPU as the list of its operations: recorded once, then replayed without Python and autograd.

The same operations run on the same tensors, so every number has the same bits. What a step reads from Python is
frozen, as in a CUDA graph; the first replay is compared with the step itself.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from stn.training.replay.cuda_graph import GraphedStep

PLAIN_CALLS = 50
"""Calls before a step is recorded: that takes the time of five, and saves a tenth to a quarter of each."""
_CHANGING = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.nondeterministic_seeded)
"""Operations whose outcome a replay would not repeat."""
Replay = Callable[[], None]


class CannotRecord(Exception):
    """A step does something that a replay would not repeat."""


class _Recorder(TorchDispatchMode):
    """Runs operations and writes them down."""

    def __init__(self) -> None:
        super().__init__()
        self._graph = fx.Graph()
        self._nodes = WeakTensorKeyDictionary()
        """Where each tensor comes from: an operation, or outside."""
        self._outside: dict[str, Tensor] = {}
        self._memory_outside: set[int] = set()
        """Addresses; a view of a tensor from outside has one of these, too."""
        self.changed: list[Tensor] = []
        """Tensors from outside that the step may change: not every operation says so of floating-point ones."""
        self._before: list[Tensor] = []
        """What was in them."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would import torch._dynamo for it, which takes two seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "profiler":  # marks where an optimiser's step begins and ends
            return func(*args, **kwargs)
        if any(tag in func.tags for tag in _CHANGING) and not _takes_numbers(func, args):
            raise CannotRecord(f"{func} may do something else each time")
        given = tree_map_only(Tensor, self._node_of, (args, kwargs))
        for i, argument in enumerate(func._schema.arguments if func._schema.is_mutable else ()):
            if argument.is_write:
                for tensor in tree_leaves(args[i] if i < len(args) else kwargs.get(argument.name)):
                    if isinstance(tensor, Tensor) and self._is_from_outside(tensor):
                        self._keep(tensor)
        out = func(*args, **kwargs)
        node = self._graph.call_function(func, *given)
        for i, part in enumerate(out if isinstance(out, tuple | list) else ()):
            if isinstance(part, Tensor):
                self._nodes[part] = self._graph.call_function(operator.getitem, (node, i))
        if isinstance(out, Tensor):
            self._nodes[out] = node
        return out

    def _node_of(self, tensor: Tensor) -> fx.Node:
        if tensor not in self._nodes:
            name = f"outside_{len(self._outside)}"
            self._outside[name] = tensor
            self._memory_outside.add(tensor.untyped_storage().data_ptr())
            self._nodes[tensor] = self._graph.get_attr(name)
            if tensor.is_floating_point():
                self._keep(tensor)
        return self._nodes[tensor]

    def _is_from_outside(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self._memory_outside

    def _keep(self, tensor: Tensor) -> None:
        self.changed.append(tensor)
        self._before.append(tensor.detach().clone())

    def undo(self) -> None:
        _restore(self.changed, self._before)

    def finish(self) -> Replay:
        self._graph.output(None)
        self._graph.eliminate_dead_code()
        return fx.GraphModule(self._outside, self._graph).forward


def _takes_numbers(func: Any, args: Any) -> bool:
    """Whether this is indexing by numbers, whose result has a known shape; by a mask it has not."""
    masks = (torch.bool, torch.uint8)
    return func is torch.ops.aten.index.Tensor and all(index is None or index.dtype not in masks for index in args[1])


def _restore(tensors: list[Tensor], values: list[Tensor]) -> None:
    for tensor, value in zip(reversed(tensors), reversed(values), strict=True):
        tensor.copy_(value)


class RecordedStep:
    """Calls ``step``, and replays it where that pays; there is a record for each ``key``, such as the batch's size.

    ``step`` must write its results into existing tensors. One that cannot be replayed is called as it is.
    """

    def __init__(
        self, step: Callable[[], None], enabled: bool, warn: Callable[[str], None], plain_calls: int = PLAIN_CALLS
    ) -> None:
        self.step, self.enabled, self.warn, self._plain_calls = step, enabled, warn, plain_calls
        self._calls: dict[int, int] = {}
        self._recorded: dict[int, tuple[Replay, list[Tensor]]] = {}
        """By key: a replay that has not been compared yet, and the tensors that it changes."""
        self._replays: dict[int, Replay] = {}

    def __call__(self, key: int) -> None:
        if key in self._replays:
            with torch.no_grad():
                self._replays[key]()
        elif self.enabled and key in self._recorded:
            self._compare(key)
        elif self.enabled and self._calls.get(key, 0) >= self._plain_calls:
            self._record(key)
        else:
            self._calls[key] = self._calls.get(key, 0) + 1
            self.step()

    def make_room(self, optimiser: torch.optim.Optimizer) -> None:
        """Do nothing: a record has no memory of its own."""

    def _record(self, key: int) -> None:
        """Run the step and record it."""
        recorder = _Recorder()
        try:
            with recorder:
                self.step()
            self._recorded[key] = recorder.finish(), recorder.changed
        except Exception as error:  # an error of the step's own is raised again
            with torch.no_grad():
                recorder.undo()
            self._give_up(error)
            self.step()

    @torch.no_grad()
    def _compare(self, key: int) -> None:
        """Run the step, and its replay from the same state; keep the replay if it comes to the same."""
        replay, changed = self._recorded.pop(key)
        before = [tensor.clone() for tensor in changed]
        with torch.enable_grad():
            self.step()
        right = [tensor.clone() for tensor in changed]
        _restore(changed, before)
        try:
            replay()
            for ours, theirs in zip(changed, right, strict=True):
                if not torch.allclose(ours, theirs, rtol=0, atol=0, equal_nan=True):
                    raise CannotRecord("its operations, replayed, come to something else")
            self._replays[key] = replay
        except Exception as error:
            _restore(changed, right)
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.enabled = False
        self.warn(
            f"the training step is not replayed: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        )


def replayed(
    step: Callable[[], None],
    device: torch.device,
    enabled: bool,
    warn: Callable[[str], None],
    plain_calls: int = PLAIN_CALLS,
) -> GraphedStep | RecordedStep:
    """Return a step that is replayed: on CUDA as a graph, else as its operations, after so many plain calls."""
    if device.type == "cuda":
        return GraphedStep(step, device, enabled, warn)
    return RecordedStep(step, enabled, warn, plain_calls)
