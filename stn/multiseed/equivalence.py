"""The checks before training: whether seeds run as one network, slow operations, memory, and one seed as written."""

import random
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stn.data.rng import Site, derived_seed
from stn.multiseed.model import Output, StackedModel, with_penalty

_ROWS = 3
REPEATS = 8
"""Passes by which it is seen that a network gives something else each time."""


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


def _move(p: Tensor, i: int) -> Tensor:
    """Return by how much a check moves the i-th parameter from its initial value."""
    return (((torch.arange(p.numel()) + i) % 7 + 1) / 512).view(p.shape).to(p.dtype)


def _generators() -> tuple[Any, ...]:
    """Return the states of the generators that a network may draw from."""
    numpy = sys.modules.get("numpy")
    theirs = numpy.random.get_state() if numpy else ((), b"", 0)
    return bytes(torch.get_rng_state().numpy()), random.getstate(), bytes(theirs[1]), theirs[2]


def _differentiated(out: Output) -> Tensor:
    """Return the logits of an output, after the backward pass of a sum over it."""
    logits, penalty = with_penalty(out)
    (logits.logsumexp(-1) + penalty).sum().backward()
    return logits


def _outcome(model: StackedModel, x_SBCHW: Tensor, test_BCHW: Tensor) -> list[Tensor]:
    """Return logits, test logits, buffers, and all gradients as one tensor; seeds are the first axis."""
    for i, p in enumerate(model.parameters()):  # behind a layer of zeros no gradient would tell anything
        p.data += _move(p[0], i)
    logits_SBK = _differentiated(model.train()(x_SBCHW.clone(), 0, torch.arange(_ROWS)))
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    model.eval()
    with torch.no_grad():
        tested_SBK = model.predict(test_BCHW.clone())
    buffers = [buffer.double() for buffer in model.statistics.values()]
    return [logits_SBK.detach(), tested_SBK, *buffers, torch.cat([grad.reshape(len(grad), -1) for grad in grads], 1)]


def _agree(alone: Tensor, together: Tensor) -> bool:
    """Compare one seed's numbers; a gradient that should be 0 is rounding, of the size of the others."""
    atol = 1e-7 * float(alone.abs().max()) if alone.numel() else 0.0
    return torch.allclose(alone, together, rtol=1e-7, atol=atol, equal_nan=True)


def check_equivalence(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> Equivalence:
    """Compare two seeds as one network with each alone, in float64: outputs, gradients and buffers must agree."""
    x_SBCHW = torch.linspace(-1, 1, 2 * _ROWS * torch.Size(shape).numel(), dtype=torch.float64).mul_(40).sin_()
    x_SBCHW = x_SBCHW.view(2, _ROWS, *shape)
    float32_bytes: dict[int, int] = {}
    """Of each memory block that the backward pass needs, by address."""
    elements = [0]

    def weigh(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        elements.append(x.numel())
        float32_bytes[storage.data_ptr()] = storage.nbytes() * 4 // x.element_size()
        return x

    slow: set[str] = set()
    drawn = _generators()
    try:
        alone = [
            _outcome(StackedModel(build, [s], dtype=torch.float64), x_SBCHW[s : s + 1], x_SBCHW[0]) for s in (0, 1)
        ]
        model = StackedModel(build, [0, 1], dtype=torch.float64)
        slow = model.slow
        with torch.autograd.graph.saved_tensors_hooks(weigh, lambda x: x):
            together = _outcome(model, x_SBCHW, x_SBCHW[0])
        same = all(_agree(a[0], b[s]) for s in (0, 1) for a, b in zip(alone[s], together, strict=True))
    except Exception as error:  # whatever a network does that many seeds, or float64, cannot do
        return Equivalence(f"{type(error).__name__}: {error}".splitlines()[0], slow, 0, 0, 0)
    float32_bytes.pop(model.flat.untyped_storage().data_ptr(), None)
    fault = None if same else "together they do not compute what each computes alone"
    if drawn != _generators():
        fault = "it draws from a generator that seeds would share"
    bytes_per_row, elements_per_row = (n // (2 * _ROWS) for n in (sum(float32_bytes.values()), max(elements)))
    return Equivalence(fault, slow, bytes_per_row, 4 * model.count_parameters(), elements_per_row)


def _by_itself(build: Callable[[], nn.Module], x_BCHW: Tensor, training: bool) -> list[Tensor]:
    """Return logits, gradients, and parameters and buffers after a pass, of a network as it was written."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(0, Site.INIT))
        itself = build().double().train(training)
    own = list(itself.parameters())
    for i, p in enumerate(own):
        p.data += _move(p, i)
    logits = _differentiated(itself(x_BCHW))
    return [logits, *(torch.zeros_like(p) if p.grad is None else p.grad for p in own), *own, *itself.buffers()]


def _here(build: Callable[[], nn.Module], x_BCHW: Tensor, training: bool) -> list[Tensor]:
    model = StackedModel(build, [0], dtype=torch.float64).train(training)
    own = list(model.stacked.values())
    for i, p in enumerate(own):
        p.data += _move(p, i)
    logits = _differentiated(model(x_BCHW.unsqueeze(0), 0, torch.arange(_ROWS)))
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in own]
    return [logits[0], *(tensor[0] for tensor in (*grads, *own, *model.statistics.values()))]


def _trains_as_written(build: Callable[[], nn.Module], x_BCHW: Tensor, training: bool) -> bool | None:
    """Compare both in float64; None if the network draws random numbers, or counts its calls."""
    state = _generators()
    itself, moved = (_by_itself(build, x, training) for x in (x_BCHW.clone(), x_BCHW * (1 + 1e-4)))
    if state != _generators():
        return None
    for tensors in zip(itself, _here(build, x_BCHW.clone(), training), moved, strict=True):
        a, b, near = (tensor.detach().double().nan_to_num(0.0, 0.0, 0.0) for tensor in tensors)
        gap, rounding = (float((a - other).abs().max()) if a.numel() else 0.0 for other in (b, near))
        if gap > 1e-9 + 1e-6 * float(a.abs().max()) + 10 * rounding:
            again = (_by_itself(build, x_BCHW.clone(), training) for _ in range(REPEATS))
            return None if any(not all(map(torch.equal, itself, other)) for other in again) else False
    return True


def runs_as_written(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> bool:
    """Whether one seed gives here what its network gives by itself, in evaluation and in training.

    Not so where a hook of a parameter, a parameter outside of modules, or an assignment to ``.data`` would be lost. In
    float32 maps are channels last here, so that a ``view`` may be a copy, and what is written to it is lost. A network
    that draws random numbers, needs other batches, or amplifies rounding is not compared.
    """
    x_BCHW = torch.linspace(-1, 1, _ROWS * torch.Size(shape).numel()).mul_(40).sin_().view(_ROWS, *shape)
    here, itself = StackedModel(build, [0]), StackedModel(build, [0]).network(0)
    for training in (False, True):  # training changes running averages
        try:
            with torch.no_grad():
                ours = here.train(training).predict(x_BCHW)[0]
                state = _generators()
                theirs = with_penalty(itself.train(training)(x_BCHW))[0]
                if state != _generators():
                    continue
                if torch.allclose(theirs, ours, rtol=0, atol=1e-2 * float(theirs.abs().max()), equal_nan=True):
                    continue
                moved, *again = (with_penalty(itself(x))[0] for x in (x_BCHW * (1 + 1e-4), *[x_BCHW] * REPEATS))
        except Exception:  # a network that three rows do not suit: training will tell
            continue
        steady = all(torch.equal(theirs, other) for other in again)
        if steady and (ours - theirs).abs().max() > 10 * (moved - theirs).abs().max():
            return False
    with suppress(Exception):
        for training in (True, False):
            if (verdict := _trains_as_written(build, x_BCHW.double(), training)) is not None:
                return verdict
    return True
