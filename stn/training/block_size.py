"""How many seeds train fastest as one network: trials of more and more, until images/s no longer grow."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from stn.config.dataset import build_dataset
from stn.config.schema import Config
from stn.data.stream import Stream
from stn.models.build import build_network
from stn.multiseed.model import StackedModel
from stn.tracking.console import say, warn
from stn.training.optimizer import SeedOptimiser
from stn.training.replay.cuda_graph import WARM_UP
from stn.training.replay.recorded_step import replayed
from stn.training.runtime import Runtime

USUAL = {"cpu": 4, "cuda": 64}
"""Seeds as one network if there is no trial."""
GAIN = 1.05
"""Growth of images/s from which twice as many seeds are tried next."""
_STEPS = 10
_SHORTEST_S, _FEWEST = 0.3, 3
"""Least time and number of the steps that are timed on a CPU, whose steps are long."""


def doublings(most: int) -> list[int]:
    """Return 1, 2, 4 and so on, and ``most``."""
    sizes = [1]
    while sizes[-1] < most:
        sizes.append(min(2 * sizes[-1], most))
    return sizes


def fastest_size(config: Config, sizes: Sequence[int], runtime: Runtime, seed_losses: Callable[..., Any]) -> int:
    """Try these numbers of seeds until images/s no longer grow or memory ends; say what was found."""
    speeds: dict[int, float] = {}
    for size in sizes:
        before = max(speeds.values(), default=0.0)
        try:
            speeds[size] = images_per_s(config, size, runtime, seed_losses)
        except torch.OutOfMemoryError:
            break
        finally:
            runtime.accelerator.free_memory()
        if speeds[size] < GAIN * before:
            break
    best = max(speeds, key=speeds.__getitem__, default=1)
    shown = ", ".join(f"{size}: {speed:,.0f}" for size, speed in speeds.items())
    chosen = f"{best} seeds as one network" if best > 1 else "one seed at a time"
    say(f"{chosen} (images/s by number of seeds: {shown})")
    return best


def images_per_s(config: Config, size: int, runtime: Runtime, seed_losses: Callable[..., Any]) -> float:
    """Time the step of ``train_block`` in train.py, without its log."""
    on_gpu = runtime.device.type == "cuda"
    first, most = (WARM_UP + 1, _STEPS) if on_gpu else (3, 10 * _STEPS)
    stream = Stream(config.data, build_dataset(config.data.name), list(range(size)), runtime.device, runtime.dtype)
    model = StackedModel(partial(build_network, config), list(range(size)), runtime.device, runtime.dtype)
    model.compiled = {} if config.train.compile and not on_gpu else None
    optimiser = SeedOptimiser([config.optim] * size, model, stream.clock, first + most)
    forward, stepper = runtime.prepare(model, optimiser, config.train.precision)

    def update() -> None:
        stepper.zero_grad()
        runtime.backward(seed_losses(config, forward, stream.draw(), stream.clock)[0].sum())
        stepper.step()

    model.train()
    step = replayed(update, runtime.device, runtime.can_replay(config), warn, plain_calls=1)
    for i in range(first):
        step(stream.seek(i))
    if on_gpu:
        torch.cuda.synchronize(runtime.device)
        start, total = time.perf_counter(), 0
        for i in range(first, first + most):
            images = stream.seek(i)
            step(images)
            total += images
        torch.cuda.synchronize(runtime.device)
        return size * total / (time.perf_counter() - start)
    speeds: list[float] = []
    begin = time.perf_counter()
    while len(speeds) < most and (time.perf_counter() - begin < _SHORTEST_S or len(speeds) < _FEWEST):
        images = stream.seek(first + len(speeds))
        start = time.perf_counter()
        step(images)
        speeds.append(images / (time.perf_counter() - start))
    return size * statistics.median(speeds)
