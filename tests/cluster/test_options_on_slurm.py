"""The section slurm of a sweep file, and --fail-fast, on a real Slurm."""

import re
from pathlib import Path

import pytest
import yaml

from tests.support.cluster import NAME, Cluster, Job, array, logs, report_of
from tests.support.machine import wait_until
from tests.support.sweeps import TINY, launch

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("cancel_jobs", "own_arrays")]

COMMENT = 'it\'s; $(touch hit) `id` "x" \\ # é'


@pytest.mark.slow
def test_options_of_the_file_reach_slurm_as_they_are(cluster: Cluster, tmp_path: Path) -> None:
    """They win over SBATCH_*, which win over the sweep's own time. Slurm's parser of scripts reads them as we quote."""
    options = {"partition": "preempt", "gres": "gpu:1", "mem": "3G", "mail-type": "END,FAIL", "mail-user": "a@b.org"}
    given = {"slurm": options | {"extra": [f"--comment={COMMENT}"]}, "gpus": 1, "time": "1 hours"}
    path = tmp_path / f"{NAME}.yaml"
    path.write_text(yaml.safe_dump(TINY | given | {"base": TINY["base"] | {"steps": 3}}))
    env = {"SBATCH_PARTITION": "gpu", "SBATCH_TIMELIMIT": "9"} | cluster.environment
    done = launch("sweep", path, "--on", "slurm", "--runs", tmp_path / "runs", **env)
    assert done.returncode == 0, done.stderr
    tasks = array(cluster, tmp_path)
    facts, shown = tasks.facts(), cluster.call("scontrol", "show", "job", tasks.id)
    assert (facts["Partition"], facts["TimeLimit"], facts["MinMemoryNode"]) == ("preempt", "00:09:00", "3G")
    assert (facts["TresPerNode"], facts["MailType"], facts["MailUser"]) == ("gres:gpu:1", "END,FAIL", "a@b.org")
    assert f"Comment={COMMENT} \n" in shown
    report = re.findall(r"report job (\d+)", done.stdout)[0]
    assert Job(report, tmp_path, cluster).facts()["Partition"] == "preempt"
    assert set(tasks.wait(120).states().values()) == {"COMPLETED"}, logs(tmp_path)
    by_hand = cluster.submit(tmp_path, next(tmp_path.glob("runs/*/sweep/slurm/*/array-0.sh")))
    assert f"Comment={COMMENT} \n" in cluster.call("scontrol", "show", "job", by_hand.id), "in the script, too"
    assert by_hand.facts()["Partition"] == "preempt"
    by_hand.wait(60)


@pytest.mark.slow
def test_jobs_run_in_the_partition_that_sweep_sh_was_submitted_to(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.yaml"
    path.write_text(yaml.safe_dump(TINY | {"base": TINY["base"] | {"steps": 3}}))
    words = ("slurm/sweep.sh", path, "--runs", tmp_path / "runs")
    job = cluster.submit(tmp_path, "-p", "preempt", "--gres", "gpu:1", *words).wait()
    assert job.state() == "COMPLETED", job.tell()
    tasks = array(cluster, tmp_path)
    assert tasks.facts()["Partition"] == "preempt", job.tell()
    report = re.findall(r"report job (\d+)", job.log())[0]
    assert Job(report, tmp_path, cluster).facts()["Partition"] == "preempt"
    assert "warning: this job holds GPUs and does not use them" in job.log()


@pytest.mark.slow
def test_a_sweep_ends_early(cluster: Cluster, tmp_path: Path) -> None:
    """Tasks that are queued when the first has failed end without training."""
    base = TINY["base"] | {"dataset": "cifar10", "data": {"root": str(tmp_path / "nothing")}}
    path = tmp_path / f"{NAME}.yaml"
    path.write_text(yaml.safe_dump(TINY | {"base": base, "seeds_per_job": 1}))
    words = ("--on", "slurm", "--runs", tmp_path / "runs", "--fail-fast", 1, "--max-parallel", 1)
    done = launch("sweep", path, *words, **cluster.environment)
    assert done.returncode == 0, done.stderr
    tasks = array(cluster, tmp_path).wait(120)
    states = list(tasks.states().values())
    assert (states.count("FAILED"), states.count("COMPLETED")) == (1, 7), logs(tmp_path)
    assert logs(tmp_path).count("is left: 1 job failed (--fail-fast 1)") == 7
    wait_until(
        "the report", lambda: "ended early: 1 job failed (--fail-fast 1), 7 jobs left" in report_of(tmp_path), 60
    )
