"""The check before training: whether seeds run as one network, slow operations, memory."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stn.multiseed.model import Output, StackedModel, with_penalty

ROWS = 3
"""Images of a comparison."""


class Equivalence(NamedTuple):
    fault: str | None
    """Why seeds cannot run as one network; None: they can."""
    slow: set[str]
    """Operations without a rule of their own."""
    bytes_per_row: int
    """Bytes that a training step keeps for the backward pass, per image and seed, in float32."""
    bytes_per_seed: int
    """Bytes of one seed's parameters, in float32."""
    elements_per_row: int
    """Elements of the largest tensor, per image and seed."""


def move(parameters: Iterable[Tensor]) -> None:
    """Move one seed's parameters from their initial values: behind a layer of zeros no gradient would tell anything."""
    for i, p in enumerate(parameters):
        p.data += (((torch.arange(p.numel()) + i) % 7 + 1) / 512).view(p.shape).to(p.dtype)


def differentiated(out: Output) -> Tensor:
    """Return the logits of an output, after the backward pass of a sum over it."""
    logits, penalty = with_penalty(out)
    (logits.logsumexp(-1) + penalty).sum().backward()
    return logits


def _outcome(model: StackedModel, x_SBCHW: Tensor, test_BCHW: Tensor) -> list[Tensor]:
    """Return logits, test logits, buffers, and all gradients as one tensor; seeds are the first axis."""
    for s in range(len(model.seeds)):
        move(p.data[s] for p in model.parameters())
    logits_SBK = differentiated(model.train()(x_SBCHW.clone(), 0, torch.arange(ROWS)))
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    model.eval()
    with torch.no_grad():
        tested_SBK = model.predict(test_BCHW.clone())
    buffers = [buffer.double() for buffer in model.statistics.values()]
    return [logits_SBK.detach(), tested_SBK, *buffers, torch.cat([grad.reshape(len(grad), -1) for grad in grads], 1)]


def agree(alone: Tensor, together: Tensor) -> bool:
    """Compare one seed's numbers; a gradient that should be 0 is rounding, of the size of the others."""
    atol = 1e-7 * float(alone.abs().max()) if alone.numel() else 0.0
    return torch.allclose(alone, together, rtol=1e-7, atol=atol, equal_nan=True)


def check_equivalence(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> Equivalence:
    """Compare two seeds as one network with each alone, in float64: outputs, gradients and buffers must agree."""
    x_SBCHW = torch.linspace(-1, 1, 2 * ROWS * torch.Size(shape).numel(), dtype=torch.float64).mul_(40).sin_()
    x_SBCHW = x_SBCHW.view(2, ROWS, *shape)
    float32_bytes: dict[int, int] = {}
    """Of each memory block that the backward pass needs, by address."""
    elements = [0]

    def weigh(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        elements.append(x.numel())
        float32_bytes[storage.data_ptr()] = storage.nbytes() * 4 // x.element_size()
        return x

    slow: set[str] = set()
    try:
        alone = [
            _outcome(StackedModel(build, [s], dtype=torch.float64), x_SBCHW[s : s + 1], x_SBCHW[0]) for s in (0, 1)
        ]
        model = StackedModel(build, [0, 1], dtype=torch.float64)
        slow = model.slow
        with torch.autograd.graph.saved_tensors_hooks(weigh, lambda x: x):
            together = _outcome(model, x_SBCHW, x_SBCHW[0])
        same = all(agree(a[0], b[s]) for s in (0, 1) for a, b in zip(alone[s], together, strict=True))
    except Exception as error:  # whatever a network does that many seeds, or float64, cannot do
        return Equivalence(f"{type(error).__name__}: {error}".splitlines()[0], slow, 0, 0, 0)
    float32_bytes.pop(model.flat.untyped_storage().data_ptr(), None)
    fault = None if same else "together they do not compute what each computes alone"
    bytes_per_row, elements_per_row = (n // (2 * ROWS) for n in (sum(float32_bytes.values()), max(elements)))
    return Equivalence(fault, slow, bytes_per_row, 4 * model.count_parameters(), elements_per_row)
