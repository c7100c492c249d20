"""--check: what differs from the defaults, and the network, layer by layer."""

from collections.abc import Callable
from typing import Any

import torch
from rich.table import Table
from rich.text import Text
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._pytree import tree_leaves

from stn.commands.network import try_network
from stn.config import registry
from stn.config.dataset import build_dataset
from stn.config.resolve import signature
from stn.config.schema import Config
from stn.config.seed_list import parse_seeds
from stn.config.yaml_files import dump_yaml
from stn.models.wirings import count_parameters
from stn.runs.cores import Neighbours
from stn.runs.trials import build_trials
from stn.tracking.console import console, say
from stn.training.block_size import USUAL
from stn.training.blocks import check_network, slow_operations
from stn.training.runtime import Runtime
from stn.training.slow_settings import slow_settings


def layers(model: nn.Module, shape: tuple[int, ...]) -> list[tuple[str, str, str, int, int]]:
    """Return name, type, output shape, parameters and FLOPs of every leaf, in the order in which they run.

    A layer that runs twice has two rows; its parameters count once. FLOPs are two for each
    multiply-add of a convolution or a linear layer, forward, in a batch of one image: a CoordConv
    counts as a convolution over all its channels. Grids and sampling are not counted.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imported when it is used: half a second

    rows: list[tuple[str, str, str, int, int]] = []
    names = {module: name for name, module in model.named_modules()}
    counted: set[nn.Parameter] = set()
    counter, before = FlopCounterMode(display=False), 0

    def start(*_: object) -> None:
        nonlocal before
        before = counter.get_total_flops()

    def end(module: nn.Module, _: object, out: Any) -> None:
        parameters = set(module.parameters(recurse=False))
        tensors = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        if module in names and tensors and (parameters or not list(module.children())):  # names: not made in forward
            size = "x".join(map(str, tensors[0].shape[1:]))
            fresh = sum(p.numel() for p in parameters - counted)
            rows.append((names[module], type(module).__name__, size, fresh, counter.get_total_flops() - before))
            counted.update(parameters)

    model.eval()
    image = torch.zeros(1, *shape, dtype=next(model.parameters()).dtype)
    with torch.no_grad(), counter, register_module_forward_pre_hook(start), register_module_forward_hook(end):
        model(image)
    return rows


def mflop(model: nn.Module, shape: tuple[int, ...]) -> float:
    """Return the MFLOP of one image, forward."""
    return sum(row[4] for row in layers(model, shape)) / 1e6


def differences(config: Config) -> list[tuple[str, str, str]]:
    """Return each setting that is not its default, with its value and the default."""
    rows = []
    for name in Config.model_fields:
        given, usual = getattr(config, name), getattr(Config(), name)
        own = registry.find("arch", config.arch.name).options  # a plugin's, which the schema does not know
        pairs = [(key, value, getattr(usual, key, own.get(key))) for key, value in given]
        rows += [(f"{name}.{key}", str(value), str(default)) for key, value, default in pairs if value != default]
    return rows


def slow_here(configs: list[Config], seed_losses: Callable[..., Any]) -> list[str]:
    """Return a sentence for each setting that makes training slower on this machine than the default would."""
    trials, fuse = build_trials(configs), configs[0].train.fuse
    try:
        runtime = Runtime(configs[0], len(trials), configs, Neighbours())  # with the threads that a training would take
        size = fuse if isinstance(fuse, int) else min(USUAL[runtime.device.type], len(trials))
        return slow_settings(trials, size, runtime, seed_losses, True)
    except (OSError, ValueError) as error:  # no data, and no network
        return [f"not known, nothing can be timed: {error}"]


def check(
    configs: list[Config],
    given: Config | None = None,
    full: bool = False,
    seed_losses: Callable[..., Any] | None = None,
) -> int:
    """Build the network and print what --check promises; ``given`` is the configuration before it was resolved.

    With the losses of train.py, settings that are slower than the defaults are timed.
    """
    config, seeds = configs[0], len(configs) * len(parse_seeds(configs[0].train.seeds))
    dataset = build_dataset(config.data.name)
    model = try_network(config)
    differing = Table("setting", "value", "default", title="Not the default")
    for row in differences(given or config):
        differing.add_row(*map(Text, row))
    if differing.row_count:
        console.print(differing)
    title = f"{config.arch.name} on {config.arch.net}"
    table = Table("layer", "type", "output", "parameters", "MFLOP", title=title)
    for name, kind, size, parameters, flops in layers(model, dataset.shape):
        table.add_row(name, kind, size, f"{parameters:,}" if parameters else "", f"{flops / 1e6:.3f}" if flops else "")
    console.print(table)
    say(f"input       {'x'.join(map(str, dataset.shape))}, {dataset.classes} classes")
    say(f"parameters  {count_parameters(model)}")
    say(f"MFLOP       {mflop(model, dataset.shape):.2f}")
    say(f"steps       {config.train.steps}")
    say(f"seeds       {seeds}" + f" in {len(configs)} settings" * (len(configs) > 1))
    say(f"signature   {', '.join(map(signature, configs))}")
    if seeds > 1:
        equivalence = check_network(config)
        slow = f"yes; no fused rule, hence slower: {slow_operations(equivalence)}" if equivalence.slow else "yes"
        say(f"fused       {f'no, one seed at a time: {equivalence.fault}' if equivalence.fault else slow}")
    for text in slow_here(configs, seed_losses) if seed_losses else []:
        say(f"slower      {text}")
    say(f"\n{dump_yaml(config)}" if full else "all settings: --check full")
    return 0
