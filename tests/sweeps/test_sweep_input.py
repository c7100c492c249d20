"""Bad sweep files and damaged plans: one clear message, and no smaller sweep."""

import json
from pathlib import Path

import pytest
import yaml

from launch.sweep import plan as plans
from launch.sweep import slurm
from stn.config.yaml_files import read_mapping
from tests.support.sweeps import TWO_CELLS, expand_sweep, launch, save_plan, write_sweep


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
        ({"slurm": {1: 2}}, "slurm: unknown key '1'"),
        ({"slurm": {"partition": "gpu", None: 2}}, "slurm: unknown key 'None'"),
        ({"slurm": {True: 2}}, "slurm: unknown key 'True'"),
        ({"slurm": {1.5: 2}}, "slurm: unknown key '1.5'"),
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


def test_a_damaged_manifest_is_not_taken_for_a_smaller_sweep(tmp_path: Path) -> None:
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
def test_commands_for_a_script_are_checked_when_they_are_read(tmp_path: Path, change: dict) -> None:
    folder = save_plan(tmp_path, TWO_CELLS).folder
    sweep = read_mapping(folder / "sweep.yaml")
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep | change))
    with pytest.raises(ValueError, match="is damaged"):
        plans.load_plan(folder)


def test_a_folder_with_a_line_break_is_kept_out_of_scripts(tmp_path: Path) -> None:
    plan = save_plan(tmp_path, TWO_CELLS)
    with pytest.raises(ValueError, match="line break in its name"):
        slurm.array_script(plan._replace(folder=tmp_path / "a\nrm -rf ~"), tmp_path / "jobs-0.txt", 1, None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["swep", "smoke"], "no command 'swep'; did you mean 'sweep'?"),
        (["evaluate", "runs"], "no command 'evaluate'; that is python -m stn evaluate"),
        (["sweep"], "Missing from python -m launch sweep: STR A file, or a name of configs/sweeps/. (required)"),
        (["sweep", "smoke", "--jobs", "4"], "Unrecognized options: --jobs, 4"),
        (
            ["sweep", "smoke", "--max-parallel", "x"],
            "--max-parallel: no type matching {None}|INT could be instantiated",
        ),
        (["report"], "there is no folder runs; name a sweep or a run directory, or give --runs DIR"),
        (["export", "--to", "csv"], "there is no folder runs; name a sweep or a run directory, or give --runs DIR"),
    ],
)
def test_a_command_that_is_not_taken_is_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    done = launch(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert done.stderr.startswith(f"error: {message}")


def test_zero_workers_are_refused(tmp_path: Path) -> None:
    done = launch("sweep", write_sweep(tmp_path, TWO_CELLS), "--max-parallel", 0, "--runs", tmp_path / "runs")
    assert (done.returncode, done.stderr) == (2, "error: --max-parallel must be 1 or more, not 0\n")
    assert not (tmp_path / "runs").exists()
