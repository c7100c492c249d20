"""slurm/sweep.sh in a job: what the sweep's jobs get of it."""

import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.slurm import script_environment, write_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project and the tools of a node, where cpu is the default partition; python prints its variables for sbatch."""
    partition = '[ "$3" = cpu ] && echo "PartitionName=cpu Default=YES" || echo "PartitionName=$3 Default=NO"'
    python = 'echo "launch: $*"; env | grep ^SBATCH_ | sort'
    write_project(tmp_path, {"scontrol": f'[ "$1 $2" = "show partition" ] && {{ {partition}; }}', "python": python})
    return tmp_path


def run(project: Path, **more: str) -> tuple[dict[str, str], str, str]:
    """Run the script; return the variables for sbatch that the launcher sees, and the script's output and errors."""
    words = ["bash", str(ROOT / "slurm" / "sweep.sh"), "my.yaml"]
    env = script_environment(project) | more
    done = subprocess.run(words, env=env, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told, _, launched = done.stdout.partition("launch: -P -m launch sweep my.yaml --on slurm\n")
    return dict(line.split("=", 1) for line in launched.splitlines()), told, done.stderr


def test_jobs_get_account_and_partition_of_the_job_that_submits_them(project: Path) -> None:
    seen, told, _ = run(project, SLURM_JOB_ACCOUNT="proj", SLURM_JOB_PARTITION="gpu")
    assert seen == {"SBATCH_ACCOUNT": "proj", "SBATCH_PARTITION": "gpu"}
    assert "jobs get SBATCH_PARTITION=gpu from this job" in told
    assert run(project) == ({}, "", ""), "a Slurm without accounts"


def test_the_default_partition_is_not_handed_on(project: Path) -> None:
    """Naming it would undo what a site's plugin does with jobs that name none."""
    assert run(project, SLURM_JOB_PARTITION="cpu") == ({}, "", "")


def test_the_sites_variables_win_over_those_of_the_job(project: Path) -> None:
    (project / "slurm" / "env.sh").write_text('export SBATCH_PARTITION="${SBATCH_PARTITION:-long,gpu}"\n')
    seen, told, _ = run(project, SLURM_JOB_PARTITION="gpu", SBATCH_ACCOUNT="mine", SLURM_JOB_ACCOUNT="other")
    assert seen == {"SBATCH_ACCOUNT": "mine", "SBATCH_PARTITION": "long,gpu"}
    assert told.count("\n") == 1, "this job is in one of the two partitions"
    assert "jobs get SBATCH_ACCOUNT=mine from slurm/env.sh or the environment, not other from this job" in told


@pytest.mark.parametrize("variable", ["SLURM_GPUS_ON_NODE", "SLURM_JOB_GPUS"])
def test_gpus_of_the_job_that_submits_are_warned_of(project: Path, variable: str) -> None:
    *_, warned = run(project, **{variable: "1"})
    assert warned.startswith("warning: this job holds GPUs and does not use them")
    assert warned.count("\n") == 1
