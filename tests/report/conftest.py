"""A sweep of two cells with results, for several test modules."""

from pathlib import Path

import pytest

from launch.report.analysis.cells import Cell
from launch.sweep.plan import Plan
from stn.config.seed_list import parse_seeds
from stn.config.yaml_files import dump_yaml, load_yaml
from stn.runs.directory import RunDir
from tests.support.sweeps import TWO_CELLS, add_result, save_plan


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Two architectures on eight seeds each; one seed of the second has failed, one is missing."""
    plan = save_plan(tmp_path, TWO_CELLS | {"seeds": "0-7", "seeds_per_job": 4})
    for job in plan.jobs:
        run = RunDir(plan.experiment / job.sig / job.block)
        run.path.mkdir(parents=True)
        run.config.write_text(dump_yaml(load_yaml(plan.cell_file(job))))
        for seed in parse_seeds(job.seeds):
            second = job.arch == "stn_slx"
            if second and seed == 5:
                add_result(plan, job, seed, status="failed", reason="loss is nan at step 3")
            elif not (second and seed == 6):
                acc = 0.9 + 0.01 * second + 0.001 * seed * (2 if second else 1)
                add_result(plan, job, seed, acc, best_test_acc=acc + 0.01, params=1000, images_per_s=1e4, wall_s=3.0)
    return plan


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    from tests.support.wandb_report import cells_of  # here, because it imports wandb

    return cells_of(tmp_path, {"arch": ["cnn", "stn_slx"], "dataset": ["mnist", "mnist_r"]})
