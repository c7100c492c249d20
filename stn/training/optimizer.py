"""Optimisers, the learning rate as a function of the step, clipping per seed.

Must not know about processes or the data.
"""

import math
from typing import Any

import torch
from torch import Tensor

from stn.config.fields import steps_of
from stn.config.schema import Optim
from stn.models.transformer import is_localisation
from stn.multiseed.model import StackedModel


class SeedOptimiser(torch.optim.Optimizer):
    """SGD or AdamW over the flat parameters of all seeds; elementwise, so seeds never meet.

    What differs between elements (a seed's learning rate and weight decay, the localisation's
    multiplier) is a vector beside the parameters, a number where it does not differ. The
    schedule is a table on the device, read at ``clock``: an update never asks the host.
    """

    def __init__(self, optims: list[Optim], seeds: StackedModel, clock: Tensor, steps: int) -> None:
        super().__init__(seeds.stacked.values(), {})
        self.optim, self.seeds, self.clock, flat = optims[0], seeds, clock, seeds.flat
        first, lr, decay = optims[0], {}, {}
        factors = schedule(first.model_copy(update={"lr": 1.0}), steps)
        self._schedule = torch.tensor(factors, dtype=torch.float64, device=flat.device)
        for name, p in seeds.stacked.items():
            factor = first.loc_lr_multiplier if is_localisation(name) else 1.0
            lr[name] = [factor * one.lr for one in optims]
            decay[name] = [one.weight_decay * p.requires_grad for one in optims]
        self._lr, self._decay = self._spread(lr), self._spread(decay)
        names = ("exp_avg", "exp_avg_sq") if first.name == "adamw" else ("momentum_buffer",) * bool(first.momentum)
        self.running = {name: torch.zeros_like(flat) for name in names}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As zero_grad, without torch's compiler, which torch's own ones import: two seconds of every start."""
        self.param_groups.append(param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        for p in self.seeds.stacked.values():
            p.grad = None

    def _spread(self, values: dict[str, list[float]]) -> Tensor | float:
        """A value per parameter and seed as one per element; as a number where all are equal."""
        distinct = {value for row in values.values() for value in row}
        if len(distinct) == 1:
            return distinct.pop()
        parts = []
        for name, p in self.seeds.stacked.items():
            value_S1 = torch.tensor(values[name], dtype=p.dtype, device=p.device).unsqueeze(1)
            parts.append(value_S1.expand(-1, p[0].numel()).flatten())
        return torch.cat(parts)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update from the gradients; as in torch.optim, but for parameters that have none: theirs is 0."""
        parameters = self.seeds.stacked.values()
        grad = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
        flat, optim = self.seeds.flat, self.optim
        lr = self._schedule.index_select(0, self.clock.view(1)).to(flat.dtype)
        if optim.name == "adamw":
            done = (self.clock + 1).double()
            first, second = (1 - beta**done for beta in optim.betas)
            if torch.is_tensor(self._decay) or self._decay:
                flat.mul_(1 - lr * self._lr * self._decay)
            mean = self.running["exp_avg"].lerp_(grad, 1 - optim.betas[0])
            square = self.running["exp_avg_sq"].mul_(optim.betas[1]).addcmul_(grad, grad, value=1 - optim.betas[1])
            root = square.sqrt().div_(second.sqrt().to(flat.dtype)).add_(1e-8)
            flat.sub_(mean / root * (lr / first.to(flat.dtype) * self._lr))
            return
        if torch.is_tensor(self._decay) or self._decay:
            grad += flat * self._decay
        if optim.momentum:
            buffer = self.running["momentum_buffer"].mul_(optim.momentum).add_(grad)
            grad = grad.add_(buffer, alpha=optim.momentum) if optim.nesterov else buffer
        flat.sub_(grad * (lr * self._lr))

    def state_of(self, s: int) -> dict[str, Tensor]:
        """One seed's running means by parameter name, 'name//momentum_buffer'; they share the memory."""
        views, sizes = {}, [p.numel() for p in self.seeds.stacked.values()]
        for key, flat in self.running.items():
            for (name, p), part in zip(self.seeds.stacked.items(), flat.split(sizes), strict=True):
                views[f"{name}//{key}"] = part.view_as(p)[s]
        return views

    def load_state_of(self, s: int, state: dict[str, Tensor]) -> None:
        for name, view in self.state_of(s).items():
            view.copy_(state[name])


def schedule(optim: Optim, steps: int) -> list[float]:
    """The learning rate of every update of a run."""
    return [learning_rate(optim, step, steps) for step in range(steps)]


def learning_rate(optim: Optim, step: int, steps: int) -> float:
    """Of the update that follows ``step`` updates, in a run of ``steps``."""
    warmup = steps_of(optim.warmup)
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
        return optim.lr * optim.gamma ** (step // max(1, steps_of(optim.step_every)))
    if optim.schedule == "multistep":
        return optim.lr * optim.gamma ** sum(step >= steps_of(m) for m in optim.milestones)
    return optim.lr


def _between(start: float, end: float, part: float, shape: str) -> float:
    if shape == "cosine":
        part = (1 - math.cos(math.pi * part)) / 2
    return start + (end - start) * part


def clip_gradients(seeds: StackedModel, norm: float) -> None:
    """Each seed's own gradient norm, so that seeds never meet."""
    grads = [p.grad for p in seeds.stacked.values() if p.grad is not None]
    norm_S = torch.stack([g.flatten(1).square().sum(1) for g in grads]).sum(0).sqrt()
    scale_S = (norm / (norm_S + 1e-6)).clamp(max=1.0)
    for g in grads:
        g.mul_(scale_S.view(-1, *[1] * (g.dim() - 1)))
