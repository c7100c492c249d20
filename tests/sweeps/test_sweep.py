"""Sweep files: what they expand to, what stays when they are edited, and where a sweep stands, from files alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from launch.sweep import backends, slurm, status
from launch.sweep import plan as plans
from launch.sweep.commands import Submission, retry, run_task, start_sweep
from launch.sweep.expand import expand
from launch.sweep.expand import write as write_plan
from launch.sweep.job import record_start, reset_job, training_command
from launch.sweep.notes import exit_text, write_note
from launch.sweep.plan import Plan, find_plan
from launch.sweep.status import job_status, job_statuses
from stn.config.resolve import resolve, signature
from stn.config.seed_list import parse_seeds
from stn.config.yaml_files import load_yaml, read_mapping
from stn.runs.directory import RunDir
from tests.support.paths import ROOT
from tests.support.records import metric
from tests.support.sweeps import TWO_CELLS, add_result, expand_sweep, launch, save_plan, write_sweep

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


def test_what_is_excluded_is_left_out(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": {"arch": ["stn_slx", "stn_slq"]}}, "arch stn_slq: no architecture 'stn_slq'; did you mean 'stn_sl"),
        ({"grid": {"archs": ["cnn"]}}, "unknown key 'archs'; did you mean 'arch'"),
        ({"grid": {"arch": []}}, "grid.arch has no values"),
        ({"grid": {"arch": "cnn"}}, "grid.arch: input should be a valid list"),
        ({"grid": {"recipe": ["s2_cov"]}}, "no recipe 's2_cov'; did you mean 's2_conv'"),
        ({"grid": {"arch": ["cnn", "cnn"]}}, "arch cnn is the same experiment as an earlier combination"),
        ({"sed": "0-3"}, "unknown key 'sed'; did you mean 'seeds'"),
        ({"seeds": "0-3,2"}, "names a seed twice"),
        ({"seeds": None}, "seeds: Field required"),
        ({"base": {"seeds": "0-3"}}, "'seeds' is not for base or grid"),
        ({"base": {"epochs": 0}}, "epochs: input should be greater than 0"),
        ({"base": {"optim.momentum": 0.9}}, "optim.name adamw takes no momentum"),
        ({"grid": {"arch": ["cnn", "stn_cx"], "arch.depth": [1]}}, "cnn has no option 'depth'"),
        ({"exclude": [{"arch": "stn_cx"}]}, "exclude {'arch': 'stn_cx'} matches no combination"),
        ({"exclude": [{"dataset": "mnist"}]}, "exclude leaves no combination"),
        ({"time": "1:30:00"}, "such as '90 minutes'"),
        ({"time": 5400}, "such as '90 minutes'"),
        ({"seeds_per_job": 0}, "seeds_per_job: input should be greater than 0"),
        ({"exclude": [{"arch.nme": "x"}]}, "unknown key 'nme'; did you mean 'name'"),
        ({"exclude": [{"foo.bar": 1}]}, "unknown key 'foo'"),
        ({"recipe": "s2_conv", "grid": {"recipe": ["s2_coord"]}}, "give recipe once"),
        ({"base": {"processes": 2}}, "'processes' is not for base or grid"),
        ({"memory": "lots"}, "memory: string should match pattern"),
        ({"name": "../x"}, "cannot be a folder's name"),
        ({"name": "a b"}, "is not a valid folder name"),
        ({"name": "a\nrm -rf ~"}, "cannot be a folder's name"),
        ({"name": "$(rm)"}, "is not a valid folder name"),
        ({"seeds": "0 1"}, "seeds: cannot read '0 1'; write numbers and ranges with commas between: 0,1"),
        ({"time": f"{10**9} days"}, "such as '90 minutes'"),
        ({"cpus": 10**6}, "cpus: input should be less than or equal to 1024"),
        ({"grid": {"arch": [["cnn"]]}}, "arch: name: input should be a valid string"),
        (
            {"seeds": "0-999999", "seeds_per_job": 1},
            "2,000,000 jobs; a sweep has at most 10,000 cells and 100,000",
        ),
        ({"grid": {"lr": [*range(1, 1001)], "batch_size": [*range(1, 1001)]}}, "1,000,000 cells"),
        ({"grid": {"lr": [*range(1, 201)], "batch_size": [*range(1, 101)]}}, "20,000 cells, 20,000 jobs"),
        ({"grid": {f"k{i}": [*range(500)] for i in range(30)}}, "a sweep has at most"),
    ],
)
def test_bad_input_is_one_clear_message(change: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two") as error:
        expand_sweep(tmp_path, TWO_CELLS | change)
    assert message in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_an_edit_of_how_it_runs_reaches_the_jobs(tmp_path: Path) -> None:
    """What does not change the science does not change a cell's signature."""
    first = save_plan(tmp_path, TWO_CELLS)
    second = save_plan(tmp_path, TWO_CELLS | {"base": TWO_CELLS["base"] | {"log": {"every": "7 steps"}}})
    assert second.jobs == first.jobs
    assert load_yaml(second.cell_file(second.jobs[0])).log.every == "7 steps"


def test_what_is_left_empty_is_left_out(tmp_path: Path) -> None:
    plan = save_plan(tmp_path, TWO_CELLS | {"name": None, "exclude": None, "base": None, "memory": None})
    assert load_yaml(plan.cell_file(plan.jobs[0])).log.name == plan.experiment.name == "two"


def test_what_is_excluded_is_read_as_the_grid_is(tmp_path: Path) -> None:
    given = TWO_CELLS | {"grid": {"arch": ["cnn"], "lr": ["1e-3", 0.01]}, "exclude": [{"lr": "1e-3"}]}
    assert [cell.config.optim.lr for cell in expand_sweep(tmp_path, given).cells] == [0.01]
    sections = [{"name": "stn_cx", "depth": 2}, {"name": "cnn"}]
    given = TWO_CELLS | {"grid": {"arch": sections}, "exclude": [{"arch": "stn_cx"}]}
    assert [cell.config.arch.name for cell in expand_sweep(tmp_path, given).cells] == ["cnn"]
    depths = {"arch.depth": [[0, 1], [1]]}
    given = TWO_CELLS | {"grid": {"arch": ["stn_slx"], **depths}, "exclude": [{"arch.depth": [1]}]}
    assert [cell.config.arch.depth for cell in expand_sweep(tmp_path, given).cells] == [(0, 1)]


def test_a_damaged_manifest_is_no_smaller_sweep(tmp_path: Path) -> None:
    manifest = save_plan(tmp_path, TWO_CELLS).folder / "manifest.jsonl"
    row = json.loads(manifest.read_text().splitlines()[0])
    odd = [
        {"sig": "../../x"},
        {"sig": "/etc"},
        {"sig": row["sig"] + "\n"},
        {"seeds": "0/1"},
        {"seeds": [0]},
        {"arch": 5},
    ]
    odd += [{"arch": "x" * 10**5}, {"setting": None}, {"more": 1}]
    whole = manifest.read_text()
    for damage in ("{", '{"sig": "x"}\n', "[]", "[" * 10**5, *(json.dumps(row | change) for change in odd)):
        manifest.write_text(whole + damage)
        with pytest.raises(ValueError, match="is damaged; remove its manifest"):
            plans.load_plan(manifest.parent)
    for damage in ("{", "[]"):
        manifest.write_text(whole + damage)
        done = launch("status", "two", "--runs", tmp_path / "runs")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert "is damaged; remove its manifest.jsonl" in done.stderr


@pytest.mark.parametrize(
    "change", [{"name": "a\nrm -rf ~\n"}, {"name": "$(rm)"}, {"time": "x"}, {"memory": "1G\nrm"}, {"seeds": "x"}]
)
def test_what_a_script_runs_is_checked_where_it_is_read(tmp_path: Path, change: dict) -> None:
    folder = save_plan(tmp_path, TWO_CELLS).folder
    sweep = read_mapping(folder / "sweep.yaml")
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep | change))
    with pytest.raises(ValueError, match="is damaged"):
        plans.load_plan(folder)


def test_a_folder_with_a_line_break_is_in_no_script(tmp_path: Path) -> None:
    plan = save_plan(tmp_path, TWO_CELLS)
    with pytest.raises(ValueError, match="line break in its name"):
        slurm.array_script(plan._replace(folder=tmp_path / "a\nrm -rf ~"), tmp_path / "jobs-0.txt", 1, None)


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


# ---- where it stands


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Jobs: done, failed by itself, running, stopped, killed, crashed, never begun, given up."""
    plan = save_plan(tmp_path, TWO_CELLS | {"seeds": "0-7", "seeds_per_job": 2})
    runs = [RunDir(plan.experiment / job.sig / job.block) for job in plan.jobs]
    for seed, acc in ((0, 0.9), (1, 0.8)):
        add_result(plan, plan.jobs[0], seed, acc)
    add_result(plan, plan.jobs[1], 2)
    add_result(plan, plan.jobs[1], 3, status="failed", reason="loss is nan at step 3")
    runs[2].lease.take(print)
    runs[2].write_status("running", seeds="4-5", step=10, steps=20)
    add_result(plan, plan.jobs[2], 4)
    runs[3].write_status("stopped", step=10, steps=20)
    runs[4].write_status("running", step=10, steps=20)
    runs[5].write_status("failed", reason="RuntimeError: boom")
    write_note(plan, plan.jobs[7], {"error": "given up after 4 starts without progress"})
    return plan


def test_states_are_told_from_files(plan: Plan) -> None:
    states = [one.state for one in job_statuses(plan)]
    assert states == ["done", "failed", "running", "stopped", "stopped", "failed", "waiting", "failed"]
    cnn, slx = status.cell_table(job_statuses(plan))
    assert {state: cnn[state] for state in status.STATES} == {
        "done": 4,
        "running": 1,
        "waiting": 0,
        "stopped": 2,
        "failed": 1,
    }
    assert (cnn["missing"], cnn["failed_seeds"], cnn["n"]) == ("5-7", "3", 4)
    assert cnn["mean"] == pytest.approx((0.9 + 0.8 + 0.9 + 0.9) / 4)
    assert cnn["sd"] == pytest.approx(0.05)
    assert slx["errors"] == ["RuntimeError: boom", "given up after 4 starts without progress"]


def test_status_prints_and_speaks_json(plan: Plan, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for name in ("two", tmp_path / "two.yaml", runs / "two", runs / "two" / "sweep"):
        done = launch("status", name, "--runs", runs, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["totals"] == {"done": 4, "running": 1, "waiting": 2, "stopped": 4, "failed": 5}
    text = launch("status", "two", "--runs", runs).stdout
    assert "87.50%" in text
    assert "RuntimeError: boom" in text
    unknown = launch("status", "tow", "--runs", runs)
    assert unknown.returncode == 2
    assert unknown.stderr.startswith(f"error: nothing named 'tow' in {runs}, and no sweep 'tow'; ")
    assert "has not been started" in launch("status", "smoke", "--runs", runs).stderr


def test_damaged_files_are_no_traceback(plan: Plan) -> None:
    before = [one.state for one in job_statuses(plan)]
    for job, text in zip(plan.jobs, ("", "{", "[]", "\0", "5", '{"state"', "nul", "x"), strict=True):
        run = RunDir(plan.experiment / job.sig / job.block)
        run.path.mkdir(exist_ok=True, parents=True)
        run.status.write_text(text)
        plan.note_file(job).parent.mkdir(exist_ok=True)
        plan.note_file(job).write_text(text)
    after = [one.state for one in job_statuses(plan)]
    assert after[:3] == before[:3]
    assert set(after[3:]) == {"stopped"}


ODD = ["x", None, [1], {"a": 1}, float("nan"), 10**400, -1, True]


def test_wrong_values_in_files_of_a_run_are_no_traceback(plan: Plan) -> None:
    """Valid JSON; a job that has no result by now is in some state, and the table is printed."""
    job = plan.jobs[3]
    run = RunDir(plan.experiment / job.sig / job.block)
    other = RunDir(run.path.with_name("6"))
    other.write_status("stopped")
    good = {"state": "failed", "time": 1.0, "seeds": "6-7", "step": 1, "steps": 2, "reason": "x"}
    note = {"starts": 1, "idle": 1, "progress": [1, 2], "error": "x"}
    other.lease.take(print)
    held = other.lease.newest()[1]
    other.lease.release()
    files = {run.status: good, plan.note_file(job): note, run.results: {"seed": 6, "test_acc": 0.5}}
    for file, values in (files | {run.path / ".claim" / "1": held}).items():
        file.parent.mkdir(exist_ok=True)
        for key in values:
            for odd in ODD:
                file.write_text(json.dumps(values | {"status": "finished", key: odd}) + "\n")
                cells = status.cell_table(job_statuses(plan))
                assert sum(cell[state] for cell in cells for state in status.STATES) == 16
                status.render_cells("two", cells, dict.fromkeys(status.STATES, 0))
                json.dumps(cells)
        file.unlink()


def test_a_note_is_read_as_it_was_written(plan: Plan) -> None:
    write_note(plan, plan.jobs[0], {"starts": 2, "idle": 1, "progress": [1, 2]})
    assert status.read_note(plan, plan.jobs[0]) == {"starts": 2, "idle": 1, "progress": [1, 2]}
    write_note(plan, plan.jobs[0], {"starts": "many"})
    assert status.read_note(plan, plan.jobs[0]) == {}


def test_foreign_files_among_run_directories_are_none(plan: Plan) -> None:
    before = [(one.state, one.missing) for one in job_statuses(plan)]
    job = plan.jobs[6]
    folder = plan.experiment / job.sig
    (folder / "-").mkdir(parents=True)
    (folder / ".DS_Store").write_text("of a file browser")
    assert [(one.state, one.missing) for one in job_statuses(plan)] == before
    RunDir(folder / "4-7").add_results([{"seed": 4, "status": "finished", "test_acc": 0.5}])
    assert job_status(plan, job).missing == [5]


def test_rows_of_other_blocks_count(plan: Plan) -> None:
    """Somebody trained seeds 12-15 of the same experiment by hand."""
    job = plan.jobs[6]
    RunDir(plan.experiment / job.sig / "4-7").add_results([{"seed": 4, "status": "finished", "test_acc": 0.5}])
    assert job_status(plan, job).missing == [5]


def test_a_dry_run_says_what_would_run_and_writes_nothing(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, TWO_CELLS)
    done = launch("sweep", path, "--dry-run", "--runs", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    assert "2 cells, 8 seeds, 2 jobs" in done.stdout
    assert "stn_slx mnist seeds 0-3" in done.stdout
    assert not (tmp_path / "runs").exists()


def test_only_missing_leaves_out_what_failed_and_what_is_at_work(plan: Plan, tmp_path: Path) -> None:
    words = ("sweep", tmp_path / "two.yaml", "--dry-run", "--runs", tmp_path / "runs")
    every, missing = (launch(*words, *more).stdout for more in ((), ("--only-missing",)))
    listed = [[job for job in plan.jobs if job.id in text] for text in (every, missing)]
    assert listed[0] == plan.jobs[2:]
    assert listed[1] == [plan.jobs[i] for i in (3, 4, 6)]


def test_a_job_without_progress_is_given_up_and_keeps_how_it_ended(plan: Plan) -> None:
    job, log = plan.jobs[3], plan.log_file(plan.jobs[3])
    log.parent.mkdir(exist_ok=True)
    log.write_text("epoch 1\nslurmstepd: error: Detected 1 oom_kill event\n")
    assert [record_start(plan, job, log) for _ in range(4)] == [True] * 4
    RunDir(plan.experiment / job.sig / job.block).write_status("running", step=12, steps=20)
    assert [record_start(plan, job, log) for _ in range(5)] == [True] * 4 + [False]
    why = "given up after 4 starts without progress; the last one: "
    assert job_status(plan, job).error == f"{why}epoch 1\nslurmstepd: error: Detected 1 oom_kill event"
    reset_job(plan, job_status(plan, job))
    assert record_start(plan, job, log)
    write_note(plan, job, {"progress": [0, 12], "idle": 3, "end": "killed by SIGKILL\nepoch 2"})
    assert not record_start(plan, job, log)
    assert job_status(plan, job).error == f"{why}killed by SIGKILL\nepoch 2"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (3, "exit code 3"),
        (-9, "killed by SIGKILL, perhaps for want of memory"),
        (137, "killed by SIGKILL, perhaps for want of memory"),
        (-11, "killed by SIGSEGV"),
        (-100, "killed by signal 100"),
    ],
)
def test_an_end_is_told_by_its_signal(code: int, text: str) -> None:
    assert exit_text(code) == text


def test_a_job_that_moves_on_between_its_stops_is_not_given_up(plan: Plan) -> None:
    """As trainer and Slurm do it at each time limit."""
    job = plan.jobs[3]
    run = RunDir(plan.experiment / job.sig / job.block)
    for i in range(6):
        assert record_start(plan, job, plan.log_file(job))
        run.write_status("running", seeds=job.seeds, step=1000 * (i + 1), steps=10**6)
        run.write_end("stopped", reason="SIGTERM", finished=0, failed=[])


def test_a_job_trains_into_the_folder_of_its_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_plan(expand(str(write_sweep(tmp_path, TWO_CELLS)), "runs"))
    (tmp_path / "runs").rename(tmp_path / "moved")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    plan = find_plan(str(tmp_path / "moved" / "two"), "runs")
    words = training_command(plan, plan.jobs[0])
    assert words[words.index("--runs") + 1] == str(tmp_path / "moved")


def test_no_worker_is_a_mistake(tmp_path: Path) -> None:
    done = launch("sweep", write_sweep(tmp_path, TWO_CELLS), "--max-parallel", 0, "--runs", tmp_path / "runs")
    assert (done.returncode, done.stderr) == (2, "error: --max-parallel must be 1 or more, not 0\n")
    assert not (tmp_path / "runs").exists()


def test_what_has_failed_is_forgotten_by_retry_alone(plan: Plan) -> None:
    reset_job(plan, job_statuses(plan)[1], drop_failed=True)
    assert job_statuses(plan)[1].missing == [3]
    reset_job(plan, job_statuses(plan)[5])
    assert job_statuses(plan)[5].state == "stopped"


# ---- back ends


class FakeBackend:
    """A scheduler that keeps what it is given in its queue."""

    runs_here = False

    def __init__(self) -> None:
        self.queue: list[str] = []

    def active_jobs(self, plan: Plan, release_held: bool) -> set[str]:
        return set(self.queue)

    def preview(self, plan: Plan, jobs: list[plans.Job], max_parallel: int | None) -> str:
        return f"would queue {len(jobs)}"

    def submit(self, plan: Plan, jobs: list[plans.Job], max_parallel: int | None) -> int:
        self.queue += [job.id for job in jobs][:max_parallel]
        return 0

    def requeue(self) -> None:
        pytest.fail("only a task on its node requeues its job")


def test_another_scheduler_is_one_entry_of_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake, runs = FakeBackend(), str(tmp_path / "runs")
    monkeypatch.setitem(backends.BACKENDS, "fake", fake)
    path = str(write_sweep(tmp_path, TWO_CELLS))
    assert start_sweep(path, Submission(on="fake", dry_run=True, runs=runs)) == 0
    assert "would queue 2" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
    assert start_sweep(path, Submission(on="fake", max_parallel=1, runs=runs)) == 0
    plan = find_plan("two", runs)
    assert fake.queue == [plan.jobs[0].id]
    assert retry("two", Submission(on="fake", runs=runs)) == 0
    assert fake.queue == [job.id for job in plan.jobs], "what is queued is not submitted again"
    assert retry("two", Submission(on="fake", runs=runs)) == 0
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no back end 'slrum' for --on; did you mean 'slurm'"):
        retry("two", Submission(on="slrum", runs=runs))


# ---- Slurm, as far as it goes without one


def test_the_array_script_is_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = TWO_CELLS | {"time": "2 hours", "gpus": 1, "cpus": 4, "memory": "8G", "seeds_per_job": 2}
    plan = save_plan(tmp_path, given)
    text = slurm.array_script(plan, plan.folder / "slurm" / "x" / "jobs-0.txt", 4, 3)
    text = text.replace(str(tmp_path), "HERE").replace(str(ROOT), "ROOT")
    golden = ROOT / "tests" / "golden" / "array.sh"
    assert text == golden.read_text()
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=True).returncode == 0


def test_without_slurm_one_line_says_so_and_a_dry_run_shows_the_script(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, TWO_CELLS)
    bare = {"PATH": str(Path(sys.executable).parent)}
    done = launch("sweep", path, "--on", "slurm", "--runs", tmp_path / "runs", **bare)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no Slurm on this machine")
    assert len(done.stderr.splitlines()) == 1
    shown = launch("sweep", path, "--on", "slurm", "--dry-run", "--runs", tmp_path / "other", **bare)
    assert "#SBATCH --array=0-1" in shown.stdout
    assert not (tmp_path / "other").exists()


def test_a_controller_that_does_not_answer_hides_no_script(tmp_path: Path) -> None:
    path, programs = write_sweep(tmp_path, TWO_CELLS), tmp_path / "bin"
    programs.mkdir()
    (programs / "scontrol").write_text("#!/bin/sh\necho 'scontrol: error: no controller' >&2\nexit 1\n")
    (programs / "scontrol").chmod(0o755)
    away = {"PATH": f"{programs}:/usr/bin:/bin"}
    asked = launch("sweep", path, "--on", "slurm", "--runs", tmp_path / "runs", **away)
    assert (asked.returncode, asked.stderr.strip()) == (2, "error: scontrol: error: no controller")
    for name in ("003", "old"):
        (tmp_path / "other" / "two" / "sweep" / "slurm" / name).mkdir(parents=True)
    shown = launch("sweep", path, "--on", "slurm", "--dry-run", "--runs", tmp_path / "other", **away)
    assert (shown.returncode, "#SBATCH --array=0-" in shown.stdout) == (0, True)
    assert "slurm/004/jobs-0.txt" in shown.stdout, "no submission is written over"


FAKE = """#!{python}
import os, pathlib, sys
log = pathlib.Path(os.environ["FAKE"])
with (log / "calls").open("a") as file:
    print(pathlib.Path(sys.argv[0]).name, *sys.argv[1:], file=file)
name = pathlib.Path(sys.argv[0]).name
if name == "scontrol":
    print("MaxArraySize            = 3")
elif name == "sbatch":
    count = len((log / "calls").read_text().splitlines())
    print(100 + count)
elif name == "squeue":
    array = sys.argv[sys.argv.index("--job") + 1].split(",")[-1]
    reason = "launch failed requeued held" if (log / "held").exists() else "Resources"
    print(array, "0" if (log / "queued").exists() else "-", array + "_0", reason, sep="|")
"""


def fake_slurm(tmp_path: Path) -> dict[str, str]:
    """Commands that note how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sbatch", "scontrol", "squeue"):
        (folder / name).write_text(FAKE.format(python=sys.executable))
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "FAKE": str(tmp_path)}


def test_a_large_sweep_is_split_and_a_report_follows(tmp_path: Path) -> None:
    env, path = fake_slurm(tmp_path), write_sweep(tmp_path, TWO_CELLS | {"seeds_per_job": 1})
    done = launch("sweep", path, "--on", "slurm", "--runs", tmp_path / "runs", "--max-parallel", 2, **env)
    assert done.returncode == 0, done.stderr
    calls = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    submitted = [call for call in calls if call[0] == "sbatch"]
    assert len(submitted) == 4
    arrays = sorted(tmp_path.glob("runs/two/sweep/slurm/*/array-*.sh"))
    assert [line for a in arrays for line in a.read_text().splitlines() if "--array" in line] == [
        "#SBATCH --array=0-2%2",
        "#SBATCH --array=0-2%2",
        "#SBATCH --array=0-1%2",
    ]
    assert [word for word in submitted[1] if "dependency" in word] == ["--dependency=afterany:102"]
    assert "--dependency=afterany:102:103:104" in submitted[3]
    lists = sorted(tmp_path.glob("runs/two/sweep/slurm/*/jobs-*.txt"))
    assert len({line for one in lists for line in one.read_text().splitlines()}) == 8


def test_damaged_submissions_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = save_plan(tmp_path, TWO_CELLS)
    folder = plan.folder / "slurm" / "001"
    folder.mkdir(parents=True)
    (plan.folder / "outside.txt").write_text("outside\n")
    (folder / "jobs-0.txt").write_text(f"{plan.jobs[0].id}\n")
    entries = [{"array": "7", "jobs": "jobs-0.txt"}, {"array": "8", "jobs": "../../outside.txt"}, {"array": "9"}]
    entries += [{"jobs": "jobs-0.txt"}, {"array": 7, "jobs": [1]}, {"array": "10", "jobs": "jobs-9.txt"}]
    entries += [{"array": "7;rm", "jobs": "jobs-0.txt"}, {"array": "11", "jobs": "array-0.json"}]
    for i, entry in enumerate(entries):
        (folder / f"array-{i}.json").write_text(json.dumps(entry))
    asked: list[tuple[str, ...]] = []

    def answer(*words: str) -> str:
        asked.append(words)
        return "7|0|7_0|Resources\n7|5|7_5|Resources\n8|0|8_0|Resources\n7|N/A|7|x\n"

    monkeypatch.setattr(slurm, "run_slurm", answer)
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert slurm.Slurm().active_jobs(plan, release_held=False) == {plan.jobs[0].id}
    assert asked[0][asked[0].index("--job") + 1] == "7"


def test_retry_leaves_alone_what_is_queued(tmp_path: Path) -> None:
    env, path = fake_slurm(tmp_path), write_sweep(tmp_path, TWO_CELLS)
    assert launch("sweep", path, "--on", "slurm", "--runs", tmp_path / "runs", **env).returncode == 0
    (tmp_path / "queued").touch()
    done = launch("retry", "two", "--on", "slurm", "--runs", tmp_path / "runs", **env)
    assert done.returncode == 0, done.stderr
    assert "release" not in (tmp_path / "calls").read_text()
    newest = sorted(tmp_path.glob("runs/two/sweep/slurm/*/jobs-*.txt"))[-1].read_text().splitlines()
    jobs = [json.loads(line) for line in (tmp_path / "runs/two/sweep/manifest.jsonl").read_text().splitlines()]
    assert newest == [f"{jobs[1]['sig']}/{jobs[1]['seeds']}"]
    (tmp_path / "held").touch()
    assert launch("retry", "two", "--on", "slurm", "--runs", tmp_path / "runs", **env).returncode == 0
    assert "scontrol release" in (tmp_path / "calls").read_text()


def test_a_task_trains_the_job_of_its_line(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, int | None, int]] = []

    def recorded(plan: Plan, job: plans.Job, requeue: object) -> int:
        started.append((job.id, plan.sweep.gpus, plan.sweep.cpus))
        return 0

    monkeypatch.setattr("launch.sweep.commands.run_as_task", recorded)
    lines = [plan.jobs[5].id, plan.jobs[2].id, "nothing/0"]
    (tmp_path / "jobs.txt").write_text("".join(f"{line}\n" for line in lines))
    assert [run_task(plan.folder, tmp_path / "jobs.txt", i, gpus=2, cpus=3) for i in range(3)] == [0, 0, 0]
    assert started == [(plan.jobs[5].id, 2, 3), (plan.jobs[2].id, 2, 3)], "a job that is no longer planned is not run"
    for file, index in (("jobs.txt", 3), ("jobs.txt", -1), ("none.txt", 0)):
        with pytest.raises(ValueError, match=rf"{file} has no job {index}; it has \d jobs, from 0"):
            run_task(plan.folder, tmp_path / file, index, gpus=0, cpus=1)


def test_a_task_is_requeued_unless_slurm_has_started_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, ...]] = []

    def answer(*words: str) -> str:
        calls.append(words)
        return "JobId=7 Restarts=1 Requeue=1"

    monkeypatch.setattr(slurm, "run_slurm", answer)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    for name, value in (("SLURM_ARRAY_JOB_ID", "5"), ("SLURM_ARRAY_TASK_ID", "2"), ("SLURM_RESTART_COUNT", "0")):
        monkeypatch.setenv(name, value)
    slurm.Slurm().requeue()
    assert ("scontrol", "requeue", "5_2") not in calls
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    slurm.Slurm().requeue()
    assert ("scontrol", "requeue", "5_2") in calls


def test_the_newest_rows_are_found_before_the_poses_of_many_seeds(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.add_metrics([metric(0, 8), metric(0, 9, kind="eval")])
    points = {"applied": [0.1234] * 200, "predicted": [0.1234] * 200}
    run.add_metrics([metric(seed, 9, kind="pose", degrees=points) for seed in range(64)])
    found = status.last_metrics(run)
    assert (found["train"]["step"], found["eval"]["step"], found["pose"]["seed"]) == (8, 9, 63)
    assert run.metrics.stat().st_size > 1 << 16
