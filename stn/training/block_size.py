"""How many seeds train as one network: what was asked for, what the network can do, what memory holds.

Must not know the optimiser.
"""

import psutil
import torch

from stn.config.dataset import build_dataset
from stn.config.schema import Config
from stn.models.build import build_model
from stn.multiseed.equivalence import Probe, probe
from stn.runs.trials import Trial
from stn.tracking.console import say, warn
from stn.training.runtime import Runtime

MOST = {"cpu": 4, "cuda": 64}
"""Where images/s no longer grow (cpu: one thread, benchmarks/fused.py; cuda: not measured)."""
SHARE = 0.5
"""Of the free memory."""


def examine(config: Config) -> Probe:
    dataset = build_dataset(config.data.name)
    return probe(lambda: build_model(config.arch, dataset.shape, dataset.classes), dataset.shape)


def remarks(found: Probe) -> str:
    """What a user should know of the operations that have no rule."""
    return ", ".join(f"{name} ({way})" for name, way in sorted(found.slow.items()))


def choose_block_size(trials: list[Trial], runtime: Runtime) -> int:
    """Seeds in a block."""
    config = trials[0].config
    asked = config.train.fuse
    if len(trials) == 1 or asked == 1 or config.train.precision == "fp16":
        return 1
    found = examine(config)
    if found.fault:
        warn(f"{config.arch.name} trains one seed at a time: {found.fault}")
        return 1
    if found.slow:
        say(f"note: fused seeds run without a rule of their own, more slowly: {remarks(found)}")
    return asked if isinstance(asked, int) else min(MOST[runtime.device.type], _that_fit(config, found, runtime))


def _that_fit(config: Config, found: Probe, runtime: Runtime) -> int:
    if runtime.device.type == "cuda":
        free = torch.cuda.mem_get_info(runtime.device)[0]
    else:
        free = psutil.virtual_memory().available // runtime.processes
    rows = config.data.batch_size // runtime.world + 1
    size = 2 if config.train.precision == "fp64" else 1
    # As much again while gradients flow; parameters, their gradients and two running means.
    one = size * (2 * found.bytes_per_row * rows + 4 * found.bytes_per_seed)
    return max(1, int(SHARE * free) // one)
