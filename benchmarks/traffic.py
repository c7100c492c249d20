"""How many operations and bytes a training step of an ordinary network takes: counted, not measured."""

import itertools
from typing import Any

import torch
from forms import ordinary, plain
from peer_forms import BATCH
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from stn.config.dataset import build_dataset
from stn.config.schema import Config


class Traffic(TorchDispatchMode):
    """Count the bytes of the tensors that each ATen operation reads and writes, without views.

    Each counts once per operation: as if no cache held anything between two operations, and as
    if within one nothing was read twice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view and func is not torch.ops.aten._unsafe_view.default:
            tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
            self.bytes += sum(min(x.nbytes, x.untyped_storage().nbytes()) for x in tensors)
        return out


def work_per_image(config: Config) -> dict[str, float]:
    """Return the work per image in a training step (forward, backward, update) of one seed's ordinary network."""
    shape = build_dataset(config.data.name).shape
    batch = torch.rand(BATCH, *shape), torch.randint(10, (BATCH,))
    step = plain(config, torch.device("cpu"), itertools.repeat(batch))
    with FlopCounterMode(display=False) as flops:
        step()
    with Traffic() as traffic:
        step()
    parameters = sum(p.numel() for p in ordinary(config)[0].parameters())
    return {"parameters": parameters, "flop": flops.get_total_flops() / BATCH, "bytes": traffic.bytes / BATCH}
