"""--list and --check: what can be picked, and what was picked, layer by layer."""

import torch
from rich.table import Table
from torch import nn

from stn.config.command_line import parse
from stn.config.dataset import build_dataset
from stn.config.resolve import resolve
from stn.config.schema import Config
from stn.config.seed_list import parse_seeds
from stn.config.signature import signature
from stn.config.yaml_files import dump_yaml
from stn.models.build import build_model
from stn.models.wirings import count
from stn.tracking.console import console, say
from stn.training.blocks import check_network, slow_operations


def layers(model: nn.Module, shape: tuple[int, ...]) -> list[tuple[str, str, str, int, int]]:
    """Name, type, output shape, parameters and FLOPs of every leaf, in the order in which they run.

    A layer that runs twice stands there twice; its parameters count once. FLOPs are two for each
    multiply-add of a convolution or a linear layer, forward, in a batch of one image: a CoordConv
    counts as a convolution over all its channels. Grids and sampling are not counted.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imported when it is used: half a second

    rows: list[tuple[str, str, str, int, int]] = []
    seen: set[int] = set()
    counter, before = FlopCounterMode(display=False), 0

    def start(*_: object) -> None:
        nonlocal before
        before = counter.get_total_flops()

    hooks = []
    for name, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if own or not list(module.children()):

            def hook(module: nn.Module, _: object, out: torch.Tensor, name: str = name) -> None:
                fresh = [p for p in module.parameters(recurse=False) if id(p) not in seen]
                seen.update(id(p) for p in fresh)
                size = "x".join(map(str, out.shape[1:]))
                flops = counter.get_total_flops() - before
                rows.append((name, type(module).__name__, size, sum(p.numel() for p in fresh), flops))

            hooks.append(module.register_forward_pre_hook(start))
            hooks.append(module.register_forward_hook(hook))
    model.eval()
    with torch.no_grad(), counter:
        model(torch.zeros(1, *shape, dtype=next(model.parameters()).dtype))
    for handle in hooks:
        handle.remove()
    return rows


def mflop(model: nn.Module, shape: tuple[int, ...]) -> float:
    """Of one image, forward."""
    return sum(row[4] for row in layers(model, shape)) / 1e6


def check(configs: list[Config]) -> int:
    """Build the network and print everything that --check promises."""
    config, seeds = configs[0], len(configs) * len(parse_seeds(configs[0].train.seeds))
    dataset = build_dataset(config.data.name)
    model = build_model(config.arch, dataset.shape, dataset.classes)
    say(dump_yaml(config))
    title = f"{config.arch.name} on {config.arch.net}"
    table = Table("layer", "type", "output", "parameters", "MFLOP", title=title)
    for name, kind, size, parameters, flops in layers(model, dataset.shape):
        table.add_row(name, kind, size, f"{parameters:,}" if parameters else "", f"{flops / 1e6:.3f}" if flops else "")
    console.print(table)
    say(f"input       {'x'.join(map(str, dataset.shape))}, {dataset.classes} classes")
    say(f"parameters  {count(model)}")
    say(f"MFLOP       {mflop(model, dataset.shape):.2f}")
    say(f"steps       {config.train.steps}")
    say(f"seeds       {seeds}" + f" in {len(configs)} settings" * (len(configs) > 1))
    say(f"signature   {', '.join(map(signature, configs))}")
    if seeds > 1:
        equivalence = check_network(config)
        slow = f"yes; no fused rule, hence slower: {slow_operations(equivalence)}" if equivalence.slow else "yes"
        say(f"fused       {f'no, one seed at a time: {equivalence.fault}' if equivalence.fault else slow}")
    return 0


def main(arguments: list[str]) -> int:
    return check([resolve(config) for config in parse(arguments).configs])
