"""A sweep on this machine: what is stopped or killed in the middle ends with the rows of an undisturbed one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from launch.sweep import job as jobs
from launch.sweep import local
from launch.sweep.notes import read_note
from launch.sweep.status import job_status
from stn.runs.directory import RunDir
from tests.support.machine import wait_until
from tests.support.paths import ROOT
from tests.support.records import metric
from tests.support.sweeps import (
    TINY,
    Weights,
    add_result,
    assert_same_weights,
    expand_sweep,
    launch,
    save_plan,
    weights_of_seeds,
)
from tests.support.trainer import environment


def sweep_file(folder: Path, **changes: object) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY | changes))
    return path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = launch("sweep", sweep_file(folder), "--runs", folder / "runs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 done" in done.stdout
    return weights_of_seeds(folder / "runs")


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "launch", "sweep", str(folder / "tiny.yaml"), "--runs", str(folder / "runs")],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def training(launcher: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        return psutil.Process(launcher.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def checkpoints(folder: Path) -> list[Path]:
    return list(folder.glob("runs/*/*/*/checkpoints/*/step-*.safetensors"))


RANKS = """
import signal, subprocess, sys, time
if sys.argv[1:]:  # a rank, in a session of its own, that saves for a while
    signal.signal(signal.SIGTERM, lambda *_: (time.sleep(float(sys.argv[1])), sys.exit()))
    time.sleep(100)
else:
    subprocess.Popen([sys.executable, __file__, SECONDS], start_new_session=True)
    time.sleep(100)
"""


@pytest.mark.parametrize(("rank_takes_s", "patience_s"), [("1.5", 30), ("60", 0.5)])
def test_a_job_ends_when_its_ranks_have_saved_even_if_their_launcher_was_killed(
    rank_takes_s: str, patience_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(RANKS.replace("SECONDS", repr(rank_takes_s)))
    plan = save_plan(tmp_path, TINY)
    (plan.folder / "logs").mkdir()
    monkeypatch.setattr(jobs, "training_command", lambda *_: [sys.executable, str(script)])
    monkeypatch.setattr(jobs, "SAVING_S", patience_s)
    attempt = jobs.Attempt(plan, plan.jobs[0], plan.log_file(plan.jobs[0]), {})
    wait_until("two processes", lambda: len(attempt.processes()) == 2, 30)
    (rank,) = [process for process in attempt.processes() if process.pid != attempt.child.pid]
    attempt.child.kill()
    rank.terminate()  # as its parent's death does
    assert attempt.outcome() == "killed"
    assert not is_alive(rank)
    assert read_note(plan, plan.jobs[0])["end"].startswith("killed by SIGKILL")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_launcher_that_is_stopped_or_killed_goes_on(
    number: signal.Signals, tmp_path: Path, undisturbed: Weights
) -> None:
    sweep_file(tmp_path)
    first = start(tmp_path)
    wait_until("a checkpoint", lambda: checkpoints(tmp_path), 120)
    children = training(first)
    assert children
    first.send_signal(number)
    text = first.communicate(timeout=60)[0]
    if number == signal.SIGINT:
        assert first.returncode == 0
        assert "run the same command again to resume" in text
    # Nobody trains on without a launcher, and nothing was lost.
    wait_until("the end of all trainings", lambda: not any(map(is_alive, children)), 60)
    assert len(weights_of_seeds(tmp_path / "runs")) < 8
    done = launch("sweep", tmp_path / "tiny.yaml", "--runs", tmp_path / "runs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resumes at step" in "".join(log.read_text() for log in tmp_path.glob("runs/tiny/sweep/logs/*.log"))
    assert_same_weights(weights_of_seeds(tmp_path / "runs"), undisturbed)
    again = launch("sweep", tmp_path / "tiny.yaml", "--runs", tmp_path / "runs")
    assert "nothing to do" in again.stdout


@pytest.mark.slow
def test_two_launchers_and_killed_children_leave_one_row_each(tmp_path: Path, undisturbed: Weights) -> None:
    sweep_file(tmp_path)
    both = [start(tmp_path), start(tmp_path)]
    wait_until("a checkpoint", lambda: checkpoints(tmp_path), 120)
    for child in training(both[0]) + training(both[1]):
        child.kill()
    texts = [one.communicate(timeout=300)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], texts
    assert "was killed; restarting" in texts[0] + texts[1]
    retried = launch("retry", "tiny", "--runs", tmp_path / "runs")
    assert retried.returncode == 0, retried.stdout + retried.stderr
    assert_same_weights(weights_of_seeds(tmp_path / "runs"), undisturbed)


def test_a_job_that_fails_by_itself_is_told_and_retried(tmp_path: Path) -> None:
    """CIFAR-10 is missing; then an edit of the sweep mends it."""
    base = TINY["base"] | {"steps": 2, "data": {"root": str(tmp_path / "nothing")}}
    path = sweep_file(tmp_path, base=base | {"dataset": "cifar10"}, grid={"arch": ["cnn"]}, seeds="0")
    words = ("--runs", tmp_path / "runs")
    failed = launch("sweep", path, *words)
    assert failed.returncode == 1
    assert "cnn cifar10 seeds 0: failed (1 of 1 jobs); see" in failed.stdout
    told = launch("status", "tiny", *words)
    assert "error: " in told.stdout
    assert "nothing" in told.stdout
    assert json.loads(launch("status", "tiny", *words, "--json").stdout)["totals"]["failed"] == 1
    sweep_file(tmp_path, base=base, grid={"arch": ["cnn"]}, seeds="0")
    mended = launch("sweep", path, *words)
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert "no longer part of it: 1 job" in mended.stdout


def test_workers_have_devices_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "free_cores", lambda say: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    one = expand_sweep(tmp_path, TINY | {"cpus": 3}).plan
    assert len(local.build_workers(one, None)) == 2
    assert len(local.build_workers(one, 1)) == 1
    with pytest.raises(ValueError, match="machine has 0; write 'gpus: 0' in its file to train on CPU"):
        local.build_workers(expand_sweep(tmp_path, TINY | {"gpus": 1}).plan, None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,5,7,9")
    monkeypatch.setattr(os, "environ", os.environ | {"ACCELERATE_USE_CPU": ""})
    assert [worker["CUDA_VISIBLE_DEVICES"] for worker in local.build_workers(one, None)] == ["2", "3", "5", "7", "9"]
    assert local.build_workers(expand_sweep(tmp_path, TINY | {"gpus": 0, "cpus": 3}).plan, None) == [{}, {}]
    two = expand_sweep(tmp_path, TINY | {"gpus": 2}).plan
    assert [worker["CUDA_VISIBLE_DEVICES"] for worker in local.build_workers(two, None)] == ["2,3", "5,7"]
    with pytest.raises(ValueError, match="takes 6 GPUs, this machine has 5; write 'gpus: 5' in its file, or"):
        local.build_workers(expand_sweep(tmp_path, TINY | {"gpus": 6}).plan, None)


def test_progress_is_counted_in_steps_times_seeds(tmp_path: Path) -> None:
    plan = save_plan(tmp_path, TINY | {"seeds_per_job": 4})
    job = plan.jobs[0]
    run = RunDir(plan.experiment / job.sig / job.block)
    run.lease.take(print)
    run.write_status("running", seeds="0-1", step=0, steps=20)
    assert local.progress_of(job_status(plan, job))["completed"] == 0
    rows = [metric(seed, 10, images_per_s=500.0) for seed in (0, 1)]
    run.add_metrics([*rows, metric(1, 10, kind="eval", test_acc=0.5)])
    shown = local.progress_of(job_status(plan, job))
    assert (shown["completed"], shown["total"], shown["images_per_s"]) == (20, 80, 500.0)
    assert shown["description"] == "cnn mnist seeds 0-3: step 10/20, 500 images/s, 50.00%"
    for seed in (0, 1):
        add_result(plan, job, seed)
    run.write_status("running", seeds="2-3", step=0, steps=20)
    assert local.progress_of(job_status(plan, job))["completed"] == 40, "the first block's metrics are not the second's"
    run.lease.release()
