"""Schedules against torch's, groups, and clipping."""

import pytest
import torch
from torch import nn

from stn import optim
from stn.archs import build_model
from stn.resolve import build_dataset, resolve
from stn.schema import Arch, Config, Data, Optim
from stn.seeds import Seeds


def curve(steps: int = 100, **fields) -> list[float]:
    return [optim.learning_rate(Optim(lr=0.1, **fields), step, steps) for step in range(steps)]


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
    for anneal, name in (("linear", "linear"), ("cosine", "cos")):
        ours = curve(schedule="onecycle", start_factor=0.04, anneal=anneal, warmup="30 steps")
        theirs = torchs(
            lambda o, name=name: s.OneCycleLR(
                o, 0.1, 100, pct_start=0.31, div_factor=25, anneal_strategy=name, cycle_momentum=False
            )
        )
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
    facts = build_dataset("mnist")
    model = Seeds(lambda: build_model(config.arch, facts.shape, facts.classes), [0])
    optimiser = optim.build_optimiser(Optim(loc_lr_multiplier=0.01), model)
    optim.set_learning_rate(optimiser, 0.5)
    names = {id(p): name for name, p in model.named_parameters()}
    slow = [g for g in optimiser.param_groups if g["lr"] == pytest.approx(0.005)]
    found = {names[id(p)] for g in slow for p in g["params"]}
    assert {name.split(".")[3] for name in found} == own
    assert all(name.split(".")[2] == "st" for name in found)
    assert sum(len(g["params"]) for g in optimiser.param_groups) == len(names)


def test_clipping_is_per_seed() -> None:
    model = Seeds(lambda: nn.Linear(3, 2), [0, 1])
    for factor, one in zip((100.0, 0.01), model.models, strict=True):
        for p in one.parameters():
            p.grad = torch.full_like(p, factor)
    optim.clip_gradients(model, 1.0)
    norms = [torch.cat([p.grad.flatten() for p in one.parameters()]).norm().item() for one in model.models]  # type: ignore[union-attr]
    assert norms == pytest.approx([1.0, 0.01 * 8**0.5], rel=1e-4)
