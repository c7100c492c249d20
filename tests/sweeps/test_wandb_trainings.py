"""Trainings that were offline or killed, and their runs on W&B."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from stn.runs.directory import RunDir
from stn.runs.files import read_rows
from tests.support.trainer import command, environment, only_run, train
from tests.support.wandb_runs import launch
from tests.support.wandb_server import WandbServer

SMALL = ("--limit-train", 1280, "--limit-test", 300, "--name", "exp", "--seeds", "0,1")
TINY = (*SMALL, "--log.no-pictures")
FEW = ("--steps", 60, "--log.every", "5 steps", "--eval.every", "20 steps", "--checkpoint.every", "10 steps")


def same_as_the_record(server: WandbServer, runs: Path, state: str = "finished") -> bool:
    run = only_run(runs)
    for seed in (0, 1):
        ours = [(r["step"], r["kind"]) for r in run.rows() if r["seed"] == seed and r["kind"] != "warp"]
        kept = server.runs[f"exp-{run.path.parent.name}-{seed}"]
        rows = [r for r in kept.rows if "confusion" not in r and "seeds" not in r]  # which come at the end
        theirs = [(r["global_step"], "eval" if "test_acc" in r else "train") for r in rows]
        if theirs != ours or kept.state != state:
            return False
    return True


def shown(server: WandbServer, name: str, key: str) -> list[bytes]:
    """Return the images that the server has under a key."""
    paths = [row[key]["path"] for row in server.runs[name].rows if key in row]
    return [server.files.of_run(name)[path] for path in paths]


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
def test_the_offline_run_and_the_uploaded_one_have_the_pictures(tmp_path: Path) -> None:
    """Also where W&B's own sync sends the client's files."""
    (tmp_path / "home").mkdir()
    with WandbServer() as server:
        env = server.environment(tmp_path / "home")
        done = train(*SMALL, *FEW, "--log.wandb", "offline", runs=tmp_path / "runs", **env)
        assert done.returncode == 0, done.stderr
        run = only_run(tmp_path / "runs")
        ours = [path.read_bytes() for path in sorted(run.path.glob("pictures/evaluations/seed-1/*.png"))]
        assert len(ours) == 3
        (folder,) = run.path.glob("wandb/offline-run-*-1")
        words = [sys.executable, "-m", "wandb", "sync", str(folder)]
        subprocess.run(words, env=environment(**env), cwd=tmp_path, check=True, timeout=120, capture_output=True)
        name = f"exp-{run.path.parent.name}-1"
        assert shown(server, name, "warps") == ours
        assert len(shown(server, name, "confusion")) == 1
        server.runs.clear()
        assert launch(tmp_path / "runs", **env).returncode == 0
        assert shown(server, name, "warps") == ours
        first = name.removesuffix("1") + "0"
        for picture in ("curves", "confusion", "warp", "object", "region"):
            assert shown(server, first, f"pictures/{picture}") == [(run.path / f"pictures/{picture}.png").read_bytes()]


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
        assert same_as_the_record(server, tmp_path / "runs", "preempted")
