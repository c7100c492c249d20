"""Runs that are stopped, killed or copied continue bit for bit."""

import random
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.trainer import (
    QUICK,
    SMALL,
    Run,
    command,
    environment,
    only_run,
    start_training,
    train,
    train_in_ranks,
    wait_for_train_rows,
)


@pytest.mark.slow
def test_the_stop_file_and_the_time_limit_stop_and_the_same_command_resumes(tmp_path: Path) -> None:
    words = ("--steps", 400, "--log.every", "47 steps", "--eval.every", "200 steps", *QUICK, *SMALL)
    assert train(*words, runs=tmp_path / "whole").returncode == 0
    reference = only_run(tmp_path / "whole")
    done = train(*words, "--train.time-limit", "1e-6", runs=tmp_path / "cut")
    run = only_run(tmp_path / "cut")
    assert (done.returncode, run.status()["state"], run.status()["reason"]) == (0, "stopped", "time limit")
    assert "run the same command again to resume" in done.stdout
    process = start_training(*words, runs=tmp_path / "cut")
    wait_for_train_rows(tmp_path / "cut", 1)
    (run.path / "stop").touch()
    assert process.wait(60) == 0
    assert (run.status()["state"], run.status()["reason"]) == ("stopped", "stop file")
    assert not (run.path / "stop").exists()
    assert 0 < max(int(p.stem[5:]) for p in run.path.rglob("step-*.safetensors")) < 400
    assert train(*words, runs=tmp_path / "cut").returncode == 0
    assert run.metrics_without_clock() == reference.metrics_without_clock()
    assert run.results()[0]["weights_sha256"] == reference.results()[0]["weights_sha256"]


@pytest.mark.slow
def test_a_full_disk_is_one_message_and_nothing_is_lost(tmp_path: Path) -> None:
    words = ("--steps", 30, "--checkpoint.every", "10 steps", *SMALL)

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run(
        command(*words, runs=tmp_path / "full"),
        capture_output=True, text=True, env=environment(), preexec_fn=small_files, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "error: [Errno 27] File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "full").rglob("*.safetensors")) == []
    assert list((tmp_path / "full").rglob("*.tmp")) == []
    assert train(*words, runs=tmp_path / "full").returncode == 0
    assert train(*words, runs=tmp_path / "whole").returncode == 0
    assert only_run(tmp_path / "full").metrics_without_clock() == only_run(tmp_path / "whole").metrics_without_clock()


@pytest.mark.slow
def test_a_run_killed_at_random_moments_is_bit_identical(tmp_path: Path) -> None:
    """SIGKILL between and during saves: at every second step there is one. tests/chaos kills at each file operation."""
    words = ("--steps", 300, "--checkpoint.every", "2 steps", "--log.every", "3 steps", "--eval.every", "50 steps",
             *QUICK, *SMALL)  # fmt: skip
    assert train(*words, runs=tmp_path / "whole").returncode == 0
    print("moments drawn with", seed := time.time_ns())
    took, chance = only_run(tmp_path / "whole").results()[0]["wall_s"], random.Random(seed)
    for _ in range(3):
        process = start_training(*words, runs=tmp_path / "killed")
        while not any(Run(p).status().get("pid") == process.pid for p in (tmp_path / "killed").glob("*/*/*")):
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.01)
        time.sleep(chance.uniform(0.01, 0.08) * took)
        assert process.poll() is None, "it ended before it was killed"
        process.kill()
        process.wait()
    assert train(*words, runs=tmp_path / "killed").returncode == 0
    killed, whole = only_run(tmp_path / "killed"), only_run(tmp_path / "whole")
    assert killed.metrics_without_clock() == whole.metrics_without_clock()
    assert killed.results()[0]["weights_sha256"] == whole.results()[0]["weights_sha256"]
    assert list(killed.path.rglob(".*.tmp")) == []


def clocks_apart(row: dict) -> dict:
    return {k: v for k, v in row.items() if k not in ("wall_s", "images_per_s", "name", "row_sha256")}


@pytest.mark.slow
def test_three_ranks_stopped_by_sigterm_resume_bit_for_bit(tmp_path: Path) -> None:
    """With more than two the order in which gradients are added up begins to matter."""
    words = ("--steps", 100, "--checkpoint.every", "25 steps", "--log.every", "4 steps", "--eval.every", "50 steps",
             "--processes", 3, *QUICK, *SMALL)  # fmt: skip
    assert train_in_ranks(*words, runs=tmp_path / "whole", count=3).returncode == 0
    reference = only_run(tmp_path / "whole")
    assert reference.results()[0]["world_size"] == 3
    accelerate = [str(Path(sys.executable).parent / "accelerate"), "launch", "--multi_gpu", "--num_processes", "3"]
    line = [*accelerate, "--main_process_port", "0", *command(*words, runs=tmp_path / "cut")[1:]]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
    wait_for_train_rows(tmp_path / "cut", 3)
    process.terminate()
    process.wait(120)
    run = only_run(tmp_path / "cut")
    assert (run.status()["state"], run.status()["reason"]) == ("stopped", "SIGTERM")
    assert 0 < max(int(p.stem[5:]) for p in run.path.rglob("step-*.safetensors")) < 100
    assert train_in_ranks(*words, runs=tmp_path / "cut", count=3).returncode == 0
    assert run.metrics_without_clock() == reference.metrics_without_clock()
    assert clocks_apart(run.results()[0]) == clocks_apart(reference.results()[0])


@pytest.mark.slow
def test_a_second_copy_waits_and_finds_nothing_to_do(tmp_path: Path) -> None:
    words = ("--steps", 600, "--log.every", "10 steps", "--eval.every", "600 steps", *QUICK, *SMALL)
    first = start_training(*words, runs=tmp_path)
    wait_for_train_rows(tmp_path, 20)
    first.send_signal(signal.SIGSTOP)  # until the second has come, however long that takes on a busy machine
    line = command(*words, runs=tmp_path)
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment(PYTHONUNBUFFERED="1")) as second:
        assert second.stdout
        told = next((text for text in second.stdout if "is training" in text), "")
        first.send_signal(signal.SIGCONT)
        told += second.stdout.read()
    assert (first.wait(240), second.wait(240)) == (0, 0)
    assert f"another process ({socket.gethostname()}:{first.pid}) is training" in told
    assert "nothing to do" in told
    steps = [row["step"] for row in only_run(tmp_path).rows() if row["kind"] == "train"]
    assert steps == list(range(10, 601, 10))
