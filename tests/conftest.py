"""Helpers for all tests: the command line as a user types it, and run directories it leaves."""

import contextlib
import fcntl
import json
import os
import re
import runpy
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import torch
from torch import nn

from stn.config.registry import register
from stn.models.layers import Net, Shape, classify, conv, dense
from stn.runs.process import cores
from tests.support.forked import Starter

if TYPE_CHECKING:
    from tests.support.cluster import Cluster

ROOT = Path(__file__).parent.parent
CIFAR = next(
    (
        folder
        for folder in (Path(os.environ.get("STN_DATA", "data")), ROOT / "data", ROOT.parent / "shared" / "data")
        if (folder / "cifar-10-batches-bin" / "test_batch.bin").is_file()
    ),
    None,
)
needs_cifar = pytest.mark.skipif(CIFAR is None, reason="no CIFAR-10 on this machine (STN_DATA names its folder)")
QUIET = ("--log.wandb", "disabled", "--log.no-pictures")
SMALL = ("--limit-train", "1280", "--limit-test", "300", *QUIET)
LONG = {"test_train", "test_fused"}  # files whose tests start processes
TWO_THREADS = ("--train.threads", "2")  # for bits: two threads cut tensors up, whatever the cores of this machine


BATCH_NORM = "batch_norm"


@register("net", BATCH_NORM)
def batch_norm(wiring: str, classes: int) -> Net:
    """For 28x28 images: batch norm and both kinds of dropout, which no network of the papers has together."""

    def first(shape: Shape) -> nn.Module:
        return nn.Sequential(nn.Conv2d(shape[0], 8, 5), nn.BatchNorm2d(8), nn.MaxPool2d(2), nn.ReLU())

    coordinates = {} if wiring == "stn_c0_coord" else None
    stages = [first, conv(16, 5, dropout=0.3), classify(classes, 32, dropout=0.5)]
    return Net(stages, [conv(8, 5, coordinates=coordinates), dense(16)])


def invert(theta_B23: torch.Tensor) -> torch.Tensor:
    """The affine matrix that undoes another one."""
    a, b, c, d = (theta_B23[:, i, j] for i in (0, 1) for j in (0, 1))
    inverse = torch.stack([d, -b, -c, a], dim=1).view(-1, 2, 2) / (a * d - b * c).view(-1, 1, 1)
    shift = (inverse * theta_B23[:, None, :2, 2]).sum(-1, keepdim=True)
    return torch.cat([inverse, -shift], dim=2)


def _loopback_up() -> None:
    """Without any network (unshare -n) the loopback is down as well, and two ranks cannot meet."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(s, 0x8913, request))[1]
        if not flags & 1:
            fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", flags | 1))


EVERY_CORE = os.sched_getaffinity(0) if sys.platform == "linux" else set()
WORKER = os.environ.get("PYTEST_XDIST_WORKER")


def _stay_on_own_cores() -> None:
    """A worker and what it starts have as many threads as cores here; threads that fight for a core only spin."""
    number, workers = int(str(WORKER).removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    every = sorted(EVERY_CORE)
    os.sched_setaffinity(0, every[number % workers :: workers] or [every[number % len(every)]])


@pytest.fixture
def every_core() -> Iterator[None]:
    """For what says how many processes there are to be on this machine."""
    if not EVERY_CORE:
        yield
        return
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, EVERY_CORE)
    yield
    os.sched_setaffinity(0, own)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """For -n auto: a worker for each core that has 3 GB with it, none (0) where files or tests are named.

    One more where there is a Slurm: whoever has its tests waits most of the time."""
    if any(not Path(argument).is_dir() for argument in config.args):
        return 0  # the start of workers would take longer than most tests, and output comes as it is printed
    most = min(cores() + bool(os.environ.get("STN_SLURM")), psutil.virtual_memory().available // 3_000_000_000, 16)
    return most if most > 1 else 0


@cache
def _sharing(file: str) -> tuple[str | None, set[str]]:
    """What all tests of a file share with other files, and the tests that share a run within it."""
    text = (ROOT / file).read_text()
    device = next((mark for mark in ("pytest.mark.gpu", "pytest.mark.slurm") if mark in text), None)
    made_once = r'fixture\(scope="module"\)\ndef (\w+)'
    names = "|".join(re.findall(made_once, text)) or "$"
    return device, set(re.findall(rf"def (test_\w+)\((?:[^)]*\W)?(?:{names}): ", text))


def _unit(nodeid: str) -> str:
    """One worker has all of a unit: what waits for the same device, what shares a run; else a test by itself.

    By the text, since the process that deals out tests knows their names only. (xdist's own
    --dist loadgroup appends the group to these names, which pytest 9.2 ignores.)
    """
    file, _, test = nodeid.partition("::")
    device, users = _sharing(file)
    return device or (file if test.partition("[")[0] in users else nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    from xdist.scheduler import LoadScopeScheduling

    class Units(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _unit(nodeid)

    return Units(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if WORKER:  # long ones first: then no worker is left with one when the others have nothing to do
        marks = ("slurm", "slow")
        items.sort(key=lambda item: [item.get_closest_marker(m) is None for m in marks] + [item.path.stem not in LONG])


def pytest_configure(config: pytest.Config) -> None:
    if WORKER and EVERY_CORE:
        _stay_on_own_cores()
    torch.set_num_threads(min(2, cores()))
    if sys.platform == "linux":
        try:
            _loopback_up()
        except PermissionError:
            pytest.exit("the loopback interface is down and only root can bring it up", returncode=3)


def command(*arguments: object, launcher: str | None = None, runs: Path | None = None) -> list[str]:
    start = [sys.executable]
    if launcher:
        on_cpu = ["env", "ACCELERATE_USE_CPU=true"] if launcher == "cpu2" else []  # where there are GPUs as well
        start = [*on_cpu, str(Path(sys.executable).parent / "accelerate"), "launch", "--config_file"]
        start.append(str(ROOT / "configs" / "accelerate" / f"{launcher}.yaml"))
    where = ["--runs", str(runs)] if runs else []
    return [*start, str(ROOT / "train.py"), *map(str, arguments), *where]


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "ACCELERATE_"))}
    return kept | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "WANDB_SILENT": "true"} | more


@cache
def starter() -> Starter:
    return Starter(environment())


def train(
    *arguments: object, launcher: str | None = None, runs: Path | None = None, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    line = command(*arguments, launcher=launcher, runs=runs)
    if sys.platform == "linux" and not (launcher or cwd or env):  # what a start itself reads is not asked for
        return starter().run(line[1:], environment())
    return subprocess.run(
        line,
        capture_output=True,
        text=True,
        env=environment(**env),
        cwd=cwd,
        timeout=500,
        check=False,
    )


def exit_code_here(script: str, *arguments: object, monkeypatch: pytest.MonkeyPatch) -> object:
    """Of a script, started as from the command line but in this process, without the seconds that imports take."""
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    return left.value.code


class Run:
    """What a run directory says."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def results(self) -> dict[int, dict]:
        return {row["seed"]: row for row in self.rows("results.jsonl")}

    def rows(self, name: str = "metrics.jsonl") -> list[dict]:
        return [json.loads(line) for line in (self.path / name).read_text().splitlines()]

    def figures(self) -> list[dict]:
        """The metrics without what a clock says."""
        return [{k: v for k, v in row.items() if k != "images_per_s"} for row in self.rows()]

    def status(self) -> dict:
        path = self.path / "status.json"
        return json.loads(path.read_text()) if path.exists() else {}


def only_run(runs: Path) -> Run:
    (path,) = runs.glob("*/*/*")
    return Run(path)


@pytest.fixture(scope="session", autouse=True)
def no_process_left() -> Iterator[None]:
    """Whatever the tests start, on this machine or on a cluster's nodes, has ended when they have."""
    from tests.support.cluster import leftover_processes

    mark = ("STN_TESTS", uuid.uuid4().hex)
    os.environ[mark[0]] = mark[1]  # whoever is started inherits it
    yield
    if starter.cache_info().currsize:
        starter().end()
    if "wandb" in sys.modules:  # its service lives as long as this process
        sys.modules["wandb"].teardown()
    deadline = time.monotonic() + 10
    while (left := leftover_processes(*mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left, f"the tests left processes behind (they are ended now): {left}"


@pytest.fixture(scope="session")
def cluster() -> "Iterator[Cluster]":
    """A Slurm with two nodes of two GPUs, none of them real; taken down again if it was not up before."""
    from tests.support.cluster import bring_up

    yield from bring_up()


@pytest.fixture
def own_jobs(cluster: "Cluster") -> Iterator[None]:
    """Whatever a test has submitted ends with it."""
    before = len(cluster.jobs)
    yield
    for job in cluster.jobs[before:]:
        job.cancel()
