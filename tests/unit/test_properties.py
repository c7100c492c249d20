"""Properties of configurations, seed lists and learning rates, on generated values."""

import math
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stn.config import registry
from stn.config.fields import steps_of
from stn.config.resolve import resolve, signature, validate
from stn.config.schema import Arch, Config, Data, Eval, Log, Optim, Train
from stn.config.seed_list import format_seeds, parse_seeds, share
from stn.config.yaml_files import dump_yaml, load_yaml
from stn.training.optimizer import learning_rate
from tests.support.properties import few

OURS = {
    kind: sorted(name for name, entry in registry.entries[kind].items() if entry.function.__module__.startswith("stn."))
    for kind in ("arch", "dataset")
}
durations = st.one_of(
    st.integers(0, 10**6).map(lambda n: f"{n} steps"),
    st.floats(0, 1000).map(lambda x: f"{x:.3f} epochs"),
    st.floats(0, 100).map(lambda x: f"{x:.2f} %"),
)
fractions = st.floats(0, 1, exclude_max=True)
positive, sizes, batches = st.integers(1, 10**6), st.integers(1, 1024), st.integers(1, 100_000)
rates = st.floats(1e-12, 1e6)
optims = st.builds(
    Optim, name=st.sampled_from(("sgd", "adamw")), lr=rates, momentum=st.none() | fractions, nesterov=st.booleans(),
    betas=st.tuples(fractions, fractions), weight_decay=st.floats(0, 10), warmup=durations, step_every=durations,
    schedule=st.sampled_from(("constant", "step", "multistep", "cosine", "onecycle")),
    milestones=st.lists(durations, max_size=3).map(tuple), gamma=st.floats(1e-6, 1), clip=st.floats(0, 1e6),
    start_factor=st.floats(1e-6, 1), final_factor=st.floats(0, 1), anneal=st.sampled_from(("linear", "cosine")),
    accumulate=st.integers(1, 4),
)  # fmt: skip
texts = st.text(st.characters(exclude_categories=("C", "Zl", "Zp"), exclude_characters="/"), max_size=20)
texts = texts.filter(lambda text: text.isprintable() and not text.startswith("."))
texts |= st.sampled_from(["yes", "1e3", "010", "1_0", "null", "~", "- a", "a: b", "#x", "'", '"'])
configs = st.builds(
    Config,
    arch=st.builds(Arch, name=st.sampled_from(OURS["arch"]), antialias=st.booleans(), size=st.none() | sizes),
    data=st.builds(
        Data, name=st.sampled_from(OURS["dataset"]), batch_size=batches, limit_train=st.none() | positive,
        rotate=st.floats(0, 180), crop=st.integers(0, 3), root=st.none() | texts,
    ),
    optim=optims,
    train=st.builds(Train, steps=positive, fraction=st.floats(0.01, 1), seeds=st.sampled_from(("0", "0-7", "3,5"))),
    eval=st.builds(Eval, every=durations),
    log=st.builds(Log, name=st.none() | texts, runs=texts),
)  # fmt: skip
seed_sets = st.sets(st.integers(0, 2**31 - 1), min_size=1, max_size=40) | st.sets(st.integers(0, 50), min_size=1)


def resolved(config: Config) -> Config | None:
    """Return a configuration as it will be run; None if it cannot be."""
    try:
        validate(config)
        return resolve(config)
    except ValueError:
        return None


@few(60)
@given(configs)
def test_a_configuration_survives_its_yaml(config: Config) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(dump_yaml(config), encoding="utf-8")
        assert load_yaml(path) == config


@few(200)
@given(configs)
def test_resolving_again_changes_nothing_and_a_signature_survives_yaml(config: Config) -> None:
    once = resolved(config)
    if once is None:
        return
    assert resolve(once) == once
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(dump_yaml(once), encoding="utf-8")
        assert signature(load_yaml(path)) == signature(once)
    moved = once.model_copy(update={"log": Log(runs="elsewhere"), "eval": once.eval})
    assert signature(moved) == signature(once)


def test_generated_configurations_can_mostly_be_resolved() -> None:
    """Otherwise the tests above would prove little."""
    counts = {True: 0, False: 0}

    @few(200)
    @given(configs)
    def count(config: Config) -> None:
        counts[resolved(config) is not None] += 1

    count()
    assert counts[True] > 10, counts


@few(200)
@given(seed_sets)
def test_formatted_seeds_are_parsed_to_the_same(seeds: set[int]) -> None:
    text = format_seeds(list(seeds))
    assert parse_seeds(text) == sorted(seeds)
    assert format_seeds(parse_seeds(text)) == text


@few(200)
@given(st.integers(0, 1000), st.integers(1, 50))
def test_shares_are_all_of_it_and_differ_by_at_most_one(n: int, world: int) -> None:
    parts = [share(n, rank, world) for rank in range(world)]
    assert [i for part in parts for i in part] == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def in_steps(optim: Optim, steps: int) -> Optim:
    """Return an optimiser as it is after resolving, for a run of so many steps."""
    names = ("warmup", "step_every")
    update: dict = {name: f"{steps_of(getattr(optim, name), 10, steps) % steps} steps" for name in names}
    return optim.model_copy(
        update=update | {"milestones": tuple(f"{steps_of(m, 10, steps)} steps" for m in optim.milestones)}
    )


@few(200)
@given(optims, st.integers(1, 300))
def test_learning_rates_stay_within_bounds_and_end_where_they_must(optim: Optim, steps: int) -> None:
    optim = in_steps(optim, steps)
    rates = [learning_rate(optim, step, steps) for step in range(steps + 1)]
    assert all(math.isfinite(rate) and 0 <= rate <= optim.lr * (1 + 1e-12) for rate in rates)
    if optim.schedule in ("cosine", "onecycle"):
        assert rates[-1] == pytest.approx(optim.lr * optim.final_factor, rel=1e-9, abs=1e-12 * optim.lr)
    if optim.schedule == "onecycle" and round(0.3 * steps):
        assert rates[0] == pytest.approx(optim.lr * optim.start_factor)
    warmup = steps_of(optim.warmup) or (round(0.3 * steps) if optim.schedule == "onecycle" else 0)
    rising, falling = rates[: warmup + 1], rates[warmup:]
    slack = 1e-12 * optim.lr
    if optim.schedule not in ("step", "multistep"):
        assert all(a <= b + slack for a, b in pairwise(rising))
    assert all(a >= b - slack for a, b in pairwise(falling))
