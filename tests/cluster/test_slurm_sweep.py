"""A sweep on a real Slurm: nothing that happens to nodes and jobs loses, doubles or changes a result."""

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.cluster import ENDED, NAME, Cluster, Job, array, logs, report_of
from tests.support.machine import processes_with, wait_until
from tests.support.plugin import write_plugin
from tests.support.sweeps import TINY, assert_same_weights, launch, weights_of_seeds

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("cancel_jobs", "own_arrays")]


def inject(word: str, node: str) -> None:
    words = [os.environ["STN_SLURM"], word, node]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    # A slurmd that has died by itself is what was asked for (seen on a busy machine).
    assert not done.returncode or (word == "kill-slurmd" and "is not running" in done.stderr), done.stderr


def submit(cluster: Cluster, folder: Path, **changes: object) -> Job:
    """sbatch slurm/sweep.sh, and the array that it submits."""
    path = folder / f"{NAME}.yaml"
    path.write_text(yaml.safe_dump(TINY | changes))
    job = cluster.submit(folder, "slurm/sweep.sh", path, "--runs", folder / "runs", STN_LEASE_S="20").wait()
    assert job.state() == "COMPLETED", job.tell()
    return array(cluster, folder)


def where(cluster: Cluster, node: str) -> list[str]:
    return cluster.call("squeue", "-h", "-r", "-t", "R", f"--name={NAME}", "-w", node, "-o", "%i").split()


def signal_trainings(tasks: Job, number: signal.Signals) -> list[int]:
    """To what the tasks of an array train in, wherever."""
    found = [
        pid
        for pid, words in processes_with("SLURM_ARRAY_JOB_ID", tasks.id).items()
        if "train.py" in words and "launch task" not in words
    ]
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return found


def test_one_command_trains_every_seed_once_and_reports(cluster: Cluster, tmp_path: Path) -> None:
    tasks = submit(cluster, tmp_path, seeds_per_job=1)
    tasks.wait(180)
    assert list(tasks.states().values()) == ["COMPLETED"] * 8, logs(tmp_path)
    assert len(weights_of_seeds(tmp_path / "runs")) == 8
    wait_until("the report", lambda: "all" in report_of(tmp_path), 60)
    assert "tiny: 8 seeds" in report_of(tmp_path)
    ended = cluster.call("sacct", "-X", "-n", "-o", "State", f"--name={NAME},{NAME}-report", "-j", tasks.id).split()
    assert set(ended) == {"COMPLETED"}


@pytest.mark.slow
def test_jobs_find_a_package_of_ones_own(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cluster.environment, "PYTHONPATH", str(write_plugin(tmp_path / "elsewhere")))
    base = TINY["base"] | {"plugin": ["my_package.things"], "dataset": "my_digits", "steps": 20}  # type: ignore[operator]
    base |= {"eval": {"every": "20 steps", "metrics": ["reach"]}}
    tasks = submit(cluster, tmp_path, base=base, grid={"arch": ["aligned"], "arch.width": [4, 8]}, seeds_per_job=2)
    tasks.wait(180)
    assert list(tasks.states().values()) == ["COMPLETED"] * 4, logs(tmp_path)
    rows = [json.loads(line) for file in tmp_path.rglob("results.jsonl") for line in file.read_text().splitlines()]
    assert [row["arch"] for row in rows if "test_reach" in row] == ["aligned"] * 8
    wait_until("the report", lambda: "tiny: 8 seeds" in report_of(tmp_path), 60)


@pytest.mark.slow
def test_whatever_happens_every_seed_ends_with_the_row_of_an_undisturbed_sweep(
    cluster: Cluster, tmp_path: Path
) -> None:
    """A node crashes, one loses its network and then its slurmd, tasks are requeued, cancelled and out of time.

    With so much memory for each that a node has room for four. Trainings halt while Slurm finds out about a node."""
    long = TINY["base"] | {"steps": 300, "checkpoint": {"every": "20 steps"}, "eval": {"every": "150 steps"}}
    changes = {"base": long | {"fuse": 3}, "seeds": "0-11", "seeds_per_job": 3, "memory": "60G"}
    tasks = submit(cluster, tmp_path, **changes)

    def begun() -> int:
        return len(list(tmp_path.glob("runs/*/*/*/checkpoints/seed-*/step-*")))

    wait_until("checkpoints", lambda: begun() > 8, 120, lambda: logs(tmp_path))
    first, second = where(cluster, "node1"), where(cluster, "node2")
    assert len(first) >= 3
    assert len(second) >= 3
    cluster.call("scontrol", "requeue", first[0])
    cluster.call("scancel", second[0])
    cluster.call("scontrol", "update", f"job={second[1]}", "TimeLimit=1")
    inject("netdown", "node1")
    halted = signal_trainings(tasks, signal.SIGSTOP)
    wait_until("node1 is missed", lambda: not where(cluster, "node1"), 90, tasks.tell)
    wait_until("a task of node1 elsewhere", lambda: set(first) & set(where(cluster, "node2")), 90, tasks.tell)
    signal_trainings(tasks, signal.SIGCONT)
    assert len(halted) > 4
    inject("netup", "node1")
    words = ["scontrol", "update", f"job={second[1]}", "TimeLimit=10"]  # once was enough, where it still runs
    subprocess.run(words, env=cluster.environment, check=False, capture_output=True)
    inject("crash", "node2")
    inject("start", "node2")
    wait_until("tasks on node1 again", lambda: where(cluster, "node1"), 120, tasks.tell)
    inject("kill-slurmd", "node1")
    inject("start", "node1")

    def settled() -> bool:
        lines = cluster.call("squeue", "-h", "-r", "-t", "all", "-o", "%T|%r", "-j", tasks.id).splitlines()
        return all(line.split("|")[0] in ENDED or "requeued held" in line for line in lines)

    wait_until("the end of all tasks, or that Slurm holds them", settled, 400, tasks.tell)
    words = ("tiny", "--runs", tmp_path / "runs")
    env = {"SLURM_CONF": cluster.environment["SLURM_CONF"], "STN_VENV": cluster.environment["STN_VENV"]}
    retried = launch("retry", *words, "--on", "slurm", STN_LEASE_S="20", **env)
    assert retried.returncode == 0, retried.stdout + retried.stderr
    again = array(cluster, tmp_path)
    assert again.id != tasks.id, "the cancelled task is to be tried again"
    again.wait(200)
    tasks.wait(200)
    assert "resumes at step" in logs(tmp_path)
    assert json.loads(launch("status", *words, "--json").stdout)["totals"]["done"] == 24, logs(tmp_path)
    calm = tmp_path / "calm"
    calm.mkdir()
    (calm / f"{NAME}.yaml").write_text(yaml.safe_dump(TINY | changes | {"seeds_per_job": 12}))
    assert launch("sweep", calm / f"{NAME}.yaml", "--runs", calm / "runs").returncode == 0
    assert_same_weights(weights_of_seeds(tmp_path / "runs", killed_late=True), weights_of_seeds(calm / "runs"))


@pytest.mark.slow
def test_a_task_goes_back_into_the_queue_before_its_time_is_over(cluster: Cluster, tmp_path: Path) -> None:
    long = TINY["base"] | {"steps": 1000, "checkpoint": {"every": "10000 steps"}}
    tasks = submit(cluster, tmp_path, base=long, grid={"arch": ["stn_slx"]}, seeds="0-1")
    wait_until("training", lambda: list(tmp_path.glob("runs/*/*/*/metrics.jsonl")), 60, lambda: logs(tmp_path))
    cluster.call("scancel", "--batch", "--signal=USR1", f"{tasks.id}_0")
    tasks.wait(120)
    assert set(tasks.states().values()) == {"COMPLETED"}
    text = logs(tmp_path)
    assert text.index("stopped (SIGTERM)") < text.index("requeue ") < text.index("resumes at step"), text
    assert len(weights_of_seeds(tmp_path / "runs")) == 2


@pytest.mark.slow
def test_a_job_that_fails_by_itself_is_not_requeued(cluster: Cluster, tmp_path: Path) -> None:
    base = TINY["base"] | {"dataset": "cifar10", "data": {"root": str(tmp_path / "nothing")}}
    tasks = submit(cluster, tmp_path, base=base, grid={"arch": ["cnn"]}, seeds="0").wait(60)
    assert set(tasks.states().values()) == {"FAILED"}
    assert tasks.states().keys() <= {f"{tasks.id}_0"} | set(ENDED)
    told = launch("status", "tiny", "--runs", tmp_path / "runs").stdout
    assert "failed, cnn cifar10" in told
    assert "nothing" in told
