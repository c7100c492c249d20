"""How many seeds a GPU trains fastest as one network: more and more of them on trial, until images/s no longer grow."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from stn.config.dataset import build_dataset
from stn.config.schema import Config
from stn.data.stream import Stream
from stn.models.build import build_network
from stn.multiseed.model import StackedModel
from stn.tracking.console import say, warn
from stn.training.cuda_graph import WARM_UP, GraphedStep
from stn.training.optimizer import SeedOptimiser
from stn.training.runtime import Runtime

GAIN = 1.05
"""While images/s grow by this factor, twice the seeds are tried."""
_STEPS = 10


def fastest_size(config: Config, most: int, runtime: Runtime, seed_losses: Callable[..., Any]) -> int:
    """Double the seeds until images/s no longer grow, or ``most`` is reached; say what was found."""
    sizes = [1]
    while sizes[-1] < most:
        sizes.append(min(2 * sizes[-1], most))
    speeds: dict[int, float] = {}
    for size in sizes:
        before = max(speeds.values(), default=0.0)
        try:
            speeds[size] = _images_per_s(config, size, runtime, seed_losses)
        except torch.OutOfMemoryError:
            break
        finally:
            runtime.accelerator.free_memory()
        if speeds[size] < GAIN * before:
            break
    best = max(speeds, key=speeds.__getitem__, default=1)
    shown = ", ".join(f"{size}: {speed:,.0f}" for size, speed in speeds.items())
    say(f"{best} seeds as one network (images/s by number of seeds: {shown})")
    return best


def _images_per_s(config: Config, size: int, runtime: Runtime, seed_losses: Callable[..., Any]) -> float:
    """Time the step of ``train_block`` in train.py, without its log."""
    stream = Stream(config.data, build_dataset(config.data.name), list(range(size)), runtime.device, runtime.dtype)
    model = StackedModel(partial(build_network, config), list(range(size)), runtime.device, runtime.dtype)
    optimiser = SeedOptimiser([config.optim] * size, model, stream.clock, _STEPS + WARM_UP + 1)
    forward, stepper = runtime.prepare(model, optimiser)

    def update() -> None:
        stepper.zero_grad()
        runtime.backward(seed_losses(config, forward, stream.draw(), stream.clock)[0].sum())
        stepper.step()

    model.train()
    step = GraphedStep(update, runtime.device, runtime.can_graph(config), warn)
    for i in range(WARM_UP + 1):
        images = stream.seek(i)
        step(images)
    torch.cuda.synchronize(runtime.device)
    start, total = time.perf_counter(), 0
    for i in range(WARM_UP + 1, WARM_UP + 1 + _STEPS):
        images = stream.seek(i)
        step(images)
        total += images
    torch.cuda.synchronize(runtime.device)
    return size * total / (time.perf_counter() - start)
