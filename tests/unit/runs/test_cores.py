"""What other programs use of the cores: neither this launcher's processes nor what yields counts."""

import os
from types import SimpleNamespace

import psutil
import pytest

from stn.runs import cores as cores_module
from stn.runs.cores import Neighbours, share_cores


class Machine:
    """Two cores and a clock; ``used`` is the CPU time of every kind on both, ``own`` that of this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.own, self.niceness = 100.0, 5.0, 0
        self.used = [{"user": 50.0, "system": 10.0, "nice": 0.0, "idle": 40.0} for _ in range(3)]
        tree = SimpleNamespace(children=lambda recursive: [self.process(0.0)], cpu_times=lambda: self.times(self.own))
        monkeypatch.setattr(cores_module, "_usable_cores", lambda: {0, 1})
        monkeypatch.setattr(psutil, "cpu_times", lambda percpu: [SimpleNamespace(**core) for core in self.used])
        monkeypatch.setattr(psutil, "Process", lambda pid: tree)
        monkeypatch.setattr(cores_module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(cores_module.time, "sleep", self.sleep)
        monkeypatch.setattr(os, "nice", lambda step: self.niceness)
        self.slept: list[float] = []

    def times(self, user: float) -> SimpleNamespace:
        return SimpleNamespace(user=user, system=0.0)

    def process(self, user: float) -> SimpleNamespace:
        return SimpleNamespace(cpu_times=lambda: self.times(user))

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def later(self, seconds: float, core: int, own: float = 0.0, **used: float) -> None:
        self.now += seconds
        self.own += own
        for kind, more in used.items():
            self.used[core][kind] += more


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_a_busy_program_takes_a_core_and_this_process_does_not(machine: Machine) -> None:
    neighbours = Neighbours()
    machine.later(2.0, core=1, own=1.9, user=1.9)
    assert neighbours.busy_cores() == 0, "that was this process"
    machine.later(2.0, core=0, user=3.0, system=0.8)
    assert neighbours.busy_cores() == 1
    machine.later(0.0, core=0, user=90.0)
    assert neighbours.busy_cores() == 2, "no more than there are"


def test_what_yields_does_not_count_unless_this_process_yields_too(machine: Machine) -> None:
    neighbours = Neighbours()
    machine.later(2.0, core=0, nice=2.0)
    assert neighbours.busy_cores() == 0
    machine.niceness = 10
    neighbours = Neighbours()
    machine.later(2.0, core=0, nice=2.0)
    assert neighbours.busy_cores() == 1


def test_other_cores_and_idle_time_do_not_count(machine: Machine) -> None:
    neighbours = Neighbours()
    machine.later(2.0, core=2, user=2.0)
    machine.later(0.0, core=0, idle=2.0)
    assert neighbours.busy_cores() == 0


def test_it_waits_only_until_the_clock_can_tell(machine: Machine) -> None:
    neighbours = Neighbours()
    neighbours.busy_cores()
    machine.later(cores_module.SHORTEST_S + 1, core=0)
    neighbours.busy_cores()
    assert machine.slept == [pytest.approx(cores_module.SHORTEST_S), 0.0]


def test_free_cores_are_those_that_others_leave_and_at_least_one(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    assert (cores_module.free_cores(said.append), said) == (2, [])
    for busy, free in ((1, 1), (2, 1)):
        monkeypatch.setattr(Neighbours, "busy_cores", lambda self, busy=busy: busy)
        assert cores_module.free_cores(said.append) == free
    assert said == ["other programs keep 1 of 2 cores busy", "other programs keep 2 of 2 cores busy"]


@pytest.mark.parametrize(
    ("given", "spins", "huge"),
    [
        ({}, "30000", "1"),
        ({"GOMP_SPINCOUNT": "7", "THP_MEM_ALLOC_ENABLE": "0"}, "7", "0"),
        ({"OMP_WAIT_POLICY": "active"}, None, "1"),
    ],
)
def test_waiting_threads_spin_less_and_pages_are_huge_unless_the_user_decides(
    given: dict[str, str], spins: str | None, huge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "THP_MEM_ALLOC_ENABLE"):
        monkeypatch.setenv(name, "")  # to be restored, even if it was not there
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert isinstance(share_cores(), Neighbours)
    assert os.environ.get("GOMP_SPINCOUNT") == spins
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == huge
