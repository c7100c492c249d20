"""One seed gives what its network gives by itself, and what it gives when it is traced to be compiled."""

import random
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from stn.data.rng import initialised
from stn.multiseed.checks.equivalence import ROWS, agree, differentiated, move
from stn.multiseed.model import StackedModel, with_penalty


def generators() -> tuple[Any, ...]:
    """Return the states of the generators that a network may draw from."""
    numpy = sys.modules.get("numpy")
    theirs = numpy.random.get_state() if numpy else ((), b"", 0)
    return bytes(torch.get_rng_state().numpy()), random.getstate(), bytes(theirs[1]), theirs[2]


def images(shape: tuple[int, ...], dtype: torch.dtype, rows: int = ROWS) -> Tensor:
    """Return images that are all different."""
    return torch.linspace(-1, 1, rows * torch.Size(shape).numel(), dtype=dtype).mul_(40).sin_().view(rows, *shape)


def _by_itself(build: Callable[[], nn.Module], x_BCHW: Tensor, training: bool) -> list[Tensor]:
    """Return logits, gradients, and parameters and buffers after a pass, of a network as it was written."""
    itself = initialised(build, 0).double()
    itself.train(training)
    own = list(itself.parameters())
    move(own)
    logits = differentiated(itself(x_BCHW))
    return [logits, *(torch.zeros_like(p) if p.grad is None else p.grad for p in own), *own, *itself.buffers()]


def _here(
    build: Callable[[], nn.Module], x_BCHW: Tensor, training: bool, traced: bool = False
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Return logits, gradients, and parameters and buffers after a pass, of one seed."""
    model = StackedModel(build, [0], dtype=torch.float64).train(training)
    own = list(model.stacked.values())
    move(own)
    batch = x_BCHW.unsqueeze(0), 0, torch.arange(ROWS)
    if traced:
        model.compiled = {batch[0].shape: model.trace(*batch)}
    logits = differentiated(model(*batch))
    grads = [torch.zeros_like(p[0]) if p.grad is None else p.grad[0] for p in own]
    return logits[0], grads, [tensor[0] for tensor in (*own, *model.statistics.values())]


def _apart(theirs: Tensor, ours: Tensor, near: Tensor, share: float) -> bool:
    """Whether two results differ by more than rounding, or than those of images that are nearly the same."""
    a, b, c = (tensor.detach().double().nan_to_num(0.0, 0.0, 0.0) for tensor in (theirs, ours, near))
    gap, moved, size = (float(t.abs().max()) if t.numel() else 0.0 for t in (a - b, a - c, a))
    return gap > 1e-9 + share * size + 10 * moved


def runs_as_written(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> bool:
    """Whether one seed gives here what its network gives by itself, in evaluation and in training.

    Not so where a hook of a parameter, a parameter outside of modules, or an assignment to ``.data`` would be lost. In
    float32 maps are channels last here, so that a ``view`` may be a copy, and what is written to it is lost. A network
    that draws random numbers, needs other batches, or amplifies rounding is not compared.
    """
    x_BCHW = images(shape, torch.float32)
    here, itself = StackedModel(build, [0]), initialised(build, 0)
    for training in (False, True):  # training changes running averages
        with suppress(Exception), torch.no_grad():  # a network that three rows do not suit: training will tell
            ours, state = here.train(training).predict(x_BCHW)[0], generators()
            itself.train(training)
            theirs, near = (with_penalty(itself(x))[0] for x in (x_BCHW, x_BCHW * (1 + 1e-4)))
            if state == generators() and _apart(theirs, ours, near, 1e-2):
                return False
    for training in (True, False):
        with suppress(Exception):
            state, x = generators(), x_BCHW.double()
            theirs, near = (_by_itself(build, images, training) for images in (x.clone(), x * (1 + 1e-4)))
            if state == generators():
                logits, grads, after = _here(build, x, training)
                found = zip(theirs, [logits, *grads, *after], near, strict=True)
                return not any(_apart(*tensors, 1e-6) for tensors in found)
    return True


def traces_as_it_runs(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> bool:
    """Whether a training step that is traced, to be compiled, has the gradients of one that is not.

    Not so where ``detach``, ``no_grad``, a hook or an ``autograd.Function`` counts: tracing is below autograd.
    """
    with suppress(Exception):  # a network that three rows, or float64, do not suit
        runs, traced = (_here(build, images(shape, torch.float64), True, traced) for traced in (False, True))
        # Gradients as one: each that should be 0 has its own rounding.
        a, b = ([logits, torch.cat([g.flatten() for g in grads]), *after] for logits, grads, after in (runs, traced))
        return all(agree(x.detach().double(), y.detach().double()) for x, y in zip(a, b, strict=True))
    return True
