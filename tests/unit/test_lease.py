"""Leases and published results: one holder, one row, whatever dies and whoever comes at the same time."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from stn.commands.finish import record_failure
from stn.config.schema import Config
from stn.runs import files, lease
from stn.runs.directory import RunDir
from stn.runs.files import publish, read_rows, write_atomic
from stn.runs.lease import Lease
from stn.runs.trials import Trial
from tests.support.paths import ROOT
from tests.support.records import metric, result


class Clock:
    """Stands in for the time module: only sleeping moves it, ten times as far."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.while_asleep: Callable[[], None] = lambda: None
        self.time = time.time

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += 10 * seconds
        self.while_asleep()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(lease, "LEASE_S", 60.0)  # no heartbeat by itself within a test
    monkeypatch.setattr(lease, "time", Clock())
    return lease.time  # type: ignore[return-value]


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


def test_a_silent_holder_of_another_machine_is_waited_for_as_long_as_its_lease(tmp_path: Path) -> None:
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


def test_a_holder_of_another_machine_that_beats_is_left_alone(tmp_path: Path, clock: Clock) -> None:
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


def test_another_start_of_the_same_number_is_no_reason_to_take_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


RACE = """
import sys
from pathlib import Path
from stn.runs.directory import RunDir
folder, me = Path(sys.argv[1]), int(sys.argv[2])
blocks = ["0-19", "10-29"]
run = RunDir(folder / "x" / "sig" / blocks[me % 2])
print("ready", flush=True)
sys.stdin.readline()
for seed in range(0, 20) if me % 2 == 0 else range(10, 30):
    run.add_results([{"seed": seed, "status": "finished", "by": me, "text": "x" * 5000}])
"""


def test_rows_that_many_publish_at_once_are_there_once_and_whole(tmp_path: Path) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen([sys.executable, "-c", RACE, tmp_path, str(i)], cwd=ROOT, **pipes) for i in range(6)]
    assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 6  # type: ignore[union-attr]
    for racer in racers:
        print(file=racer.stdin, flush=True)
    assert [racer.communicate() and racer.returncode for racer in racers] == [0] * 6
    rows = [row for results in tmp_path.glob("x/sig/*/results.jsonl") for row in read_rows(results)]
    assert sorted(row["seed"] for row in rows) == list(range(30))
    assert all(len(row["text"]) == 5000 for row in rows)
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_row_is_kept_when_its_writer_dies_before_it_is_in_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(tmp_path / "sig" / "0-3")
    run.add_results([result(0)])

    def killed(path: Path, *arguments: Any) -> bool:
        if path == run.results:
            raise KeyboardInterrupt
        return write_atomic(path, *arguments)

    monkeypatch.setattr("stn.runs.results.write_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        run.add_results([result(1)])
    assert set(run.finished()) == {0, 1}
    monkeypatch.setattr("stn.runs.results.write_atomic", write_atomic)
    run.heal(print)
    assert [row["seed"] for row in read_rows(run.results)] == [0, 1]


def test_a_writer_that_dies_between_the_rows_of_a_block_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(tmp_path / "sig" / "0-1")

    def killed(path: Path, content: str) -> bool:
        if path.name == "1":
            raise KeyboardInterrupt
        return publish(path, content)

    monkeypatch.setattr("stn.runs.results.publish", killed)
    with pytest.raises(KeyboardInterrupt):
        run.add_results([result(0), result(1)])
    monkeypatch.setattr("stn.runs.results.publish", publish)
    run.publish_pending()
    assert set(run.finished()) == {0, 1}
    assert [path.name for path in sorted(run.published.iterdir())] == ["0", "1"]


def test_who_writes_old_rows_over_new_ones_finds_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process publishes after this one has read results.jsonl and before it replaces the file."""
    mine, other = RunDir(tmp_path / "sig" / "0-3"), RunDir(tmp_path / "sig" / "0-3")

    def slow(path: Path, *arguments: Any) -> bool:
        if path == mine.results:
            monkeypatch.setattr("stn.runs.results.write_atomic", write_atomic)
            other.add_results([result(1)])
        return write_atomic(path, *arguments)

    monkeypatch.setattr("stn.runs.results.write_atomic", slow)
    mine.add_results([result(0)])
    assert [row["seed"] for row in read_rows(mine.results)] == [0, 1]


def test_a_full_disk_leaves_no_row_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(tmp_path / "sig" / "0")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run.add_results([result(0)])
    assert run.finished() == {}
    assert not list(tmp_path.rglob("*.tmp"))
    monkeypatch.undo()
    run.add_results([result(0)])
    assert set(run.finished()) == {0}


def test_an_answer_lost_on_the_way_is_no_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over NFS the link may succeed and its reply be lost; the repeated request then reports that the name exists."""
    link = os.link

    def twice(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr(os, "link", twice)
    assert files.publish(tmp_path / "a", "1")
    monkeypatch.undo()
    assert not files.publish(tmp_path / "a", "2")
    assert (tmp_path / "a").read_text() == "1"


def test_a_row_of_another_block_is_enough(tmp_path: Path) -> None:
    a, b = (RunDir.of(str(tmp_path), "x", "sig", seeds) for seeds in ([0, 1, 2], [2, 3]))
    b.add_results([result(2, by="b")])
    a.add_results([result(2, by="a")])
    assert not a.results.exists()
    assert a.finished()[2]["by"] == "b"


def test_who_never_held_the_lease_leaves_its_holders_status_alone(tmp_path: Path) -> None:
    holder, other = RunDir(tmp_path / "sig" / "0-1"), RunDir(tmp_path / "sig" / "0-1")
    holder.lease.take(print)
    holder.write_status("running", seeds="0-1", step=7, steps=100)
    with pytest.raises(OSError, match="another process") as error:
        other.lease.take(print, patience_s=0)
    trial = Trial(Config(), "sig", 0, other)
    with pytest.raises(SystemExit):
        record_failure([trial], error.value)
    assert holder.read_status()["state"] == "running"
    with pytest.raises(SystemExit):
        record_failure([trial._replace(run=holder)], error.value)
    assert holder.read_status() | {"state": "failed", "step": 7, "steps": 100} == holder.read_status()
    holder.lease.release()


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


def test_rows_of_two_blocks_are_settled_after_a_kill(tmp_path: Path) -> None:
    a, b = RunDir(tmp_path / "sig" / "0-2"), RunDir(tmp_path / "sig" / "2-3")
    for run in (a, b):  # both published, neither looked
        run.path.mkdir(parents=True)
        files.publish(run.published / "2", json.dumps(result(2, by=run.path.name)))
        run.heal(print)
    b.settle({2, 3})
    assert [len(run.rows()) for run in (a, b)] == [1, 0]
    assert b.finished()[2]["by"] == "0-2"


def test_forgotten_seeds_are_trained_again(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "sig" / "0-3")
    for seed in range(3):
        run.add_results([result(seed, v=1)])
    run.forget({1})
    assert set(run.finished()) == {0, 2}
    run.add_results([result(1, v=2)])
    assert [(row["seed"], row["v"]) for row in read_rows(run.results)] == [(0, 1), (1, 2), (2, 1)]
