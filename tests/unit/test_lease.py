"""Leases and published results: one holder and one row, whatever dies and whoever competes."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from stn.commands.finish import record_failure
from stn.config.schema import Config
from stn.runs import files, lease
from stn.runs.directory import RunDir
from stn.runs.files import read_rows, write_atomic
from stn.runs.lease import Lease
from stn.runs.trials import Trial
from tests.support.paths import ROOT


@pytest.fixture(autouse=True)
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LEASE_S", 0.6)


def elsewhere(folder: Path, token: int = 1, **more) -> Path:
    """Write a lease of another machine."""
    holder = {"place": ["other"], "pid": 1, "since": 0.0, "job": None, "restart": 0, "beat": 0, "released": False}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / str(token)).write_text(json.dumps(holder | more))
    return folder / str(token)


def taken(folder: Path, patience_s: float = 0.0) -> float:
    """Return the seconds until the folder is ours."""
    start, mine = time.monotonic(), Lease(folder)
    mine.take(print, patience_s)
    mine.release()
    return time.monotonic() - start


def test_a_silent_holder_of_another_machine_is_waited_for_as_long_as_its_lease(tmp_path: Path) -> None:
    elsewhere(tmp_path, 7)
    assert 0.6 <= taken(tmp_path) < 3
    assert [p.name for p in tmp_path.iterdir()] == ["8"]


def test_a_beat_under_way_does_not_undo_that_it_was_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beating = threading.Event()

    def slow(path: Path, text: str) -> None:
        if not json.loads(text)["released"]:
            beating.set()
            time.sleep(0.3)
        write_atomic(path, text)

    monkeypatch.setattr(lease, "write_atomic", slow)
    mine = Lease(tmp_path)
    mine.take(print, 0.0)
    assert beating.wait(3)
    mine.release()
    time.sleep(0.5)
    assert mine.newest()[1]["released"]


BEATING = """
import json, sys, time
from pathlib import Path
from stn.runs.files import write_atomic
path = Path(sys.argv[1])
while True:
    holder = json.loads(path.read_text())
    write_atomic(path, json.dumps(holder | {"beat": holder["beat"] + 1}))
    time.sleep(0.1)
"""


def test_a_holder_of_another_machine_that_beats_is_left_alone(tmp_path: Path) -> None:
    beating = subprocess.Popen([sys.executable, "-c", BEATING, elsewhere(tmp_path)], cwd=ROOT)
    try:
        with pytest.raises(OSError, match=r"another process \(other:1\) is training"):
            taken(tmp_path, patience_s=1.5)
    finally:
        beating.kill()
        beating.wait()


@pytest.mark.parametrize("gone", ["released", "dead here", "earlier start of this job"])
def test_a_holder_that_is_known_to_be_gone_is_not_waited_for(
    gone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_S", 60.0)
    if gone == "released":
        elsewhere(tmp_path, released=True)
    elif gone == "dead here":
        dead = subprocess.Popen(["true"])
        dead.wait()
        elsewhere(tmp_path, place=lease._myself()["place"], pid=dead.pid)
    else:
        elsewhere(tmp_path, job="12", restart=1)
        monkeypatch.setenv("SLURM_JOB_ID", "12")
        monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert taken(tmp_path) < 2


def test_the_first_claim_of_a_job_finds_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert taken(tmp_path) < 1


def test_a_damaged_claim_is_waited_for_and_replaced(tmp_path: Path) -> None:
    (tmp_path / "3").write_bytes(b"\0\0")
    assert 0.6 <= taken(tmp_path) < 3


def test_another_start_of_the_same_number_is_no_reason_to_take_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(tmp_path, job="12", restart=2)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert taken(tmp_path) > 0.5


def test_who_has_been_replaced_writes_nothing_and_is_told_to_leave(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "sig" / "0-1")
    run.lock(tell=print)
    run.write_status("running", step=1)
    assert run.leave() is None
    elsewhere(run.lease.folder, run.lease.token + 1)
    deadline = time.monotonic() + 10
    while not run.leave() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert run.leave() == "another process has taken over"
    run.add_result({"seed": 0})
    run.add_metrics([{"seed": 0, "step": 1}])
    run.write_status("stopped")
    run.unlock()
    assert run.finished() == {}
    assert not run.metrics.exists()
    assert run.read_status()["state"] == "running"


def test_who_cannot_renew_takes_itself_for_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Lease(tmp_path)
    mine.take(print, 0)

    def gone(*_: object) -> None:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(lease, "write_atomic", gone)
    time.sleep(0.3)
    assert not mine.lost
    deadline = time.monotonic() + 10
    while not mine.lost and time.monotonic() < deadline:
        time.sleep(0.05)
    assert mine.lost


def test_a_holder_renews_what_it_holds(tmp_path: Path) -> None:
    mine = Lease(tmp_path)
    mine.take(print, 0)
    time.sleep(1.5)
    assert mine.newest()[1]["beat"] >= 2
    assert mine.held()
    assert mine.is_live()
    mine.release()
    assert not mine.is_live()


RACE = """
import sys, time
from pathlib import Path
from stn.runs.directory import RunDir
folder, me, start = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
blocks = ["0-19", "10-29"]
run = RunDir(folder / "x" / "sig" / blocks[me % 2])
while time.time() < start: pass
for seed in range(0, 20) if me % 2 == 0 else range(10, 30):
    run.add_result({"seed": seed, "by": me, "text": "x" * 5000})
"""


def test_rows_that_many_publish_at_once_are_there_once_and_whole(tmp_path: Path) -> None:
    start = time.time() + 2
    many = [subprocess.Popen([sys.executable, "-c", RACE, tmp_path, str(i), str(start)], cwd=ROOT) for i in range(6)]
    assert [one.wait() for one in many] == [0] * 6
    rows = [row for results in tmp_path.glob("x/sig/*/results.jsonl") for row in read_rows(results)]
    assert sorted(row["seed"] for row in rows) == list(range(30))
    assert all(len(row["text"]) == 5000 for row in rows)
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_row_is_kept_when_its_writer_dies_before_it_is_in_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(tmp_path / "sig" / "0-3")
    run.add_result({"seed": 0})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stn.runs.directory.write_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        run.add_result({"seed": 1})
    assert set(run.finished()) == {0, 1}
    monkeypatch.setattr("stn.runs.directory.write_atomic", write_atomic)
    run.mend_results()
    assert [row["seed"] for row in read_rows(run.results)] == [0, 1]


def test_who_writes_old_rows_over_new_ones_finds_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process publishes after this one has read results.jsonl and before it replaces the file."""
    mine, other = RunDir(tmp_path / "sig" / "0-3"), RunDir(tmp_path / "sig" / "0-3")

    def slow(path: Path, content: str) -> None:
        monkeypatch.setattr("stn.runs.directory.write_atomic", write_atomic)
        other.add_result({"seed": 1})
        write_atomic(path, content)

    monkeypatch.setattr("stn.runs.directory.write_atomic", slow)
    mine.add_result({"seed": 0})
    assert [row["seed"] for row in read_rows(mine.results)] == [0, 1]


def test_a_full_disk_leaves_no_row_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(tmp_path / "sig" / "0")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run.add_result({"seed": 0})
    assert run.finished() == {}
    assert not list(tmp_path.rglob("*.tmp"))
    monkeypatch.undo()
    run.add_result({"seed": 0})
    assert set(run.finished()) == {0}


def test_an_answer_lost_on_the_way_is_no_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over NFS the link may succeed and its reply be lost; the repeated request then reports that the name exists."""
    link = os.link

    def twice(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr(os, "link", twice)
    assert files.publish(tmp_path / "a", "1", tmp_path)
    monkeypatch.undo()
    assert not files.publish(tmp_path / "a", "2", tmp_path)
    assert (tmp_path / "a").read_text() == "1"


def test_a_row_of_another_block_is_enough(tmp_path: Path) -> None:
    a, b = (RunDir.of(str(tmp_path), "x", "sig", seeds) for seeds in ([0, 1, 2], [2, 3]))
    b.add_result({"seed": 2, "by": "b"})
    a.add_result({"seed": 2, "by": "a"})
    assert not a.results.exists()
    assert a.finished()[2]["by"] == "b"


def test_who_never_held_the_claim_leaves_its_holders_status_alone(tmp_path: Path) -> None:
    holder, other = RunDir(tmp_path / "sig" / "0-1"), RunDir(tmp_path / "sig" / "0-1")
    holder.lock(print)
    holder.write_status("running", seeds="0-1", step=7, steps=100)
    with pytest.raises(OSError, match="another process") as error:
        other.lock(print, patience_s=0)
    trial = Trial(Config(), "sig", 0, other)
    with pytest.raises(SystemExit):
        record_failure([trial], error.value)
    assert holder.read_status()["state"] == "running"
    with pytest.raises(SystemExit):
        record_failure([trial._replace(run=holder)], error.value)
    assert holder.read_status() | {"state": "failed", "step": 7, "steps": 100} == holder.read_status()
    holder.unlock()


def test_a_number_below_the_newest_is_no_claim(tmp_path: Path) -> None:
    """Seen 7 released; before the link others have taken 8 and 9, and whoever took 9 has removed 8."""
    elsewhere(tmp_path, 9)
    assert not Lease(tmp_path)._enter(8)
    assert [path.name for path in tmp_path.iterdir()] == ["9"]


def test_a_process_that_is_hidden_from_us_is_not_taken_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(tmp_path, place=lease._myself()["place"], pid=os.getppid())
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
        files.publish(run.published / "2", json.dumps({"seed": 2, "by": run.path.name}), run.path)
        run.mend_results()
    b.settle({2, 3})
    assert [len(run.rows()) for run in (a, b)] == [1, 0]
    assert b.finished()[2]["by"] == "0-2"


def test_forgotten_seeds_are_trained_again(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "sig" / "0-3")
    for seed in range(3):
        run.add_result({"seed": seed, "v": 1})
    run.forget({1})
    assert set(run.finished()) == {0, 2}
    run.add_result({"seed": 1, "v": 2})
    assert [(row["seed"], row["v"]) for row in read_rows(run.results)] == [(0, 1), (1, 2), (2, 1)]
