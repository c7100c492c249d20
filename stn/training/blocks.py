"""How many seeds train as one network, and which."""

import json
from collections.abc import Callable
from typing import Any

from stn.config.dataset import build_dataset, classes_left_out
from stn.config.schema import Config
from stn.models.build import build_network
from stn.multiseed.checks.equivalence import Equivalence, check_equivalence
from stn.multiseed.memory import MOST_ELEMENTS, SHARE, free_bytes, free_host_bytes
from stn.runs.directory import RunDir
from stn.runs.files import read_json
from stn.runs.trials import Trial, cut_into_blocks, group_by_run
from stn.tracking.console import say, warn
from stn.training import checkpoints
from stn.training.block_size import USUAL, doublings, fastest_size
from stn.training.runtime import Runtime
from stn.training.slow_settings import slow_settings

FUSED = "seeds_as_one_network"
"""The field of env.json for the number of seeds that a trial has found."""
MOST = {"cpu": 32, "cuda": 64}
"""The most seeds that a trial goes up to."""
WORTH_A_TRIAL = 1_000_000
"""Images from which a trial on a CPU, of a few seconds, takes a small part of the time."""


def tried_size(run: RunDir) -> int | None:
    """Return the number of seeds that a trial has found before: a run that resumes keeps its blocks."""
    size = read_json(run.env).get(FUSED)
    return size if isinstance(size, int) and size > 0 else None


def plan_blocks(runtime: Runtime, unfinished: list[Trial], seed_losses: Callable[..., Any]) -> list[list[Trial]]:
    """Divide trials into blocks that train as one network; every rank gets the writing rank's plan."""
    if not unfinished:
        return []
    size = choose_block_size(unfinished, runtime, seed_losses) if runtime.writes else 0
    if runtime.writes:
        for text in slow_settings(unfinished, size, runtime, seed_losses, _is_worth_a_trial(unfinished)):
            warn(text)
        if lost := classes_left_out(unfinished[0].config.data):
            warn(f"no training image is of class {', '.join(map(str, lost))}: mix the images, which are taken in order")
    saved = [checkpoints.saved_steps(trial.run, trial.seed) for trial in unfinished] if runtime.writes else []
    return cut_into_blocks(unfinished, *runtime.from_writer((size, saved)))


def _is_worth_a_trial(trials: list[Trial]) -> bool:
    steps = trials[0].config.train.steps
    assert steps is not None
    return len(trials) * steps * trials[0].config.data.batch_size >= WORTH_A_TRIAL


def check_network(config: Config) -> Equivalence:
    """Compare two seeds as one network with each alone, and measure their memory."""
    dataset = build_dataset(config.data.name)
    return check_equivalence(lambda: build_network(config), dataset.shape)


def slow_operations(equivalence: Equivalence) -> str:
    """List the operations without a rule for several seeds, and how each is run instead."""
    return ", ".join(f"{name} (vmap)" for name in sorted(equivalence.slow))


def choose_block_size(trials: list[Trial], runtime: Runtime, seed_losses: Callable[..., Any]) -> int:
    """Return how many of these seeds train as one network, at most."""
    config = trials[0].config
    fuse = config.train.fuse
    if len(trials) == 1 or fuse == 1 or config.train.precision == "fp16":
        return 1
    equivalence = check_network(config)
    if equivalence.fault:
        warn(f"{config.arch.name} trains one seed at a time: {equivalence.fault}")
        return 1
    if equivalence.slow:
        say(f"note: no fused rule, hence slower: {slow_operations(equivalence)}")
    rows = config.data.batch_size // runtime.world + 1
    most = max(1, MOST_ELEMENTS // max(1, rows * equivalence.elements_per_row))
    if isinstance(fuse, int):
        if fuse > most:
            warn(f"{most} seeds at a time instead of {fuse}: more would need tensors beyond 32-bit indices")
        return min(fuse, most)
    most = min(most, len(trials), _fit_in_memory(config, equivalence, runtime))
    kind, usual = runtime.device.type, min(USUAL[runtime.device.type], most)
    if config.train.deterministic or runtime.world > 1:
        return usual
    if not (size := tried_size(trials[0].run)):
        if kind == "cpu" and any(checkpoints.saved_steps(trial.run, trial.seed) for trial in trials):
            return usual  # begun without a trial: other blocks would round differently
        if kind == "cuda" or _is_worth_a_trial(trials):
            sizes = doublings(min(MOST[kind], most))
        elif equivalence.slow:
            sizes = [1, usual]
        else:
            return usual
        size = fastest_size(config, sizes, runtime, seed_losses)
    for group in group_by_run(trials):
        env = read_json(group[0].run.env) | {FUSED: size}
        group[0].run.replace(group[0].run.env, json.dumps(env, indent=1) + "\n")
    return min(size, most)


def _fit_in_memory(config: Config, equivalence: Equivalence, runtime: Runtime) -> int:
    free = free_bytes(runtime.device) if runtime.device.type == "cuda" else free_host_bytes() // runtime.processes
    rows = config.data.batch_size // runtime.world + 1
    float32s = 2 if config.train.precision == "fp64" else 1
    # Activations twice, for their gradients; parameters, their gradients and two running averages.
    bytes_per_seed = float32s * (2 * equivalence.bytes_per_row * rows + 4 * equivalence.bytes_per_seed)
    return max(1, int(SHARE * free) // bytes_per_seed)
