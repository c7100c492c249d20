"""Optimisers, the learning rate as a function of the step, clipping per seed.

Must not know about processes or the data.
"""

import math

import torch
from torch import Tensor, nn

from stn.config import steps_of
from stn.schema import Optim
from stn.seeds import Seeds
from stn.warp import is_localisation


def build_optimiser(optim: Optim, seeds: Seeds) -> torch.optim.Optimizer:
    """Elementwise optimisers only, so that seeds never meet; localisation is a group of its own."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in seeds.named_parameters():
        factor = optim.loc_lr_multiplier if is_localisation(name) else 1.0
        groups.setdefault(factor, []).append(parameter)
    parts = [{"params": parameters, "factor": factor} for factor, parameters in groups.items()]
    if optim.name == "adamw":
        return torch.optim.AdamW(parts, lr=optim.lr, betas=optim.betas, weight_decay=optim.weight_decay)
    return torch.optim.SGD(
        parts, lr=optim.lr, momentum=optim.momentum or 0.0, nesterov=optim.nesterov, weight_decay=optim.weight_decay
    )


def learning_rate(optim: Optim, step: int, steps: int) -> float:
    """Of the update that follows ``step`` updates, in a run of ``steps``."""
    warmup = steps_of(optim.warmup, 1)
    if optim.schedule == "onecycle":
        warmup = warmup or round(0.3 * steps)
        if step < warmup:
            return optim.lr * _between(optim.start_factor, 1.0, step / warmup, optim.anneal)
        return optim.lr * _between(1.0, optim.final_factor, (step - warmup) / max(1, steps - warmup), optim.anneal)
    if step < warmup:
        return optim.lr * (step + 1) / warmup
    if optim.schedule == "cosine":
        return optim.lr * _between(1.0, optim.final_factor, (step - warmup) / max(1, steps - warmup), "cosine")
    if optim.schedule == "step":
        return optim.lr * optim.gamma ** (step // max(1, steps_of(optim.step_every, 1)))
    if optim.schedule == "multistep":
        return optim.lr * optim.gamma ** sum(step >= steps_of(m, 1) for m in optim.milestones)
    return optim.lr


def _between(start: float, end: float, part: float, shape: str) -> float:
    if shape == "cosine":
        part = (1 - math.cos(math.pi * part)) / 2
    return start + (end - start) * part


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = lr * group["factor"]


def clip_gradients(seeds: Seeds, norm: float) -> None:
    """Each seed's own gradient norm, so that seeds never meet."""
    for model in seeds.models:
        nn.utils.clip_grad_norm_(model.parameters(), norm)


def optimiser_tensors(optimiser: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """One seed's optimiser state by parameter name: 'name//momentum_buffer'."""
    state = {}
    for name, parameter in model.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            if value is not None:
                state[f"{name}//{key}"] = value
    return state


def load_optimiser_tensors(optimiser: torch.optim.Optimizer, model: nn.Module, state: dict[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for path, value in state.items():
        name, key = path.split("//")
        parameter = parameters[name]
        like = value if key == "step" else torch.empty_like(parameter).copy_(value)
        optimiser.state[parameter][key] = like
