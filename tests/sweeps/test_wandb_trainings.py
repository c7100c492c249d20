"""Trainings that were offline or killed, and their runs on W&B."""

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from stn.runs.directory import RunDir
from stn.runs.files import read_rows
from tests.support.trainer import command, environment, only_run, train
from tests.support.wandb_runs import launch
from tests.support.wandb_server import WandbServer

TINY = ("--limit-train", 1280, "--limit-test", 300, "--log.no-pictures", "--name", "exp", "--seeds", "0,1")
FEW = ("--steps", 60, "--log.every", "5 steps", "--eval.every", "20 steps", "--checkpoint.every", "10 steps")


def same_as_the_record(server: WandbServer, runs: Path) -> bool:
    run = only_run(runs)
    for seed in (0, 1):
        ours = [(r["step"], r["kind"]) for r in run.rows() if r["seed"] == seed and r["kind"] != "warp"]
        kept = server.runs[f"exp-{run.path.parent.name}-{seed}"]
        theirs = [(r["global_step"], "eval" if "test_acc" in r else "train") for r in kept.rows]
        if theirs != ours or kept.exit_code != 0:
            return False
    return True


@pytest.mark.slow
def test_offline_training_is_uploaded(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    with WandbServer() as server:
        env = server.environment(tmp_path / "home")
        done = train(*TINY, *FEW, "--log.wandb", "offline", runs=tmp_path / "runs", **env)
        assert done.returncode == 0, done.stderr
        assert server.runs == {}
        assert launch(tmp_path / "runs", **env).returncode == 0
        assert same_as_the_record(server, tmp_path / "runs")


@pytest.mark.slow
def test_a_killed_seed_continues_its_run(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    long = ("--steps", 2000, "--log.every", "5 steps", "--eval.every", "20 steps", "--checkpoint.every", "10 steps")
    with WandbServer() as server:
        env = environment(**server.environment(tmp_path / "home"))
        words = command(*TINY, *long, "--log.wandb", "online", runs=tmp_path / "runs")
        victim = subprocess.Popen(words, env=env, start_new_session=True)
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and sum(len(kept.lines) for kept in server.runs.values()) < 20:
            time.sleep(0.1)
        workers = psutil.Process(victim.pid).children(recursive=True)
        os.killpg(victim.pid, signal.SIGKILL)
        for worker in workers:
            if worker.is_running():
                worker.kill()
        victim.wait()
        before = {name: len(kept.lines) for name, kept in server.runs.items()}
        assert sum(before.values()) >= 20
        assert all(kept.exit_code is None for kept in server.runs.values())

        run = RunDir(only_run(tmp_path / "runs").path)
        enough = max(row["step"] for row in read_rows(run.metrics)) + 20
        again = subprocess.Popen(words, env=env)
        while time.monotonic() < deadline + 180 and max(row["step"] for row in read_rows(run.metrics)) < enough:
            time.sleep(0.1)
        run.stop.touch()
        assert again.wait(120) == 0
        assert same_as_the_record(server, tmp_path / "runs")
