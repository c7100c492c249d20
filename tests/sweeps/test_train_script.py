"""slurm/train.sh with an srun that notes how it is called: what newer Slurms than that of tests/cluster would do."""

import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.slurm import script_environment, write_project

OF_A_TASK = {
    "SLURM_CPUS_PER_TASK": "4",
    "SLURM_CPUS_PER_GPU": "4",
    "SLURM_GPUS_PER_TASK": "1",
    "SLURM_NTASKS_PER_GPU": "1",
    "SLURM_TRES_BIND": "gres/gpu:per_task:1",
    "SLURM_TRES_PER_TASK": "cpu=4,gres/gpu=1",
}
"""What a request per task leaves in a job's environment, where srun reads it."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project and the tools of a node; srun writes its environment and its words to files."""
    tools = {
        "scontrol": "echo node1; echo node2",
        "srun": f'env > "{tmp_path}/env"; printf "%s\\n" "$@" > "{tmp_path}/words"',
        "nvidia-smi": "exit 0",
    }
    write_project(tmp_path, tools)
    return tmp_path


def start(project: Path, **more: str) -> subprocess.CompletedProcess[str]:
    env = script_environment(project)
    env |= {"SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "node[1-2]"}
    env |= {"SLURM_JOB_CPUS_PER_NODE": "8(x2)", "SLURM_CPUS_ON_NODE": "8", "SLURM_GPUS_ON_NODE": "2"}
    words = ["bash", str(ROOT / "slurm" / "train.sh"), "--arch", "cnn"]
    return subprocess.run(words, env=env | more, cwd=project, capture_output=True, text=True, check=False)


def run(project: Path, **more: str) -> tuple[dict[str, str], list[str], str]:
    """Run the script; return the environment and the words of srun, and what the script said."""
    done = start(project, **more)
    assert done.returncode == 0, done.stderr
    seen = dict(line.split("=", 1) for line in (project / "env").read_text().splitlines() if "=" in line)
    return seen, (project / "words").read_text().splitlines(), done.stderr


def test_a_launcher_gets_the_whole_node_however_tasks_were_asked_for(project: Path) -> None:
    seen, words, _ = run(project, **OF_A_TASK)
    assert not OF_A_TASK.keys() & seen.keys()
    assert {"--nodes=2", "--ntasks=2", "--cpus-per-task=8", "--gpus-per-node=2"} <= set(words)


def test_a_launcher_gets_what_the_script_exports_whatever_sbatch_was_to_export(project: Path) -> None:
    seen, words, _ = run(project, SLURM_EXPORT_ENV="NONE")
    assert seen["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "100"
    assert "--export=ALL" in words[: words.index("bash")]


def test_gpus_that_do_not_answer_are_told(project: Path) -> None:
    seen, _, told = run(project)
    assert ("ACCELERATE_USE_CPU" in seen, told) == (False, "")
    (project / "bin" / "nvidia-smi").write_text("#!/bin/bash\nexit 9\n")
    seen, _, told = run(project)
    assert (seen["ACCELERATE_USE_CPU"], told.count("warning: ")) == ("true", 1)
    seen, _, told = run(project, SLURM_GPUS_ON_NODE="")
    assert (seen["ACCELERATE_USE_CPU"], told) == ("true", "")


def test_an_array_of_trainings_is_refused(project: Path) -> None:
    run(project, SLURM_ARRAY_JOB_ID="5")  # submitted by an array's task, whose variables it inherits
    (project / "bin" / "scontrol").write_text("#!/bin/bash\necho 'JobId=7 ArrayJobId=5 ArrayTaskId=0 JobName=stn'\n")
    (project / "env").unlink()
    refused = start(project, SLURM_ARRAY_JOB_ID="5")
    assert refused.returncode == 2
    assert "use slurm/sweep.sh, or --seeds 0-9 in one job" in refused.stderr
    assert not (project / "env").exists()
