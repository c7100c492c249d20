"""However a training is asked to leave: no traceback, a true status, nobody trains on, and the next start resumes."""

import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import psutil
import pytest

from tests.chaos.outcome import Outcome
from tests.chaos.victim import WORDS
from tests.support.machine import wait_until
from tests.support.paths import ROOT
from tests.support.trainer import (
    SMALL,
    command,
    environment,
    only_run,
    start_training,
    train,
    train_with,
    wait_for_train_rows,
)

LONG = ("--steps", 5000, "--log.every", "10 steps", "--checkpoint.every", "1000 steps", *SMALL)


SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def installed(name: str) -> list[str]:
    """Return what the command that pip installs under this name does."""
    module, _, function = SCRIPTS[name].partition(":")
    return ["-c", f"import sys; from {module} import {function}; sys.exit({function}())"]


@pytest.mark.parametrize(
    "script",
    [
        *(["train.py"], ["-m", "stn.train", "--check"], ["-m", "launch", "status", "none"], ["-m", "stn", "list"]),
        *([*installed("stn"), "list"], [*installed("stn"), "evaluate", "."], [*installed("stn-launch"), "status", "x"]),
    ],
)
def test_ctrl_c_during_imports_leaves_no_traceback(script: list[str]) -> None:
    for delay_s in (0.15, 0.6):
        process = subprocess.Popen(
            [sys.executable, *script], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

        def imports(process: subprocess.Popen = process, cpu_s: float = delay_s) -> bool:
            """Whether it has had this much of a CPU, which on a busy machine takes longer."""
            return process.poll() is not None or sum(psutil.Process(process.pid).cpu_times()[:2]) >= cpu_s

        wait_until("imports", imports, 30)
        process.send_signal(signal.SIGINT)
        text = process.communicate(timeout=60)[0].decode()
        assert "Traceback" not in text, text


FIRST = """
import signal, sys
before = set(sys.modules)
def first(number, handler):
    slow = {"pydantic", "tyro", "yaml", "rich", "psutil", "torch"} & (sys.modules.keys() - before)
    print(signal.Signals(number).name, handler is signal.SIG_DFL, sorted(slow))
    sys.exit()
signal.signal = first
sys.argv = ["x", "list"]
"""


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_installed_commands_listen_before_they_import(name: str) -> None:
    words = [sys.executable, "-c", FIRST + installed(name)[1]]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "SIGINT True []\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_or_two_at_once_save_and_exit_with_0(number: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen(command(*LONG, runs=tmp_path), env=environment(), stderr=subprocess.PIPE, text=True)
    wait_for_train_rows(tmp_path)
    process.send_signal(number)
    time.sleep(0.05)
    process.send_signal(number)
    assert "Traceback" not in process.communicate(timeout=60)[1]
    assert process.returncode == 0
    assert (only_run(tmp_path).status()["state"], only_run(tmp_path).status()["reason"]) == ("stopped", number.name)
    assert only_run(tmp_path).saved_steps()


INTERRUPT = """
import importlib
def interrupted(*_, **__):
    raise KeyboardInterrupt
owner = importlib.import_module(MODULE)
setattr(getattr(owner, CLASS) if CLASS else owner, NAME, interrupted)
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    runs = tmp_path_factory.mktemp("undisturbed")
    assert train(*WORDS, runs=runs).returncode == 0
    return Outcome.read(runs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "owner", "name"),
    [("stn.training.checkpointer", "Checkpointer", "save"), ("stn.commands.finish", "", "_close")],
)
def test_a_second_ctrl_c_leaves_at_once_with_130_and_the_next_start_resumes(
    module: str, owner: str, name: str, undisturbed: Outcome, tmp_path: Path
) -> None:
    patch = INTERRUPT.replace("MODULE", repr(module)).replace("CLASS", repr(owner)).replace("NAME", repr(name))
    done = train_with(patch, *WORDS, runs=tmp_path)
    assert done.returncode == 130
    assert done.stderr == "error: interrupted; run the same command again to resume from the last checkpoint\n"
    status = only_run(tmp_path).status()
    assert (status["state"], status["reason"]) == ("stopped", "SIGINT twice")
    assert train(*WORDS, runs=tmp_path).returncode == 0
    assert Outcome.read(tmp_path).faults(undisturbed) == []
    assert only_run(tmp_path).status()["state"] == "finished"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["one", "torchrun"])
def test_a_killed_launcher_takes_its_processes_along(launcher: str, tmp_path: Path) -> None:
    words = command(*LONG, launcher="one" if launcher == "one" else None, runs=tmp_path)
    if launcher == "torchrun":
        words[1:1] = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    process = subprocess.Popen(words, env=environment(ACCELERATE_USE_CPU="true"), stderr=subprocess.DEVNULL)
    wait_for_train_rows(tmp_path)
    ranks = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert not psutil.wait_procs(ranks, timeout=30)[1]
    assert (only_run(tmp_path).status()["state"], only_run(tmp_path).status()["reason"]) == ("stopped", "SIGTERM")


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_them_all(tmp_path: Path) -> None:
    process = start_training(*LONG, launcher="cpu2", runs=tmp_path)
    wait_for_train_rows(tmp_path)
    ranks = [p for p in psutil.Process(process.pid).children(recursive=True) if "RANK" in p.environ()]
    next(rank for rank in ranks if rank.environ()["RANK"] == "1").send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert (only_run(tmp_path).status()["state"], only_run(tmp_path).status()["reason"]) == ("stopped", "SIGTERM")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["one", "cpu2"])
def test_a_signal_to_the_whole_group_is_one_wish(launcher: str, tmp_path: Path) -> None:
    """Slurm, timeout and systemd signal launcher and ranks alike; the launcher then signals the ranks again."""
    process = start_training("--steps", 5000, "--log.every", "10 steps", *SMALL, launcher=launcher, runs=tmp_path)
    wait_for_train_rows(tmp_path)
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(60)
    deadline = time.monotonic() + 20
    while only_run(tmp_path).status()["state"] == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (only_run(tmp_path).status()["state"], only_run(tmp_path).status()["reason"]) == ("stopped", "SIGTERM")
    assert list(tmp_path.rglob("step-*.safetensors"))
