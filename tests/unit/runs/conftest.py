"""A clock for leases."""

import pytest

from stn.runs import lease
from tests.support.clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(lease, "LEASE_S", 60.0)  # no heartbeat by itself within a test
    monkeypatch.setattr(lease, "time", Clock())
    return lease.time  # type: ignore[return-value]
