"""What a configuration computes, as a few numbers, so that an edit of the code behind it is noticed.

Seed 0's untrained network makes two updates on the first images of its own stream, on the CPU in float64, with one
thread. Moved, renamed or reformatted code leaves the numbers as they are; another network, data set, perturbation, loss
or optimiser does not.

Its weights are moved a little first: under the identity, sampling points are on pixels, where the last bit of a sum,
which threads and kinds of CPU decide, takes a gradient to the other side.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from stn.config.dataset import build_dataset
from stn.config.schema import Config
from stn.data.stream import Batch, Stream
from stn.models.build import build_network
from stn.multiseed.model import StackedModel
from stn.runs.same_code import DECAY, difference, fingerprints, set_aside
from stn.runs.trials import Trial, group_by_run
from stn.tracking.console import warn
from stn.training.optimizer import SeedOptimiser, clip_gradients

PIXELS = 2**13
"""Per update, between 2 and 8 images: at most 0.4 s of one core for each recipe of configs/, best_cifar10 0.15 s."""
UPDATES = 2
"""With one, momentum would leave no trace."""

Fingerprint = dict[str, Any]
Losses = Callable[[Config, Any, Batch, Tensor], tuple[Tensor, Tensor]]
"""The loss and the hits of each seed, as training computes them."""


def _rounded(number: float) -> float:
    return float(f"{number:.8g}") if math.isfinite(number) else -1.0


def _norm(tensor: Tensor) -> float:
    return float(tensor.detach().double().norm())


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def fingerprint(config: Config, losses: Losses) -> Fingerprint:
    """Return the shapes of seed 0's network, and numbers of its first two updates and of its outputs after them."""
    dataset = build_dataset(config.data.name)
    assert config.train.steps is not None
    rows = max(2, min(8, PIXELS // math.prod(dataset.shape), config.data.batch_size))
    stream = Stream(config.data.model_copy(update={"batch_size": rows}), dataset, [0], dtype=torch.float64)
    model = StackedModel(partial(build_network, config), [0], dtype=torch.float64)
    model.flat += (torch.arange(len(model.flat)) % 7 - 3) / 512
    optimiser = SeedOptimiser([config.optim], model, stream.clock, config.train.steps)
    numbers: dict[str, list[float]] = {"images": [], "loss": [], "gradient": [], "update": []}
    for step in range(min(UPDATES, config.train.steps)):
        batch = stream.batch(step)
        before = model.flat.clone()
        optimiser.zero_grad()
        loss_S, _ = losses(config, model.train(), batch, stream.clock)
        loss_S.sum().backward()
        norm_S = clip_gradients(model, config.optim.clip)
        optimiser.step()
        numbers["images"].append(_norm(batch.x_SBCHW))
        numbers["loss"].append(float(loss_S.detach()))
        numbers["gradient"].append(float(norm_S))
        numbers["update"].append(_norm(model.flat - before))
    model.eval()
    with torch.no_grad():
        logits_SBK = model.predict(stream.test_images(torch.arange(min(rows, stream.test_count))).x_BCHW)
    numbers["buffers"] = [_norm(tensor) for tensor in model.statistics.values()]
    numbers["test logits"] = [_norm(logits_SBK), float(logits_SBK.mean())]
    numbers[DECAY] = [_decay(optimiser, config.train.steps // 2)]
    shapes = {name: list(tensor.shape[1:]) for name, tensor in {**model.stacked, **model.statistics}.items()}
    digest = hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:12]
    return {"shapes": digest} | {key: list(map(_rounded, values)) for key, values in numbers.items()}


def _decay(optimiser: SeedOptimiser, step: int) -> float:
    """Return the norm of an update without gradients: in the first ones, whose rates are low, decay would not show."""
    optimiser.zero_grad()
    optimiser.clock.fill_(step)
    for average in optimiser.averages.values():
        average.zero_()
    before = optimiser.model.flat.clone()
    optimiser.step()
    return _norm(optimiser.model.flat - before)


def _fingerprint_if_possible(config: Config, losses: Losses) -> Fingerprint | None:
    try:
        return fingerprint(config, losses)
    except Exception as error:  # of a network that float64, or a CPU, cannot run
        warn(f"no fingerprint, edits of the code will not be noticed: {type(error).__name__}: {error}")
        return None


def stamp(trials: list[Trial], losses: Losses) -> list[Trial]:
    """Return the trials with their fingerprints; ValueError where runs of the same signature have another one."""
    stamped = []
    for group in group_by_run(trials):
        config, run = group[0].config, group[0].run
        ours = _fingerprint_if_possible(config, losses)
        for theirs in fingerprints(run):
            if why := difference(theirs, ours):
                if config.checkpoint.retrain:
                    set_aside(run)
                    warn(f"{run.path.parent} was moved to .replaced; W&B keeps the old curves under this --name")
                    break
                raise ValueError(
                    f"{run.path.parent} was trained by other code: {why}. Undo the edit, give what you edited a name "
                    "of its own, or --retrain: it moves the old runs to .replaced and trains anew"
                )
        stamped += [trial._replace(fingerprint=ours) for trial in group]
    return stamped
