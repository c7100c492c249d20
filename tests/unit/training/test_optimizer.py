"""Schedules against torch's, groups, and clipping."""

from functools import partial
from typing import Literal

import pytest
import torch
from torch import nn

from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data, Optim
from stn.models.build import build_network
from stn.multiseed.model import StackedModel
from stn.training import optimizer


def curve(steps: int = 100, **fields) -> list[float]:
    return [optimizer.learning_rate(Optim(lr=0.1, **fields), step, steps) for step in range(steps)]


def torchs(make, steps: int = 100) -> list[float]:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler, values = make(optimiser), []
    for _ in range(steps):
        values.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return values


def test_schedules_are_torchs() -> None:
    s = torch.optim.lr_scheduler
    assert curve(schedule="constant") == [0.1] * 100
    assert curve(schedule="step", step_every="30 steps", gamma=0.5) == pytest.approx(
        torchs(lambda o: s.StepLR(o, 30, 0.5))
    )
    assert curve(schedule="multistep", milestones=("20 steps", "70 steps")) == pytest.approx(
        torchs(lambda o: s.MultiStepLR(o, [20, 70]))
    )
    assert curve(schedule="cosine", final_factor=0.1) == pytest.approx(
        torchs(lambda o: s.CosineAnnealingLR(o, 100, 0.01))
    )
    names: list[tuple[str, Literal["linear", "cos"]]] = [("linear", "linear"), ("cosine", "cos")]
    for anneal, name in names:
        ours = curve(schedule="onecycle", start_factor=0.04, anneal=anneal, warmup="30 steps")
        one_cycle = partial(s.OneCycleLR, max_lr=0.1, total_steps=100, pct_start=0.31, div_factor=25)
        theirs = torchs(partial(one_cycle, anneal_strategy=name, cycle_momentum=False))
        assert ours[0] == pytest.approx(theirs[0])
        assert max(ours) == pytest.approx(0.1)
        assert ours[30] == pytest.approx(theirs[30])
        assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 0.002


def test_warmup_is_linear_and_ends_at_lr() -> None:
    values = curve(schedule="constant", warmup="10 steps")
    assert values[:10] == pytest.approx([0.01 * (i + 1) for i in range(10)])
    assert values[10:] == [0.1] * 90


@pytest.mark.parametrize(("arch", "own"), [("stn_slx", {"head", "last"}), ("stn_dlx", {"head", "last", "trunk"})])
def test_localisation_has_a_learning_rate_of_its_own(arch: str, own: set[str]) -> None:
    config = resolve(Config(arch=Arch(name=arch), data=Data(name="mnist")))
    model = StackedModel(lambda: build_network(config), [0, 1])
    wish = Optim(name="sgd", lr=0.5, momentum=0.0, schedule="constant", loc_lr_multiplier=0.01)
    optimiser = optimizer.SeedOptimiser([wish, wish], model, torch.tensor(0), 1)
    before = {name: p.detach().clone() for name, p in model.stacked.items()}
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimiser.step()
    slow = {n for n, p in model.stacked.items() if (before[n] - p).mean().item() == pytest.approx(0.005, rel=1e-3)}
    fast = {n for n, p in model.stacked.items() if (before[n] - p).mean().item() == pytest.approx(0.5, rel=1e-3)}
    assert {name.split(".")[4] for name in slow} == own
    assert all(name.split(".")[0] == "st" for name in slow)
    assert slow | fast == set(model.stacked)


class Weights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w, self.fixed = nn.Parameter(torch.randn(7)), nn.Parameter(torch.randn(2), requires_grad=False)


TORCHS = {
    "sgd": (Optim(name="sgd", lr=0.1, momentum=0.0), lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": (
        Optim(name="sgd", lr=0.1, momentum=0.9, weight_decay=0.3),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.3),
    ),
    "nesterov": (
        Optim(name="sgd", lr=0.1, momentum=0.5, nesterov=True),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.5, nesterov=True),
    ),
    "adamw": (
        Optim(name="adamw", lr=0.1, betas=(0.8, 0.9), weight_decay=0.2),
        lambda p: torch.optim.AdamW(p, 0.1, betas=(0.8, 0.9), weight_decay=0.2),
    ),
}


@pytest.mark.parametrize("name", TORCHS)
def test_updates_are_torchs(name: str) -> None:
    wish, make = TORCHS[name]
    wish = wish.model_copy(update={"schedule": "constant"})
    model, clock = StackedModel(Weights, [0, 1, 2], dtype=torch.float64), torch.tensor(0)
    alone: list[torch.Tensor] = [nn.Parameter(model.stacked["w"][s].detach().clone()) for s in range(3)]
    theirs = [make([p]) for p in alone]
    ours = optimizer.SeedOptimiser([wish] * 3, model, clock, 10)
    fixed = model.stacked["fixed"].detach().clone()
    for step in range(10):
        clock.fill_(step)
        ours.zero_grad()
        model.stacked["w"].sin().exp().sum().backward()
        ours.step()
        for p, optimiser in zip(alone, theirs, strict=True):
            optimiser.zero_grad()
            p.sin().exp().sum().backward()
            optimiser.step()
    torch.testing.assert_close(model.stacked["w"], torch.stack(alone), atol=1e-13, rtol=0)
    assert torch.equal(model.stacked["fixed"], fixed)


def test_adamw_divides_by_the_roots_of_runs_of_before() -> None:
    """They took the root of a number on the device; Python's differs in the last bit where MKL computes torch's."""
    wish = Optim(name="adamw", schedule="constant", warmup="0 steps", betas=(0.9, 0.999))
    model = StackedModel(Weights, [0], dtype=torch.float64)
    table_T3 = optimizer.SeedOptimiser([wish], model, torch.tensor(0), 1_000)._schedule
    done_T = torch.arange(1, 1_001)
    assert table_T3[:, 2].tolist() == [(1 - 0.999 ** done.double()).sqrt().item() for done in done_T]
    assert table_T3[:, 1].tolist() == [1 / (1 - 0.9**done) for done in done_T.tolist()]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_each_seed_may_have_its_own_learning_rate_and_weight_decay(name: Literal["sgd", "adamw"]) -> None:
    wishes = [
        Optim(name=name, lr=lr, weight_decay=wd, schedule="cosine") for lr, wd in ((0.1, 0.0), (0.02, 0.3), (0.02, 0.0))
    ]

    def run(wishes: list[Optim], seeds: list[int]) -> StackedModel:
        model, clock = StackedModel(Weights, seeds, dtype=torch.float64), torch.tensor(0)
        optimiser = optimizer.SeedOptimiser(wishes, model, clock, 10)
        for step in range(10):
            clock.fill_(step)
            optimiser.zero_grad()
            model.stacked["w"].sin().exp().sum().backward()
            optimiser.step()
        return model

    together = run(wishes, [4, 4, 5])
    for s, (wish, seed) in enumerate(zip(wishes, [4, 4, 5], strict=True)):
        alone = run([wish], [seed])
        torch.testing.assert_close(alone.stacked["w"][0], together.stacked["w"][s], atol=1e-14, rtol=1e-12)
        assert torch.equal(alone.stacked["w"][0], together.stacked["w"][s]), "it depends on its neighbours"
    assert (together.stacked["w"][0] - together.stacked["w"][1]).abs().min() > 1e-6


def test_clipping_is_per_seed_and_returns_the_norms_before() -> None:
    model = StackedModel(lambda: nn.Linear(3, 2), [0, 1])
    for p in model.parameters():
        p.grad = torch.tensor([100.0, 0.01]).view(2, *[1] * (p.dim() - 1)).expand_as(p).clone()
    before = [100.0 * 8**0.5, 0.01 * 8**0.5]
    assert optimizer.clip_gradients(model, 0.0).tolist() == pytest.approx(before), "0 does not clip"
    assert optimizer.clip_gradients(model, 1.0).tolist() == pytest.approx(before)
    norms = torch.cat([p.grad.flatten(1) for p in model.parameters()], 1).norm(dim=1).tolist()  # type: ignore[union-attr]
    assert norms == pytest.approx([1.0, 0.01 * 8**0.5], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("wish", [{"name": "adamw"}, {"name": "sgd", "momentum": 0.9, "nesterov": True}], ids=str)
def test_an_update_compiles_whole_and_is_the_plain_one(wish: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten blocks in one process, with other numbers each: torch.compile gives up after eight versions."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    optimizer.compiled.cache_clear()
    config = resolve(Config(arch=Arch(name="stn_slx"), data=Data(name="mnist")))
    model = StackedModel(lambda: build_network(config), [0, 1], dtype=torch.float64)
    start, clock = model.flat.detach().clone(), torch.tensor(0)
    for block in range(10):
        numbers: dict = {"lr": 0.01 + 0.001 * block, "weight_decay": 0.1 + 0.01 * block}
        options = Optim(**wish, **numbers, schedule="cosine", loc_lr_multiplier=0.1)
        weights = []
        for compiles in (False, True):
            optimiser = optimizer.SeedOptimiser([options] * 2, model, clock, 2, compiles)
            model.flat.detach().copy_(start)
            random = torch.Generator().manual_seed(0)
            for step in range(2):
                clock.fill_(step)
                for p in model.stacked.values():
                    p.grad = torch.randn(p.shape, dtype=p.dtype, generator=random)
                optimiser.step()
            weights.append(model.flat.detach().clone())
        torch.testing.assert_close(*weights, rtol=1e-13, atol=1e-13)
