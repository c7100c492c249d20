"""slurm/train.sh on a real Slurm: several nodes, and every way in which Slurm interrupts a job."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, Job
from tests.support.machine import wait_until
from tests.support.paths import ROOT
from tests.support.trainer import QUIET, SMALL, command, only_run, train

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.usefixtures("cancel_jobs")]

SCRIPT = "slurm/train.sh"


def wait_until_it_trains(job: Job, runs: Path, rows: int = 1) -> None:
    def trains() -> bool:
        assert job.state() in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED"), job.tell()
        return any(path.read_text().count('"kind": "train"') >= rows for path in runs.glob("*/*/*/metrics.jsonl"))

    wait_until("a row of training", trains, 90, job.tell)


def restarted(job: Job) -> int:
    return int(job.facts()["Restarts"])


def test_processes_of_two_nodes_train_as_one(cluster: Cluster, tmp_path: Path) -> None:
    words = ("--arch", "cnn", "--precision", "fp32", "--steps", 50, "--log.every", "1 steps",
             "--eval.every", "50 steps", "--optim.warmup", "49 steps", "--lr", 2e-4, "--optim.clip", 1.0,
             "--limit-train", 3200, "--limit-test", 100, *QUIET)  # fmt: skip
    job = cluster.submit(tmp_path, "--nodes", 2, "--gres", "gpu:2", SCRIPT, *words, "--runs", tmp_path / "four").wait()
    assert (job.state(), job.facts()["ExitCode"]) == ("COMPLETED", "0:0"), job.tell()
    assert train(*words, launcher="one", runs=tmp_path / "one").returncode == 0
    four, one = only_run(tmp_path / "four"), only_run(tmp_path / "one")
    env = json.loads((four.path / "env.json").read_text())
    assert (env["world_size"], env["mode"], env["slurm"]["SLURM_JOB_ID"]) == (4, "data", job.id)
    losses = [[row["loss"] for row in run.rows() if row["kind"] == "train"] for run in (four, one)]
    assert len(losses[0]) == 50
    assert max(abs(a - b) for a, b in zip(*losses, strict=True)) < 1e-4


def launcher(folder: Path, accelerate: str, nvidia_smi: str) -> str:
    """An environment whose launcher and driver are these lines of shell."""
    tools = folder / "venv" / "bin"
    tools.mkdir(parents=True)
    (tools / "activate").write_text(f"PATH={tools}:$PATH\n")
    for name, text in (("accelerate", accelerate), ("nvidia-smi", nvidia_smi)):
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    return str(tools.parent)


def test_a_launcher_on_each_node_gets_all_that_the_job_has_there(cluster: Cluster, tmp_path: Path) -> None:
    says = 'echo "$SLURM_CPUS_PER_TASK,${CUDA_VISIBLE_DEVICES:-},${ACCELERATE_USE_CPU:-} $SLURMD_NODENAME" "$@"'
    venv = launcher(tmp_path, says, '[ "$GPU_DRIVER" ]')
    wishes = {
        "": ("1,,true", 1, 1, ""),
        "--nodes 2": ("1,,true", 2, 2, ""),
        "--nodes 2 --ntasks-per-node 2 --cpus-per-task 3": ("6,,true", 2, 4, "1"),
        "--nodes 2 --gres gpu:2": ("1,0,1,true", 2, 4, ""),
        "--nodes 2 --gres gpu:2 --cpus-per-task 4": ("4,0,1,", 2, 4, "1"),
        "--nodes 2 --ntasks-per-node 2 --gpus-per-task 1": ("2,0,1,", 2, 4, "1"),
        "--nodes 2 --gpus 4 --ntasks-per-gpu 1": ("2,0,1,", 2, 4, "1"),
    }
    jobs = [
        cluster.submit(tmp_path, *wish.split(), SCRIPT, "--name", "a b", STN_VENV=venv, GPU_DRIVER=driver)
        for wish, (_, _, _, driver) in wishes.items()
    ]
    for job, (share, nodes, processes, _) in zip(jobs, wishes.values(), strict=True):
        job.wait()
        assert job.state() == "COMPLETED", job.tell()
        lines = sorted((tmp_path / f"{job.id}.out").read_text().splitlines())  # node1 before node2
        lost = ",true" in share and ",0," in share
        assert [line for line in lines if line.startswith("warning: nvidia-smi finds none")] == lines[-1:] * lost
        lines = lines[: len(lines) - lost]
        first = lines[0].split()[1]
        assert lines == [
            f"{share} {node} launch --machine_rank {rank} --config_file {ROOT}/configs/accelerate/nodes.yaml"
            f" --num_machines {nodes} --num_processes {processes} --main_process_ip {first}"
            f" --main_process_port {20000 + int(job.id)} {ROOT}/train.py --name a b"
            for rank, node in enumerate((first, "node2")[:nodes])
        ]


def test_scripts_run_from_any_folder(cluster: Cluster, tmp_path: Path) -> None:
    """With a GPU that Slurm counts; run directories are in the folder in which sbatch was run."""
    words = ("--arch", "cnn", "--steps", 3, *SMALL)
    job = cluster.submit(tmp_path, "--gres", "gpu:1", ROOT / SCRIPT, *words, cwd=tmp_path).wait()
    assert job.state() == "COMPLETED", job.tell()
    env = json.loads((only_run(tmp_path / "runs").path / "env.json").read_text())
    assert (env["world_size"], env["slurm"]["SLURM_JOB_ID"]) == (1, job.id)


def test_srun_starts_one_training_and_not_copies_of_it(cluster: Cluster, tmp_path: Path) -> None:
    def srun(tasks: int) -> subprocess.CompletedProcess[str]:
        words = ["srun", "-n", str(tasks), *command("--arch", "cnn", "--steps", 3, *SMALL, runs=tmp_path / "runs")]
        return subprocess.run(words, env=cluster.environment, capture_output=True, text=True, timeout=100, check=False)

    copies = srun(4)
    assert (copies.returncode, copies.stderr.count("error: srun has started 4 copies of this command")) == (2, 4)
    assert not (tmp_path / "runs").exists()
    assert srun(1).returncode == 0
    assert only_run(tmp_path / "runs").results()[0]["world_size"] == 1


def test_a_node_that_fails_takes_the_others_along(cluster: Cluster, tmp_path: Path) -> None:
    venv = launcher(tmp_path, '[ "$SLURM_NODEID" = 0 ] && exec sleep 100; sleep 1; exit 3', "false")
    job = cluster.submit(tmp_path, "--nodes", 2, SCRIPT, STN_VENV=venv).wait(30)
    assert (job.state(), restarted(job)) == ("FAILED", 0), job.tell()


def test_nodes_without_gpus_have_as_many_processes_as_tasks(cluster: Cluster, tmp_path: Path) -> None:
    words = ("--ntasks-per-node", 2, SCRIPT, "--arch", "cnn", "--steps", 3, *SMALL, "--runs", tmp_path / "runs")
    job = cluster.submit(tmp_path, "--nodes", 2, *words).wait()
    assert job.state() == "COMPLETED", job.tell()
    assert only_run(tmp_path / "runs").results()[0]["world_size"] == 4


def test_a_job_goes_on_where_it_was_requeued_and_where_its_time_was_up(cluster: Cluster, tmp_path: Path) -> None:
    """Without a checkpoint of its own accord, so that it goes on from what it saved when it was told to."""
    words = ("--arch", "cnn", "--steps", 300, "--train.threads", 1, "--checkpoint.every", "1000 steps",
             "--log.every", "3 steps", *SMALL)  # fmt: skip
    job = cluster.submit(tmp_path, "--nodes", 2, SCRIPT, *words, "--runs", tmp_path / "cut")
    rows = 5
    for restarts, tell in enumerate((("scontrol", "requeue"), ("scancel", "--batch", "--signal=USR1"))):
        wait_until_it_trains(job, tmp_path / "cut", rows)
        cluster.call(*tell, job.id)
        wait_until("the requeue", lambda n=restarts: restarted(job) > n and job.state() == "PENDING", 60, job.tell)
        run = only_run(tmp_path / "cut")
        assert (run.status()["state"], run.status().get("reason")) == ("stopped", "SIGTERM"), job.tell()
        rows = len(run.rows()) + 5
    job.wait()
    assert (job.state(), job.facts()["ExitCode"], restarted(job)) == ("COMPLETED", "0:0", 2), job.tell()
    assert job.log().count("resumes at step") == 2, job.tell()
    assert "stopped (SIGTERM)" in job.log().partition("time limit, saving")[2].partition(": requeue\n")[0], job.tell()
    assert train(*words, launcher="cpu2", runs=tmp_path / "whole").returncode == 0
    rows = [only_run(tmp_path / name).results()[0] for name in ("cut", "whole")]
    assert [row["world_size"] for row in rows] == [2, 2]
    assert rows[0]["weights_sha256"] == rows[1]["weights_sha256"]


def test_a_pre_empted_job_goes_on_and_a_cancelled_one_does_not(cluster: Cluster, tmp_path: Path) -> None:
    """Slurm tells the step of a pre-emption first, and the script only at the end of the grace time."""
    words = ("--arch", "cnn", "--steps", 100_000, "--log.every", "1 steps", "--limit-train", 1280, *QUIET)
    job = cluster.submit(tmp_path, "-p", "preempt", SCRIPT, *words, "--runs", tmp_path / "runs")
    wait_until_it_trains(job, tmp_path / "runs", 5)
    cluster.submit(tmp_path, "-p", "gpu", "--nodes", 2, "--exclusive", "--wrap", "true").wait()
    wait_until("the second start", lambda: "resumes at step" in job.log(), 90, job.tell)
    assert (job.state(), restarted(job)) == ("RUNNING", 1), job.tell()
    cluster.call("scancel", job.id)
    job.wait()
    assert job.log().count("stopped (SIGTERM)") == 2, job.tell()
    assert (job.state(), restarted(job)) == ("CANCELLED", 1), job.tell()


def test_what_cannot_succeed_fails_once(cluster: Cluster, tmp_path: Path) -> None:
    bad = cluster.submit(tmp_path / "bad", "--nodes", 2, SCRIPT, "--arch", "nonsense", "--runs", tmp_path / "runs")
    copied = tmp_path / "train.sh"
    copied.write_text((ROOT / SCRIPT).read_text())
    elsewhere = cluster.submit(tmp_path / "elsewhere", copied, "--arch", "cnn", cwd=tmp_path)
    uneven = cluster.submit(tmp_path / "uneven", "--nodes", 2, "--ntasks", 4, SCRIPT, "--arch", "cnn")
    tasks = cluster.submit(tmp_path / "array", "--array", "0-1", SCRIPT, "--runs", tmp_path / "runs")
    assert set(tasks.wait(60).states().values()) == {"FAILED"}, tasks.tell()
    assert tasks.log().count("error: every task of this array would train the same seeds") == 2
    for job, code in ((elsewhere, "2:0"), (uneven, "2:0"), (bad, "1:0")):
        job.wait(60)
        assert (job.state(), job.facts()["ExitCode"], restarted(job)) == ("FAILED", code, 0), job.tell()
    assert "nonsense" in bad.log()
    assert "request the same number on each node" in uneven.log()
    message = f"error: no slurm/env.sh in {tmp_path}; set STN_ROOT to the project's folder"
    assert elsewhere.log().splitlines()[1:] == [message]
    assert not (tmp_path / "runs").exists()


def test_a_job_is_not_requeued_for_ever(cluster: Cluster, tmp_path: Path) -> None:
    words = ("--arch", "cnn", "--steps", 100_000, *SMALL, "--runs", tmp_path / "runs")
    job = cluster.submit(tmp_path, SCRIPT, *words, STN_MAX_RESTARTS="0")
    wait_until("the start", lambda: job.state() == "RUNNING", 30, job.tell)
    cluster.call("scontrol", "requeue", job.id)
    job.wait()
    assert (job.state(), job.facts()["ExitCode"], restarted(job)) == ("FAILED", "1:0", 1), job.tell()
    assert "requeued 1 times, more than STN_MAX_RESTARTS=0" in job.log()
