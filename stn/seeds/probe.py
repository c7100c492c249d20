"""A look at a network before it trains: whether many seeds run as one, how fast, in how much memory.

Must not know the data set or the optimiser.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stn.seeds.model import Seeds

_ROWS = 3


class Probe(NamedTuple):
    fault: str | None
    """Why seeds cannot run as one; None: they can."""
    slow: dict[str, str]
    """Operations without a rule of their own, and how they are run."""
    bytes_per_row: int
    """What a training step keeps in memory for each image and seed, in float32."""


def probe(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> Probe:
    """Two seeds as one network beside each alone, in float64: output and gradients must agree."""
    model = Seeds(build, [0, 1], dtype=torch.float64).train()
    x_SBCHW = torch.linspace(-1, 1, 2 * _ROWS * torch.Size(shape).numel(), dtype=torch.float64).mul_(40).sin_()
    x_SBCHW, row_B = x_SBCHW.view(2, _ROWS, *shape), torch.arange(_ROWS)
    kept: dict[int, int] = {}

    def weigh(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes() * 4 // x.element_size()
        return x

    def outcome(logits_SBK: Tensor) -> list[Tensor]:
        model.zero_grad()
        logits_SBK.logsumexp(-1).sum().backward()
        return [logits_SBK.detach(), *(torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters())]

    statistics = {name: value.clone() for name, value in model.statistics.items()}
    alone = outcome(torch.stack([model.alone(s, x_SBCHW[s], 0, row_B) for s in (0, 1)]))
    for name, value in statistics.items():
        model.statistics[name].copy_(value)
    try:
        with torch.autograd.graph.saved_tensors_hooks(weigh, lambda x: x):
            together = outcome(model(x_SBCHW, 0, row_B))
    except Exception as error:  # whatever a network does that many seeds cannot do at once
        return Probe(f"{type(error).__name__}: {error}".splitlines()[0], model.slow, 0)
    fault = None
    for a, b in zip(alone, together, strict=True):
        if not torch.allclose(a, b, rtol=1e-7, atol=1e-7 * float(a.abs().max())):
            fault = "together they do not compute what each computes alone"
    return Probe(fault, model.slow, sum(kept.values()) // (2 * _ROWS))
