"""slurm/*.sh: how each finds the project and the site's environment."""

import os
import subprocess
from pathlib import Path

import pytest

from stn.config.source import SOURCE
from tests.support.slurm import script_environment, write_project


@pytest.mark.parametrize("name", ["train", "sweep", "report"])
def test_scripts_find_the_project_wherever_slurm_has_copied_them(tmp_path: Path, name: str) -> None:
    """The beginning of a script, run from a copy in another folder, as slurmd does."""
    text = (SOURCE / "slurm" / f"{name}.sh").read_text()
    beginning = text[: text.index("source ")] + 'echo "root=$STN_ROOT"\n'
    project, spool, tools = tmp_path / "my project", tmp_path / "spool", tmp_path / "bin"
    for folder in (project / "slurm", spool, tools):
        folder.mkdir(parents=True)
    (project / "slurm" / "env.sh").touch()
    (spool / "slurm_script").write_text(beginning)
    (tools / "scontrol").write_text(f"#!/bin/sh\necho '   Command={project}/slurm/{name}.sh --arch cnn'\n")
    (tools / "scontrol").chmod(0o755)

    def found(path: str, **env: str) -> str:
        env = {"PATH": path, "SLURM_JOB_ID": "7", **env}
        words = ["bash", str(spool / "slurm_script")]
        done = subprocess.run(words, env=env, cwd=spool, capture_output=True, text=True, check=False)
        return done.stdout.strip() or done.stderr.strip()

    path = os.environ["PATH"]
    assert found(f"{tools}:{path}", SLURM_SUBMIT_DIR=str(spool)) == f"root={project}"
    (tools / "scontrol").write_text("#!/bin/sh\nexit 1\n")  # in place of one that a Slurm on this machine may have
    assert found(f"{tools}:{path}", SLURM_SUBMIT_DIR=str(project)) == f"root={project}"
    assert found(f"{tools}:{path}", STN_ROOT=str(project), SLURM_SUBMIT_DIR=str(spool)) == f"root={project}"
    assert "no slurm/env.sh" in found(f"{tools}:{path}", SLURM_SUBMIT_DIR=str(spool))


@pytest.mark.parametrize("name", ["train", "sweep", "report"])
def test_a_site_may_read_variables_that_are_not_set(tmp_path: Path, name: str) -> None:
    """As `module load` and `conda activate` do."""
    tools = dict.fromkeys(("python", "srun", "nvidia-smi"), 'echo "ran with $MODULES"') | {"scontrol": "echo node1"}
    write_project(tmp_path, tools)
    with (tmp_path / "slurm" / "env.sh").open("a") as file:
        file.write('export MODULES="$NOT_SET_ANYWHERE cuda"\n')
    env = script_environment(tmp_path) | {"SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "node1"}
    env |= {"SLURM_JOB_CPUS_PER_NODE": "2", "SLURM_CPUS_ON_NODE": "2"}
    words = ["bash", str(SOURCE / "slurm" / f"{name}.sh"), "x"]
    done = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ran with  cuda" in done.stdout
