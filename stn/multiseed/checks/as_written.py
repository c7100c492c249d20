"""The checks before training of one seed: by itself, traced to be compiled, and with a part of the batch."""

import random
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from stn.data.rng import Site, derived_seed
from stn.multiseed.checks.equivalence import ROWS, agree, differentiated, move
from stn.multiseed.model import StackedModel, with_penalty

REPEATS = 8
"""Passes by which it is seen that a network gives something else each time."""


def _generators() -> tuple[Any, ...]:
    """Return the states of the generators that a network may draw from."""
    numpy = sys.modules.get("numpy")
    theirs = numpy.random.get_state() if numpy else ((), b"", 0)
    return bytes(torch.get_rng_state().numpy()), random.getstate(), bytes(theirs[1]), theirs[2]


def _images(shape: tuple[int, ...], dtype: torch.dtype, rows: int = ROWS) -> Tensor:
    return torch.linspace(-1, 1, rows * torch.Size(shape).numel(), dtype=dtype).mul_(40).sin_().view(rows, *shape)


def _by_itself(build: Callable[[], nn.Module], x_BCHW: Tensor, training: bool) -> list[Tensor]:
    """Return logits, gradients, and parameters and buffers after a pass, of a network as it was written."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(0, Site.INIT))
        itself = build().double().train(training)
    own = list(itself.parameters())
    move(own)
    logits = differentiated(itself(x_BCHW))
    return [logits, *(torch.zeros_like(p) if p.grad is None else p.grad for p in own), *own, *itself.buffers()]


def _here(build: Callable[[], nn.Module], x_BCHW: Tensor, training: bool, traced: bool = False) -> list[Tensor]:
    model = StackedModel(build, [0], dtype=torch.float64).train(training)
    own = list(model.stacked.values())
    move(own)
    batch = x_BCHW.unsqueeze(0), 0, torch.arange(ROWS)
    if traced:
        model.compiled = {batch[0].shape: model.trace(*batch)}
    logits = differentiated(model(*batch))
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
    x_BCHW = _images(shape, torch.float32)
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


def traces_as_it_runs(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> bool:
    """Whether a training step that is traced, to be compiled, has the gradients of one that is not.

    Not so where ``detach``, ``no_grad``, a hook or an ``autograd.Function`` counts: tracing is below autograd.
    """
    with suppress(Exception):  # a network that three rows, or float64, do not suit
        runs, traced = (_here(build, _images(shape, torch.float64), True, traced) for traced in (False, True))
        return all(agree(a.detach().double(), b.detach().double()) for a, b in zip(runs, traced, strict=True))
    return True


class _Passes:
    """Passes of one seed, each from the same state dict; the buffers after it are part of what it gives."""

    def __init__(self, build: Callable[[], nn.Module], training: bool) -> None:
        self.model = StackedModel(build, [0], dtype=torch.float64).train(training)
        # In training batch norm adds up its sums over the ranks, which here are constants.
        self.model.all_reduce = (lambda x: torch.full_like(x, 2.0)) if training else None
        move(self.model.stacked.values())
        self.before = {name: tensor.clone() for name, tensor in self.model.weights(0).items()}

    @torch.no_grad()
    def __call__(self, x_BCHW: Tensor, row_B: Tensor, times: int = 1) -> list[Tensor]:
        self.model.load_weights(0, self.before)
        outs = [self.model(x_BCHW.unsqueeze(0), 0, row_B) for _ in range(times)]
        logits, penalty = with_penalty(outs[0])
        of_images = [logits[0], penalty[0]] if isinstance(penalty, Tensor) else [logits[0]]
        return [
            *(y_BK[row_B >= ROWS] for y_BK in of_images),
            *(buffer.to(torch.float64, copy=True) for buffer in self.model.statistics.values()),
        ]

    def counts(self) -> list[object]:
        """Return the numbers that modules keep beside their tensors."""
        held = (value for module in self.model.template.modules() for value in vars(module).values())
        return [value for value in held if isinstance(value, int | float)]


def mixes_images(build: Callable[[], nn.Module], shape: tuple[int, ...], training: bool, parts: int = 1) -> bool:
    """Whether images' logits, or buffers, would differ with another batch, or one divided into parts of a step.

    Batch norm may, in training, and dropout, which draws for an image by its number.
    """
    passes = _Passes(build, training)
    whole_BCHW, row_B = _images(shape, torch.float64, 2 * ROWS), torch.arange(2 * ROWS)
    part_BCHW = torch.cat([whole_BCHW[ROWS:], whole_BCHW[:1].flip(-1)])
    with suppress(Exception):
        whole = passes(whole_BCHW, row_B)
        return not all(map(agree, whole, passes(part_BCHW, torch.cat([row_B[ROWS:], row_B[:1]]), parts)))
    return False


def keeps_more_than_checkpoints(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> bool:
    """Whether a pass depends on those before it by more than a state dict has, which a run that resumes would lose."""
    x_BCHW, row_B = _images(shape, torch.float64), torch.arange(ROWS, 2 * ROWS)
    for training in (True, False):
        passes = _Passes(build, training)
        state = _generators()
        with suppress(Exception):
            first, counts = passes(x_BCHW, row_B), passes.counts()
            if any(not all(map(agree, first, passes(x_BCHW, row_B))) for _ in range(REPEATS)):
                return True
            if counts != passes.counts() or state != _generators():
                return True
    return False
