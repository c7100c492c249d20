"""Optimisers, the learning rate as a function of the step, and gradient clipping per seed.

S seed, P all parameters of all seeds.
"""

import math
from collections.abc import Callable
from functools import cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from stn.config.fields import steps_of
from stn.config.schema import Optim
from stn.models.transformer import is_localisation
from stn.multiseed.model import StackedModel


class SeedOptimiser(torch.optim.Optimizer):
    """SGD or AdamW over the flat parameters of all seeds; elementwise, so seeds cannot influence each other.

    Learning rate and weight decay are a number, or where they differ between seeds or parameters a vector with an
    element for each parameter. The schedule is a table on the device, read at ``clock``: a step needs no host sync.
    """

    def __init__(
        self, optims: list[Optim], model: StackedModel, clock: Tensor, steps: int, compiles: bool = False
    ) -> None:
        super().__init__(model.stacked.values(), {})
        self.optim, self.model, self.clock = optims[0], model, clock
        self._schedule = self._schedule_table(steps)
        lr, decay = {}, {}
        for name, p in model.stacked.items():
            factor = self.optim.loc_lr_multiplier if is_localisation(name) else 1.0
            lr[name] = [factor * optim.lr for optim in optims]
            decay[name] = [optim.weight_decay * p.requires_grad for optim in optims]
        self._lr, self._decay = self._per_element(lr), self._per_element(decay)
        adamw, momentum = self.optim.name == "adamw", bool(self.optim.momentum)
        averages = ("exp_avg", "exp_avg_sq") if adamw else ("momentum_buffer",) * momentum
        self.averages = {name: torch.zeros_like(model.flat) for name in averages}
        """Running averages of the gradients, flat as the parameters, under torch.optim's names."""
        constants = self.optim.betas if adamw else (self.optim.momentum, self.optim.nesterov)
        self._update, self._constants = adamw_update if adamw else sgd_update, constants
        if compiles:  # numbers would be compiled in, and another block's compiled anew
            like = {"dtype": model.flat.dtype, "device": model.flat.device}
            self._lr, self._decay = (torch.as_tensor(x, **like) for x in (self._lr, self._decay))
            self._update = compiled(self._update)

    def _schedule_table(self, steps: int) -> Tensor:
        """Return a row per step: the factor of the learning rate, and what AdamW's running means are divided by."""
        unit_lr = self.optim.model_copy(update={"lr": 1.0})
        beta1, beta2 = self.optim.betas
        rows = [  # Python's powers: those of torch depend on a vector's length in the last bit
            (learning_rate(unit_lr, step, steps), 1 - beta1 ** (step + 1), 1 - beta2 ** (step + 1))
            for step in range(steps)
        ]
        table_T3 = torch.tensor(rows, dtype=torch.float64)
        # Torch's root, as in runs of before: Python's differs in the last bit at a step in twenty.
        table_T3[:, 2].sqrt_()
        factor_T, correction_T, root_T = table_T3.to(self.model.flat.dtype).unbind(1)
        return torch.stack([factor_T, factor_T / correction_T, root_T], 1).to(self.model.flat.device)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Overridden, as zero_grad is: torch's versions import torch._dynamo, two seconds of every start."""
        self.param_groups.append(param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        for p in self.model.stacked.values():
            p.grad = None

    def _per_element(self, values: dict[str, list[float]]) -> Tensor | float:
        """Spread a value per parameter and seed over the flat parameters; a number where all are equal."""
        distinct = set(chain.from_iterable(values.values()))
        if len(distinct) == 1:
            return distinct.pop()
        parameters = self.model.stacked.items()
        return torch.cat([p.new_tensor(values[name]).repeat_interleave(p[0].numel()) for name, p in parameters])

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update as torch.optim does, except that a parameter without a gradient has one of 0."""
        parameters = self.model.stacked.values()
        grad_P = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
        factors = self._schedule.index_select(0, self.clock.view(1))[0].unbind()
        averages = tuple(self.averages.values())
        self._update(self.model.flat, grad_P, averages, factors, self._lr, self._decay, self._constants)

    def seed_state(self, s: int) -> dict[str, Tensor]:
        """Return one seed's running averages as 'parameter//momentum_buffer'; they share the memory."""
        views, sizes = {}, [p.numel() for p in self.model.stacked.values()]
        for key, average_P in self.averages.items():
            for (name, p), part in zip(self.model.stacked.items(), average_P.split(sizes), strict=True):
                views[f"{name}//{key}"] = part.view_as(p)[s]
        return views

    def load_seed_state(self, s: int, state: dict[str, Tensor]) -> None:
        for name, view in self.seed_state(s).items():
            view.copy_(state[name])


Value = Tensor | float


def adamw_update(
    flat_P: Tensor, grad_P: Tensor, averages: tuple, factors: tuple, lr: Value, decay: Value, betas: tuple
) -> None:
    (mean_P, square_P), (factor, corrected, root), (beta1, beta2) = averages, factors, betas
    if torch.is_tensor(decay) or decay:
        flat_P.mul_(1 - factor * lr * decay)
    mean_P.lerp_(grad_P, 1 - beta1)
    square_P.mul_(beta2).addcmul_(grad_P, grad_P, value=1 - beta2)
    root_P = square_P.sqrt().div_(root).add_(1e-8)
    flat_P.sub_(mean_P.div(root_P).mul_(corrected * lr))


def sgd_update(
    flat_P: Tensor, grad_P: Tensor, averages: tuple, factors: tuple, lr: Value, decay: Value, how: tuple
) -> None:
    momentum, nesterov = how
    if torch.is_tensor(decay) or decay:
        grad_P += flat_P * decay
    if momentum:
        buffer_P = averages[0].mul_(momentum).add_(grad_P)
        grad_P = grad_P.add_(buffer_P, alpha=momentum) if nesterov else buffer_P
    flat_P.sub_(grad_P * (factors[0] * lr))


@cache
def compiled(update: Callable[..., None]) -> Callable[..., None]:
    """Compile an update, on CUDA into one kernel instead of ten; for each number of parameters anew."""
    return torch.compile(update, dynamic=False)


def learning_rate(optim: Optim, step: int, steps: int) -> float:
    """Return the learning rate of the update after ``step`` updates, in a run of ``steps``."""
    warmup = steps_of(optim.warmup)
    if optim.schedule == "onecycle":
        warmup = warmup or round(0.3 * steps)
        if step < warmup:
            return optim.lr * _between(optim.start_factor, 1.0, step / warmup, optim.anneal)
    elif step < warmup:
        return optim.lr * (step + 1) / warmup
    if optim.schedule in ("onecycle", "cosine"):
        anneal = optim.anneal if optim.schedule == "onecycle" else "cosine"
        return optim.lr * _between(1.0, optim.final_factor, (step - warmup) / max(1, steps - warmup), anneal)
    if optim.schedule == "step":
        return optim.lr * optim.gamma ** (step // max(1, steps_of(optim.step_every)))
    if optim.schedule == "multistep":
        return optim.lr * optim.gamma ** sum(step >= steps_of(m) for m in optim.milestones)
    return optim.lr


def _between(start: float, end: float, part: float, shape: str) -> float:
    """Interpolate from start to end, linearly or along half a cosine."""
    if shape == "cosine":
        part = (1 - math.cos(math.pi * part)) / 2
    return start + (end - start) * part


def clip_gradients(model: StackedModel, max_norm: float) -> Tensor:
    """Clip the norm of each seed's gradient (0: do not clip); return the norms before, [S]."""
    grads = [p.grad for p in model.stacked.values() if p.grad is not None]
    norm_S = torch.stack([g.reshape(len(g), -1).square().sum(1) for g in grads]).sum(0).sqrt()
    if max_norm:
        scale_S = (max_norm / (norm_S + 1e-6)).clamp(max=1.0)
        for g in grads:
            g.mul_(scale_S.view(-1, *[1] * (g.dim() - 1)))
    return norm_S
