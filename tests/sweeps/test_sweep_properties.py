"""Properties of the expansion of sweeps, on generated ones."""

import tempfile
from collections import Counter
from pathlib import Path

import yaml
from hypothesis import given
from hypothesis import strategies as st

from launch.sweep.expand import Change, expand, write
from stn.config.resolve import signature
from stn.config.seed_list import format_seeds, parse_seeds
from stn.config.yaml_files import load_yaml
from tests.support.properties import few

seeds = st.sets(st.integers(0, 30), min_size=1, max_size=20).map(lambda found: format_seeds(list(found)))
grids = st.fixed_dictionaries(
    {"arch": st.lists(st.sampled_from(("cnn", "stn_c0", "stn_slx")), min_size=1, max_size=3, unique=True)},
    optional={
        "lr": st.lists(st.sampled_from((0.1, 0.01, 0.001)), min_size=1, max_size=3, unique=True),
        "optim.weight_decay": st.lists(st.sampled_from((0, 0.0005)), min_size=1, max_size=2, unique=True),
    },
)
sweeps = st.fixed_dictionaries(
    {
        "base": st.just({"dataset": "mnist", "steps": 3}),
        "grid": grids,
        "seeds": seeds,
        "seeds_per_job": st.integers(1, 9),
    }
)


def expanded(folder: str, sweep: dict) -> Change:
    path = Path(folder) / "two.yaml"
    path.write_text(yaml.safe_dump(sweep))
    return expand(str(path), str(Path(folder) / "runs"))


def trained(change: Change) -> Counter:
    """Return how many jobs train each cell and seed."""
    return Counter((job.sig, seed) for job in change.plan.jobs for seed in parse_seeds(job.seeds))


def wanted(change: Change) -> Counter:
    return Counter((cell.sig, seed) for cell in change.cells for seed in parse_seeds(change.plan.sweep.seeds))


@few(40)
@given(sweeps)
def test_every_seed_of_every_cell_is_in_one_job_and_expanding_again_changes_nothing(sweep: dict) -> None:
    with tempfile.TemporaryDirectory() as folder:
        first = expanded(folder, sweep)
        assert trained(first) == wanted(first)
        assert len({job.id for job in first.plan.jobs}) == len(first.plan.jobs)
        assert all(len(parse_seeds(job.seeds)) <= sweep["seeds_per_job"] for job in first.plan.jobs)
        assert expanded(folder, sweep) == first
        write(first)
        again = expanded(folder, sweep)
        assert (again.plan, again.added, again.removed) == (first.plan, [], [])
        for cell in again.cells:
            assert signature(load_yaml(first.plan.folder / "cells" / f"{cell.sig}.yaml")) == cell.sig


@few(40)
@given(sweeps, seeds, st.integers(1, 9))
def test_other_seeds_keep_the_jobs_whose_seeds_are_still_wanted(sweep: dict, others: str, per_job: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        first = expanded(folder, sweep)
        write(first)
        second = expanded(folder, sweep | {"seeds": others, "seeds_per_job": per_job})
        assert trained(second) == wanted(second)
        left = set(parse_seeds(others))
        kept = {job.id for job in first.plan.jobs if set(parse_seeds(job.seeds)) <= left}
        ids = {job.id for job in second.plan.jobs}
        assert kept <= ids
        assert {job.id for job in second.added} == ids - {job.id for job in first.plan.jobs}
        assert {job.id for job in second.removed} == {job.id for job in first.plan.jobs} - ids


@few(30)
@given(sweeps, st.randoms(use_true_random=False))
def test_the_order_of_a_grid_s_values_does_not_decide_its_jobs(sweep: dict, rng) -> None:
    shuffled = {key: rng.sample(values, len(values)) for key, values in sweep["grid"].items()}
    with tempfile.TemporaryDirectory() as folder:
        ids = {job.id for job in expanded(folder, sweep).plan.jobs}
        assert {job.id for job in expanded(folder, sweep | {"grid": shuffled}).plan.jobs} == ids
