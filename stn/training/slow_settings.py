"""Settings that make training slower on this machine than the default: timed and reported before the first step."""

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from stn.config.schema import Config
from stn.models.kernels import compiled
from stn.runs.cores import cores
from stn.runs.trials import Trial
from stn.training.block_size import USUAL, images_per_s
from stn.training.runtime import Runtime

SLOWER = 0.95
"""Speed over the default's below which a setting counts as slower: timings of a few steps scatter."""


class Setting(NamedTuple):
    """A setting that is not the default, and what the default would be."""

    flag: str
    usual: str
    config: Config
    """The configuration with the default in its place."""
    size: int
    threads: int


@contextmanager
def _threads(count: int) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _settings(config: Config, size: int, usual_size: int, processes: int) -> list[Setting]:
    """Return the settings of a CPU training that are not the default and could cost time."""
    train, now = config.train, torch.get_num_threads()

    def without(**fields: Any) -> Config:
        return config.model_copy(update={"train": train.model_copy(update=fields)})

    found = []
    if train.precision == "bf16":
        found.append(Setting("--precision bf16", "fp32", without(precision="fp32"), size, now))
    if train.compile:
        found.append(Setting("--train.compile", "without", without(compile=False), size, now))
    if train.threads and train.threads > (usual := max(1, cores() // processes)):  # fewer are left to others
        found.append(Setting(f"--train.threads {train.threads}", str(usual), config, size, usual))
    if isinstance(train.fuse, int) and size != usual_size:
        found.append(Setting(f"--fuse {train.fuse}", str(usual_size), config, usual_size, now))
    return found


def slow_settings(
    trials: list[Trial], size: int, runtime: Runtime, seed_losses: Callable[..., Any], thorough: bool
) -> list[str]:
    """Return a sentence for each setting that makes these trainings slower here than the default would.

    A CPU without units for bf16 trains at a sixth of its speed, and nothing else shows it. Without ``thorough``, for
    short runs, only bf16 is timed.
    """
    if runtime.device.type != "cpu" or runtime.world > 1:
        return []
    config, size, usual_size = trials[0].config, min(size, len(trials)), min(USUAL["cpu"], len(trials))
    settings = _settings(config, size, usual_size, runtime.processes)
    settings = [setting for setting in settings if thorough or setting.flag == "--precision bf16"]
    speed = images_per_s(config, size, runtime, seed_losses) if settings else 0.0
    reason = config.train.precision == "fp32" and compiled.missing()
    said = [f"training is up to a quarter slower, with PyTorch's kernels alone, because {reason}"] if reason else []
    for setting in settings:
        with _threads(setting.threads):
            usual = images_per_s(setting.config, setting.size, runtime, seed_losses)
        if speed < SLOWER * usual:
            said.append(
                f"{setting.flag} trains {speed / usual:.2f} times as fast as the default ({setting.usual}) on this "
                f"machine: {speed:,.0f} instead of {usual:,.0f} images/s"
            )
    return said
