"""A network has one result, however it is run: in parts, over ranks, in other test batches, stopped and resumed."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stn.multiseed.checks.as_written import generators, images
from stn.multiseed.checks.equivalence import ROWS, agree, move
from stn.multiseed.model import StackedModel, with_penalty
from stn.multiseed.stacked import draws

DRAWS = "draws from torch's generator"
REPEATS = 8
"""Passes by which it is seen that a network gives something else each time."""


class _Drawing(TorchFunctionMode):
    """Notes whether anything is drawn from torch's generator; dropout draws by the numbers of images instead."""

    found = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = torch.get_rng_state() if draws(func, args, kwargs or {}) else None
        out = func(*args, **(kwargs or {}))
        self.found |= before is not None and not torch.equal(before, torch.get_rng_state())
        return out


class _Passes:
    """Passes of one seed, each from the same state dict; the buffers after it are part of what it gives."""

    def __init__(self, build: Callable[[], nn.Module], training: bool) -> None:
        self.model = StackedModel(build, [0], dtype=torch.float64).train(training)
        # In training batch norm adds up its sums over the ranks, which here are constants.
        self.model.all_reduce = (lambda x: torch.full_like(x, 2.0)) if training else None
        move(self.model.stacked.values())
        self.before = {name: tensor.clone() for name, tensor in self.model.weights(0).items()}
        self.drawing = _Drawing()

    @torch.no_grad()
    def __call__(self, x_BCHW: Tensor, row_B: Tensor, times: int = 1) -> dict[str, Tensor]:
        """Return the logits, and penalties, of images from number ROWS on, and buffers by name."""
        self.model.load_weights(0, self.before)
        with self.drawing:
            outs = [self.model(x_BCHW.unsqueeze(0), 0, row_B) for _ in range(times)]
        logits, penalty = with_penalty(outs[0])
        found = {"": logits[0, row_B >= ROWS]}
        if isinstance(penalty, Tensor) and penalty.dim() > 1:
            found["penalty"] = penalty[0, row_B >= ROWS]
        return found | {f"its buffer {name}": buffer.clone() for name, buffer in self.model.statistics.items()}

    def numbers(self) -> dict[str, int]:
        """Return the whole numbers that modules keep beside their parameters and buffers."""
        parts = self.model.template.named_modules()
        held = ((f"{path}.{key}".lstrip("."), value) for path, part in parts for key, value in vars(part).items())
        return {name: int(value) for name, value in held if isinstance(value, int) or _is_whole(value)}


def _is_whole(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1 and not value.is_floating_point() and not value.is_complex()


def _differing(a: dict[str, Tensor], b: dict[str, Tensor]) -> str | None:
    return next((name for name in a if not agree(a[name].double(), b[name].double())), None)


def depends_on_batch(build: Callable[[], nn.Module], shape: tuple[int, ...], training: bool, parts: int = 1) -> str:
    """Return what a network does that another batch, or one divided into parts of a step, would change; or "".

    Batch norm may, in training, and dropout, which draws for an image by its number.
    """
    passes = _Passes(build, training)
    whole_BCHW, row_B = images(shape, torch.float64, 2 * ROWS), torch.arange(2 * ROWS)
    part_BCHW = torch.cat([whole_BCHW[ROWS:], whole_BCHW[:1].flip(-1)])
    with suppress(Exception):  # a network that these rows, or float64, do not suit
        whole = passes(whole_BCHW, row_B)
        name = _differing(whole, passes(part_BCHW, torch.cat([row_B[ROWS:], row_B[:1]]), parts))
        if passes.drawing.found:
            return DRAWS
        if name is not None:
            return f"changes {name} otherwise" if name else "gives an image other logits"
    return ""


def keeps_beside_checkpoints(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> str:
    """Return what passes depend on, or count, that a state dict does not have and a run that resumes would lose."""
    x_BCHW, row_B = images(shape, torch.float64), torch.arange(ROWS, 2 * ROWS)
    for training in (True, False):
        passes = _Passes(build, training)
        state = generators()
        with suppress(Exception):
            first, before = passes(x_BCHW, row_B), passes.numbers()
            again = [_differing(first, passes(x_BCHW, row_B)) is not None for _ in range(REPEATS)]
            if state != generators():
                return "draws from another generator than torch's"
            if changed := [name for name, value in passes.numbers().items() if before.get(name) != value]:
                return f"counts in {changed[0]}, which no checkpoint has"
            if any(again):
                return "gives something else when a pass is repeated"
    return ""
