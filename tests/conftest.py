"""Fixtures, and how pytest-xdist's workers share the machine: a file's tests stay on one worker."""

import contextlib
import os
import signal
import sys
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import torch

import tests.support.networks  # noqa: F401  (registers a network)
from stn.runs.cores import cores
from tests.support.machine import EVERY_CORE, bring_loopback_up, processes_with, wait_until
from tests.support.trainer import fork_server

if TYPE_CHECKING:
    from tests.support.cluster import Cluster
    from tests.support.wandb_server import WandbServer

collect_ignore_glob = [] if find_spec("wandb") else ["report/test_wandb_*.py", "sweeps/test_wandb_*.py"]
WORKER = os.environ.get("PYTEST_XDIST_WORKER")
ONE_DEVICE = ("tests/cluster/", "tests/gpu/", "tests/dryrun/")
"""Folders whose tests share a Slurm, a GPU or its stand-in: one worker runs all of a folder."""


def pytest_configure(config: pytest.Config) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and their children
    if WORKER and EVERY_CORE:
        _pin_to_cores()
    torch.set_num_threads(min(2, cores()))
    if sys.platform == "linux":
        try:
            bring_loopback_up()
        except PermissionError:
            pytest.exit("the loopback interface is down and only root can bring it up", returncode=3)


def _pin_to_cores() -> None:
    """Give this worker and its children cores of their own; threads that compete for a core only spin."""
    index, workers = int(str(WORKER).removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    every = sorted(EVERY_CORE)
    os.sched_setaffinity(0, every[index % workers :: workers] or [every[index % len(every)]])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return a worker per core that has 3 GB, for -n auto; none (0) where files or tests are named.

    A Slurm adds a worker: the one that runs its tests waits most of the time."""
    if any(not Path(argument).is_dir() for argument in config.args):
        return 0  # starting workers would take longer than most tests
    most = min(cores() + bool(os.environ.get("STN_SLURM")), psutil.virtual_memory().available // 3_000_000_000, 16)
    return most if most > 1 else 0


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    # Not --dist loadgroup: it renames the tests, and pytest 9.2 ignores that.
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False  # keep the order of pytest_collection_modifyitems

    several = _fit_on_the_device(len(config.getoption("tx") or []))

    class FileScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            if several and file.startswith("tests/gpu/"):
                return nodeid
            return next((folder for folder in ONE_DEVICE if file.startswith(folder)), file)

    return FileScheduling(config, log)


def _fit_on_the_device(workers: int) -> bool:
    """Whether a GPU has memory for a training of each worker: then its tests are spread over them."""
    return torch.cuda.is_available() and torch.cuda.get_device_properties(0).total_memory > workers * 4e9


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Print a failure of a test of the GPU when it happens: a run there may be cut short before the summary."""
    if report.failed and "gpu" in report.keywords and not WORKER:
        print(f"\n{report.nodeid}\n{report.longreprtext[-1500:]}", file=sys.__stderr__, flush=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the slow files first, so that no worker is left alone with one."""
    if WORKER:
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: (item.get_closest_marker("slurm") is None, item.path not in slow))


@pytest.fixture
def every_core() -> Iterator[None]:
    """Undo the pinning of this worker, for tests that count the machine's cores."""
    if not EVERY_CORE:
        yield
        return
    pinned = os.sched_getaffinity(0)
    os.sched_setaffinity(0, EVERY_CORE)
    yield
    os.sched_setaffinity(0, pinned)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute with one thread, for tests of many small networks, and of bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def no_leftover_processes() -> Iterator[None]:
    """Fail if a process that a test has started, here or on a cluster's node, outlives the tests."""
    mark = ("STN_TESTS", uuid.uuid4().hex)
    os.environ[mark[0]] = mark[1]  # children inherit it
    yield
    if fork_server.cache_info().currsize:
        fork_server().end()
    if "wandb" in sys.modules:  # its service lives as long as this process
        sys.modules["wandb"].teardown()
    with contextlib.suppress(AssertionError):
        wait_until("the end of all processes", lambda: not processes_with(*mark), 10)
    leftover = processes_with(*mark)
    for pid in leftover:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not leftover, f"the tests left processes behind (they are killed now): {leftover}"


@pytest.fixture(scope="session")
def cluster() -> "Iterator[Cluster]":
    """A Slurm with two nodes of two fake GPUs each; taken down again if it was not up before."""
    from tests.support.cluster import bring_up

    yield from bring_up()


@pytest.fixture
def cancel_jobs(cluster: "Cluster") -> Iterator[None]:
    """Cancel the jobs that a test has submitted."""
    before = len(cluster.jobs)
    yield
    for job in cluster.jobs[before:]:
        job.cancel()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Iterator[WandbServer]":
    """A loopback W&B server, the only one that the client in this process knows."""
    from tests.support.wandb_server import serve_this_process

    yield from serve_this_process(tmp_path, monkeypatch)
