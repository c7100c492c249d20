"""The network of a configuration, tried before training: what cannot be trained is refused."""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import torch
from torch import nn

from stn.config import registry
from stn.config.dataset import build_dataset
from stn.config.fields import steps_of
from stn.config.plugins import plugin_of
from stn.config.schema import Config, Optim
from stn.models.build import build_network
from stn.models.transformer import is_localisation
from stn.models.warping import check_warps, warping
from stn.multiseed.checks.as_written import runs_as_written, traces_as_it_runs
from stn.multiseed.checks.one_result import DRAWS, depends_on_batch, keeps_beside_checkpoints
from stn.multiseed.model import StackedModel
from stn.tracking.console import say
from stn.training.runtime import Runtime

_MATTERS = (
    ("milestones", "schedule", ("multistep",)),
    ("gamma", "schedule", ("step", "multistep")),
    ("start_factor", "schedule", ("onecycle",)),
    ("anneal", "schedule", ("onecycle",)),
    ("final_factor", "schedule", ("onecycle", "cosine")),
    ("betas", "name", ("adamw",)),
)
"""Fields of the optimiser, and with which values of another they mean something."""


def try_network(config: Config, runtime: Runtime | None = None) -> nn.Module:
    """Build a network; ValueError for what cannot be trained, before there is a run directory."""
    network, dataset = build_network(config), build_dataset(config.data.name)
    shape = dataset.shape
    if not isinstance(network, nn.Module):
        raise ValueError(f"{config.arch.name} returns {type(network).__name__}, not an nn.Module; is a return missing?")
    if other := [name for name, x in network.state_dict().items() if not isinstance(x, torch.Tensor)]:
        raise ValueError(f"{config.arch.name} has {other[0]} in its state dict, which is no parameter and no buffer")
    try:
        check_warps(network, shape)
    except ValueError as error:
        raise ValueError(f"{config.arch.name}: {error}") from None
    network.eval()
    with torch.no_grad():
        logits = network(torch.zeros(2, *shape))
    network.train()
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, dataset.classes):
        found = [*logits.shape] if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(f"{config.arch.name} returns {found} for two images, not logits [2, {dataset.classes}]")
    _refuse_output_in_training(config.arch.name, network, shape, dataset.classes)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError(f"{config.arch.name} has no parameter to train")
    if config.optim.accumulate > 1:
        model = StackedModel(lambda: build_network(config), [0])
        model.whole_batch = False
        images = torch.zeros(1, 2, *shape)
        with torch.no_grad():
            model.train()(images, 0, torch.arange(2))
    _refuse_other_results(config, shape, runtime)
    if plugin_of(registry.find("arch", config.arch.name)) and warping(network, shape) is None:
        say(f"note: {config.arch.name} has no method warps, so nothing is measured or drawn of how it warps")
    for text in _meaningless(config, network):
        say(f"note: {text}")
    milestones = config.optim.milestones if config.optim.schedule == "multistep" else ()
    if max(map(steps_of, milestones), default=-1) >= (config.train.steps or 0):
        say("note: a milestone lies behind the last step; --fraction shortens the schedule, too")
    return network


def _refuse_output_in_training(name: str, network: nn.Module, shape: tuple[int, ...], classes: int) -> None:
    """Raise ValueError for networks that return more in training, as torchvision's with auxiliary classifiers."""
    shapes = right = [[2, classes], [2]]
    with suppress(Exception), torch.no_grad(), torch.random.fork_rng(devices=[]):  # two images may not suit
        out = network(torch.zeros(2, *shape))
        shapes = [[*torch.as_tensor(part).shape] for part in (out if isinstance(out, tuple) else (out, 0.0))]
    if shapes not in (right, [[2, classes], []]):
        found = ", ".join(map(str, shapes))
        raise ValueError(f"{name} returns {found} in training, not logits [2, {classes}] or these and a penalty [2]")


def _meaningless(config: Config, network: nn.Module) -> Iterator[str]:
    """Yield what is set and changes nothing, but the signature."""
    for field, by, values in _MATTERS:
        value, default = getattr(config.optim, field), Optim.model_fields[field].default
        if value != default and (other := getattr(config.optim, by)) not in values:
            yield f"optim.{field} means nothing with optim.{by} {other}"
    localises = any(is_localisation(name) for name, _ in network.named_parameters())
    if config.optim.loc_lr_multiplier != 1 and not localises:
        yield f"{config.arch.name} has no parameters of a module st, so optim.loc_lr_multiplier means nothing"


def _refuse_other_results(config: Config, shape: tuple[int, ...], runtime: Runtime | None) -> None:
    """Raise ValueError for a network whose result depends on how it is run; say so where it only draws otherwise."""
    compiles, ranks = (runtime.compiles, runtime.world) if runtime else (config.train.compile, 1)
    parts = config.optim.accumulate

    build = partial(build_network, config)
    fault = keeps_beside_checkpoints(build, shape)
    if not fault and not runs_as_written(build, shape):
        fault = "computes otherwise here than by itself"
    if not fault and compiles and not traces_as_it_runs(build, shape):
        fault = "has other gradients with --train.compile"
    if not fault and (found := depends_on_batch(build, shape, training=False, parts=2)):
        fault = f"{found} in evaluation, by the batch"
    if not fault and max(parts, ranks) > 1:
        how = "--optim.accumulate divides" if parts > 1 else f"{ranks} processes share"
        found = depends_on_batch(build, shape, True, min(parts, 2))
        if found == DRAWS:
            say(f"note: {config.arch.name} {found}: as it were another seed, where {how} a batch")
        elif found:
            fault = f"{found} where {how} a batch"
    if fault:
        raise ValueError(f"{config.arch.name} {fault}: see extend.md, What to avoid")
