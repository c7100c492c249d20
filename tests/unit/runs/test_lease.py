"""Leases: one holder, whatever dies and whoever comes at the same time."""

import json
import os
import subprocess
import threading
from pathlib import Path

import psutil
import pytest

from stn.runs import lease
from stn.runs.directory import RunDir
from stn.runs.files import write_atomic
from stn.runs.lease import Lease
from tests.support.clock import Clock
from tests.support.records import metric, result

pytestmark = pytest.mark.usefixtures("clock")


def elsewhere(folder: Path, token: int = 1, **more) -> Path:
    """Write the lease of another machine's process."""
    holder = {"place": ["other"], "pid": 1, "since": 0.0, "job": None, "restart": 0, "beat": 0, "released": False}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / str(token)).write_text(json.dumps(holder | more))
    return folder / str(token)


def taken(folder: Path, patience_s: float = 0.0) -> float:
    """Take a lease and release it; return the seconds until it was ours."""
    start, mine = lease.time.monotonic(), Lease(folder)
    mine.take(print, patience_s)
    mine.release()
    return lease.time.monotonic() - start


def test_a_silent_holder_on_another_machine_is_waited_for_until_its_lease_expires(tmp_path: Path) -> None:
    elsewhere(tmp_path, 7)
    assert 60 <= taken(tmp_path) < 65
    assert [p.name for p in tmp_path.iterdir()] == ["8"]


def test_a_heartbeat_under_way_does_not_undo_the_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writing, may_write = threading.Event(), threading.Event()

    def slow(path: Path, text: str) -> None:
        if not json.loads(text)["released"]:
            writing.set()
            assert may_write.wait(10)
        write_atomic(path, text)

    mine = Lease(tmp_path)
    mine.take(print, 0.0)
    monkeypatch.setattr(lease, "write_atomic", slow)
    heartbeat, release = (threading.Thread(target=call) for call in (mine._renew, mine.release))
    heartbeat.start()
    assert writing.wait(10)
    release.start()
    release.join(0.1)  # without the lock it would have written by now
    may_write.set()
    heartbeat.join()
    release.join()
    assert mine.newest()[1]["released"]


def test_a_holder_on_another_machine_with_a_heartbeat_is_left_alone(tmp_path: Path, clock: Clock) -> None:
    path = elsewhere(tmp_path)

    def beat() -> None:
        holder = json.loads(path.read_text())
        path.write_text(json.dumps(holder | {"beat": holder["beat"] + 1}))

    clock.while_asleep = beat
    with pytest.raises(OSError, match=r"another process \(other:1\) is training"):
        taken(tmp_path, patience_s=90)
    assert clock.now > 1090


@pytest.mark.parametrize("gone", ["released", "dead here", "earlier start of this job"])
def test_a_holder_that_is_known_to_be_gone_is_not_waited_for(
    gone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if gone == "released":
        elsewhere(tmp_path, released=True)
    elif gone == "dead here":
        dead = subprocess.Popen(["true"])
        dead.wait()
        elsewhere(tmp_path, place=lease._this_process()["place"], pid=dead.pid)
    else:
        elsewhere(tmp_path, job="12", restart=1)
        monkeypatch.setenv("SLURM_JOB_ID", "12")
        monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert taken(tmp_path) == 0


def test_the_first_lease_of_a_job_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert taken(tmp_path) == 0


def test_a_damaged_lease_is_waited_for_and_replaced(tmp_path: Path) -> None:
    (tmp_path / "3").write_bytes(b"\0\0")
    assert 60 <= taken(tmp_path) < 65


def test_the_same_restart_of_a_job_does_not_take_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(tmp_path, job="12", restart=2)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert taken(tmp_path) >= 60


def test_a_replaced_holder_writes_nothing_and_has_a_reason_to_stop(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "sig" / "0-1")
    run.lease.take(print)
    run.write_status("running", step=1)
    assert run.stop_reason() is None
    elsewhere(run.lease.folder, run.lease.token + 1)
    run.lease._renew()
    assert run.stop_reason() == "another process has taken over"
    run.add_results([result(0)])
    run.add_metrics([metric(0, 1)])
    run.write_status("stopped")
    run.lease.release()
    assert run.finished() == {}
    assert not run.metrics.exists()
    assert run.read_status()["state"] == "running"


def test_a_holder_that_cannot_renew_gives_up_when_others_may_take_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    mine = Lease(tmp_path)
    mine.take(print, 0)

    def gone(*_: object) -> None:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(lease, "write_atomic", gone)
    mine._renew()
    clock.now += 60
    mine._renew()
    assert not mine.lost
    clock.now += 1
    mine._renew()
    assert mine.lost


def test_a_holder_renews_its_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beaten_twice = threading.Event()

    def write(path: Path, text: str) -> None:
        write_atomic(path, text)
        if json.loads(text)["beat"] >= 2:
            beaten_twice.set()

    monkeypatch.setattr(lease, "LEASE_S", 0.06)
    monkeypatch.setattr(lease, "write_atomic", write)
    mine = Lease(tmp_path)
    mine.take(print, 0)
    assert beaten_twice.wait(10)
    assert mine.held()
    assert mine.is_live()
    mine.release()
    assert not mine.is_live()


def test_a_number_below_the_newest_is_no_lease(tmp_path: Path) -> None:
    """Seen 7 released; before the link others have taken 8 and 9, and whoever took 9 has removed 8."""
    elsewhere(tmp_path, 9)
    assert not Lease(tmp_path)._enter(8)
    assert [path.name for path in tmp_path.iterdir()] == ["9"]


def test_a_process_that_is_hidden_from_us_is_not_taken_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(tmp_path, place=lease._this_process()["place"], pid=os.getppid())
    create_time = psutil.Process.create_time

    def hidden(process: psutil.Process) -> float:
        if process.pid == os.getppid():
            raise psutil.AccessDenied
        return create_time(process)

    monkeypatch.setattr(psutil.Process, "create_time", hidden)
    assert lease._lives_here(Lease(tmp_path).newest()[1]) is None
