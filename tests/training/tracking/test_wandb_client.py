"""W&B's own client: offline, with a server that does not answer, its logins, and a process of it that hangs."""

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.paths import ROOT
from tests.support.trainer import environment, only_run, train


@pytest.mark.slow
def test_wandb_offline_and_a_server_that_does_not_answer(tmp_path: Path) -> None:
    words = (
        "--steps",
        10,
        "--limit-train",
        1280,
        "--limit-test",
        300,
        "--log.no-pictures",
        "--seeds",
        "0,1",
        "--name",
        "e",
    )
    start = time.monotonic()
    done = train(*words, runs=tmp_path / "offline", NETRC=str(tmp_path / "none"))
    assert done.returncode == 0
    assert time.monotonic() - start < 30
    run = only_run(tmp_path / "offline")
    ids = {p.name.split("-", 3)[3] for p in (run.path / "wandb").glob("offline-run-*")}
    assert ids == {f"e-{run.path.parent.name}-{seed}" for seed in (0, 1)}

    done = train(
        *words, "--log.wandb", "online", runs=tmp_path / "dead",
        WANDB_API_KEY="k" * 40, WANDB_BASE_URL="http://127.0.0.1:9",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "W&B does not answer or refuses, logging offline" in done.stdout
    assert "W&B is off" not in done.stdout
    assert len(list(only_run(tmp_path / "dead").path.glob("wandb/offline-run-*"))) == 2
    assert all(row["status"] == "finished" for row in only_run(tmp_path / "dead").results().values())
    assert json.loads((only_run(tmp_path / "dead").path / "status.json").read_text())["state"] == "finished"


LOGGED_IN = "import sys, wandb; from stn.tracking.wandb_run import logged_in; sys.exit(10 + logged_in(wandb))"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entry", "variables", "known"),
    [
        ("", {}, False),
        ("machine api.wandb.ai login user password ", {}, True),  # whatever the client calls that server today
        ("machine my.host:8080 login user password ", {"WANDB_BASE_URL": "http://my.host:8080"}, True),
        ("machine my.host login user password ", {"WANDB_BASE_URL": "http://another.host"}, False),
        ("", {"WANDB_API_KEY": "k" * 40, "WANDB_MODE": "offline"}, True),
        ("", {"WANDB_API_KEY": "too short"}, True),
    ],
)
def test_a_login_is_found_where_the_client_keeps_it(entry: str, variables: dict, known: bool, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text(f"{entry}{'k' * 40}\n" if entry else "")
    env = environment(HOME=str(tmp_path), NETRC=str(tmp_path / "netrc"), **variables)
    done = subprocess.run(
        [sys.executable, "-c", LOGGED_IN], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (10 + known, "", "")


MODE = "import wandb; from stn.tracking.log import WandbSink, Config; print(WandbSink.mode(wandb, Config()))"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["offline", "disabled", "online"])
def test_what_wandb_offline_has_set_holds_here_too(command: str, tmp_path: Path) -> None:
    env = environment(HOME=str(tmp_path), WANDB_CONFIG_DIR=str(tmp_path), WANDB_API_KEY="k" * 40)
    said = [
        subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=env | more, capture_output=True, text=True, timeout=60
        )
        for words, more in ((["-m", "wandb", command], {}), (["-c", MODE], {"PYTHONPATH": str(ROOT)}))
    ]
    assert (said[1].stdout, said[1].stderr) == (f"{command}\n", "")


ENDING = """
import os, signal, sys, psutil, wandb
from stn.tracking import wandb_run
wandb_run.EXIT_S = 1.0
wandb_run.bound_exit()
wandb.init(mode="offline", dir=sys.argv[1], settings=wandb.Settings(**wandb_run.QUIET)).finish()
core = [child for child in psutil.Process().children() if "wandb" in child.name()]
os.kill(core[0].pid, signal.SIGSTOP)
print(core[0].pid)
"""


@pytest.mark.slow
def test_a_wandb_process_that_hangs_does_not_hold_up_the_end(tmp_path: Path) -> None:
    words = [sys.executable, "-c", ENDING, str(tmp_path)]
    with subprocess.Popen(words, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        core = psutil.Process(int(process.stdout.readline()))
        try:
            assert process.wait(60) == 0
            core.wait(10)
        finally:
            for left in (core, process):
                with contextlib.suppress(psutil.NoSuchProcess):
                    left.kill()
