"""What tests of sweeps on a Slurm leave behind."""

from collections.abc import Iterator

import pytest

from tests.support.cluster import NAME, Cluster
from tests.support.machine import wait_until


@pytest.fixture
def own_arrays(cluster: Cluster) -> Iterator[None]:
    """Arrays and reports that sweep.sh has submitted end with the test."""
    yield
    for name in (NAME, f"{NAME}-report"):
        cluster.call("scancel", f"--name={name}")
    wait_until("the end of all tasks", lambda: not cluster.call("squeue", "-h", f"--name={NAME}"), 60)
