"""Sweep files: what they expand to, and what stays when they are edited."""

import subprocess
import sys
from pathlib import Path

from launch.sweep import plan as plans
from launch.sweep.expand import expand
from launch.sweep.expand import write as write_plan
from stn.config.resolve import resolve, signature
from stn.config.seed_list import parse_seeds
from stn.config.yaml_files import load_yaml
from tests.support.paths import ROOT
from tests.support.sweeps import TWO_CELLS, expand_sweep, launch, save_plan, write_sweep

# ---- expansion


def test_cells_are_all_combinations_and_jobs_blocks_of_their_seeds(tmp_path: Path) -> None:
    given = TWO_CELLS | {
        "grid": {"arch": ["cnn", "stn_slx"], "dataset": ["mnist", "mnist_r"], "optim.lr": [0.01, 0.02]}
    }
    change = expand_sweep(tmp_path, given | {"seeds": "0-9", "seeds_per_job": 4})
    assert len(change.cells) == 8
    assert {(c.config.arch.name, c.config.data.name, c.config.optim.lr) for c in change.cells} == {
        (a, d, lr) for a in ("cnn", "stn_slx") for d in ("mnist", "mnist_r") for lr in (0.01, 0.02)
    }
    assert {c.setting for c in change.cells} == {"optim.lr=0.01", "optim.lr=0.02"}
    assert [job.seeds for job in change.plan.jobs[:3]] == ["0-3", "4-7", "8-9"]
    assert len({job.id for job in change.plan.jobs}) == 24
    assert not (tmp_path / "runs").exists()


def test_a_cell_is_the_experiment_that_train_py_would_run(tmp_path: Path) -> None:
    given = {"recipe": "s2_conv", "base": {"epochs": 3, "log": {"wandb": "disabled"}}, "seeds": "0-1"}
    plan = save_plan(tmp_path, given)
    config = resolve(load_yaml(plan.cell_file(plan.jobs[0])))
    assert signature(config) == plan.jobs[0].sig
    recipe = load_yaml(ROOT / "configs" / "s2_conv.yaml")
    by_hand = recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": 3})})
    assert signature(resolve(by_hand)) == plan.jobs[0].sig
    assert (config.log.name, config.log.runs, config.log.wandb) == ("two", str(tmp_path / "runs"), "disabled")


def test_recipes_are_a_dimension_and_a_length_replaces_theirs(tmp_path: Path) -> None:
    grid = {"recipe": ["finnveden_r", "finnveden_t"], "arch": ["cnn", "stn_cx"]}
    change = expand_sweep(
        tmp_path, {"grid": grid, "base": {"epochs": 1, "optim.milestones": ["1 epochs"]}, "seeds": "0"}
    )
    assert {(c.config.data.name, c.config.optim.lr) for c in change.cells} == {("mnist_r", 0.02), ("mnist_t", 0.01)}
    assert {c.config.train.steps for c in change.cells} == {235}


def test_a_baseline_joins_a_sweep_of_transformers(tmp_path: Path) -> None:
    given = {"recipe": "s2_conv", "base": {"arch.iterations": 2}, "grid": {"arch": ["cnn", "stn_c0"]}, "seeds": "0"}
    cnn, st = [cell.config.arch for cell in expand_sweep(tmp_path, given).cells]
    assert (cnn.padding, cnn.iterations, st.padding, st.iterations) == (None, None, "border", 2)


def test_sections_can_be_values(tmp_path: Path) -> None:
    grid = {"arch": [{"name": "stn_cx", "depth": 2}, {"name": "stn_slx", "depth": 1}]}
    change = expand_sweep(tmp_path, TWO_CELLS | {"grid": grid})
    assert [(c.config.arch.name, c.config.arch.depth) for c in change.cells] == [("stn_cx", 2), ("stn_slx", 1)]


def test_excluded_combinations_are_left_out(tmp_path: Path) -> None:
    grid = {"arch": ["cnn", "stn_slx"], "recipe": ["finnveden_r", "finnveden_t"]}
    given = {"grid": grid, "seeds": "0", "exclude": [{"arch": "cnn", "dataset": "mnist_t"}]}
    cells = expand_sweep(tmp_path, given).cells
    assert {(c.config.arch.name, c.config.data.name) for c in cells} == {
        ("cnn", "mnist_r"),
        ("stn_slx", "mnist_r"),
        ("stn_slx", "mnist_t"),
    }
    by_recipe = given | {"exclude": [{"recipe": "finnveden_t"}]}
    assert {c.config.data.name for c in expand_sweep(tmp_path, by_recipe).cells} == {"mnist_r"}


def test_an_edit_of_how_it_runs_reaches_the_jobs(tmp_path: Path) -> None:
    """What does not change the science does not change a cell's signature."""
    first = save_plan(tmp_path, TWO_CELLS)
    second = save_plan(tmp_path, TWO_CELLS | {"base": TWO_CELLS["base"] | {"log": {"every": "7 steps"}}})
    assert second.jobs == first.jobs
    assert load_yaml(second.cell_file(second.jobs[0])).log.every == "7 steps"


def test_empty_keys_are_ignored(tmp_path: Path) -> None:
    plan = save_plan(tmp_path, TWO_CELLS | {"name": None, "exclude": None, "base": None, "memory": None})
    assert load_yaml(plan.cell_file(plan.jobs[0])).log.name == plan.experiment.name == "two"


def test_values_in_exclude_are_read_like_those_of_the_grid(tmp_path: Path) -> None:
    given = TWO_CELLS | {"grid": {"arch": ["cnn"], "lr": ["1e-3", 0.01]}, "exclude": [{"lr": "1e-3"}]}
    assert [cell.config.optim.lr for cell in expand_sweep(tmp_path, given).cells] == [0.01]
    sections = [{"name": "stn_cx", "depth": 2}, {"name": "cnn"}]
    given = TWO_CELLS | {"grid": {"arch": sections}, "exclude": [{"arch": "stn_cx"}]}
    assert [cell.config.arch.name for cell in expand_sweep(tmp_path, given).cells] == ["cnn"]
    depths = {"arch.depth": [[0, 1], [1]]}
    given = TWO_CELLS | {"grid": {"arch": ["stn_slx"], **depths}, "exclude": [{"arch.depth": [1]}]}
    assert [cell.config.arch.depth for cell in expand_sweep(tmp_path, given).cells] == [(0, 1)]


def test_an_edit_adds_and_removes_only_what_changed(tmp_path: Path) -> None:
    first = save_plan(tmp_path, TWO_CELLS | {"seeds": "0-5", "seeds_per_job": 4})
    more = expand_sweep(tmp_path, TWO_CELLS | {"seeds": "0-9", "seeds_per_job": 4})
    assert {job.id for job in first.jobs} < {job.id for job in more.plan.jobs}
    assert {job.seeds for job in more.added} == {"6-9"}
    assert more.removed == []
    write_plan(more)
    other = expand_sweep(
        tmp_path, TWO_CELLS | {"grid": {"arch": ["cnn", "stn_cx"]}, "seeds": "0-9", "seeds_per_job": 4}
    )
    assert {job.arch for job in other.added} == {"stn_cx"}
    assert {job.arch for job in other.removed} == {"stn_slx"}
    same = expand_sweep(tmp_path, TWO_CELLS | {"seeds": "0-9", "seeds_per_job": 2})
    assert (same.added, same.removed) == ([], [])


def test_every_sweep_that_ships_expands(tmp_path: Path) -> None:
    found = {path.stem: expand(path.stem, str(tmp_path)) for path in plans.FILES.glob("*.yaml")}
    assert set(found) >= {"paper_mnist", "conv_vs_coord", "depth", "cifar10", "smoke"}
    paper = found["paper_mnist"]
    assert len(paper.cells) == 15
    assert sum(len(parse_seeds(job.seeds)) for job in paper.plan.jobs) == 150
    smoke = found["smoke"]
    assert (len(smoke.cells), len(smoke.plan.jobs)) == (3, 12)
    for path in plans.FILES.glob("*.yaml"):
        assert f"configs/sweeps/{path.name}" in path.read_text().split("\n\n")[0], f"{path}: no command on top"


def test_launch_never_imports_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from launch import __main__; from launch.sweep.expand import expand\n"
        f"expand('paper_mnist', {str(tmp_path)!r})\n"
        "print({'torch', 'numpy', 'wandb', 'accelerate'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_dry_run_says_what_would_run_and_writes_nothing(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, TWO_CELLS)
    done = launch("sweep", path, "--dry-run", "--runs", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    assert "2 cells, 8 seeds, 2 jobs" in done.stdout
    assert "stn_slx mnist seeds 0-3" in done.stdout
    assert not (tmp_path / "runs").exists()
