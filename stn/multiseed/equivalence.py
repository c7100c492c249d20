"""The checks before training: whether seeds run as one network, slow operations, memory, and one seed as written."""

import random
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stn.data.rng import Site, derived_seed
from stn.multiseed.model import StackedModel, with_penalty

_ROWS = 3


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


def _moved(p: Tensor) -> Tensor:
    """Return by how much a check moves a parameter from its initial value."""
    return ((torch.arange(p.numel()) % 7 - 3) / 512).view(p.shape).to(p.dtype)


def _outcome(model: StackedModel, x_SBCHW: Tensor, test_BCHW: Tensor) -> list[Tensor]:
    """Return logits, test logits, buffers, and all gradients as one tensor; seeds are the first axis."""
    for p in model.parameters():  # behind a layer of zeros no gradient would tell anything
        p.data += _moved(p[0])
    logits_SBK, penalty_SB = with_penalty(model.train()(x_SBCHW.clone(), 0, torch.arange(_ROWS)))
    (logits_SBK.logsumexp(-1) + penalty_SB).sum().backward()
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
    drawn = random.getstate()
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
    fault = fault if drawn == random.getstate() else "it draws from Python's generator, which seeds would share"
    bytes_per_row, elements_per_row = (n // (2 * _ROWS) for n in (sum(float32_bytes.values()), max(elements)))
    return Equivalence(fault, slow, bytes_per_row, 4 * model.count_parameters(), elements_per_row)


def _trains_as_written(build: Callable[[], nn.Module], x_BCHW: Tensor) -> bool:
    """Whether a pass in training gives the logits, gradients and buffers that the network gives by itself (float64)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(0, Site.INIT))
        itself = build().double().train()
    here = StackedModel(build, [0], dtype=torch.float64).train()
    own = dict(itself.named_parameters())
    for name, p in own.items():
        p.data += _moved(p)
        here.stacked[name].data += _moved(p)
    state = torch.get_rng_state(), random.getstate()
    out = with_penalty(itself(x_BCHW.clone())), with_penalty(here(x_BCHW.clone().unsqueeze(0), 0, torch.arange(_ROWS)))
    if not torch.equal(state[0], torch.get_rng_state()) or state[1] != random.getstate():
        return True
    for logits, penalty in out:
        (logits.logsumexp(-1) + penalty).sum().backward()
    pairs = [(out[0][0], out[1][0][0])]
    for name, p in own.items():
        grads = [torch.zeros_like(p) if g is None else g.view(p.shape) for g in (p.grad, here.stacked[name].grad)]
        pairs += [(grads[0], grads[1]), (p, here.stacked[name][0])]
    pairs += [(buffer, here.statistics[name][0]) for name, buffer in itself.named_buffers()]
    largest = max((float(a.abs().max()) for a, _ in pairs[1::2] if a.numel()), default=0.0)
    return all(torch.allclose(a, b, rtol=1e-5, atol=1e-6 * largest, equal_nan=True) for a, b in pairs)


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
                state = torch.get_rng_state(), random.getstate()
                theirs = with_penalty(itself.train(training)(x_BCHW))[0]
                if not torch.equal(state[0], torch.get_rng_state()) or state[1] != random.getstate():
                    continue
                if torch.allclose(theirs, ours, rtol=0, atol=1e-2 * float(theirs.abs().max()), equal_nan=True):
                    continue
                moved, again = (with_penalty(itself(x))[0] for x in (x_BCHW * (1 + 1e-4), x_BCHW))
        except Exception:  # a network that three rows do not suit: training will tell
            continue
        if torch.equal(theirs, again) and (ours - theirs).abs().max() > 10 * (moved - theirs).abs().max():
            return False
    with suppress(Exception):
        return _trains_as_written(build, x_BCHW.double())
    return True
