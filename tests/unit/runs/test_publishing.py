"""Published results: one row per seed, whatever dies and whoever publishes at the same time."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stn.commands.finish import record_failure
from stn.config.schema import Config
from stn.runs import files
from stn.runs.directory import RunDir
from stn.runs.files import publish, read_rows, write_atomic
from stn.runs.trials import Trial
from tests.support.paths import ROOT
from tests.support.records import result

pytestmark = pytest.mark.usefixtures("clock")

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


def test_rows_published_concurrently_are_whole_and_there_once(tmp_path: Path) -> None:
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


def test_a_writer_that_overwrites_newer_rows_notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_full_disk_leaves_no_row_and_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_lost_reply_of_link_is_not_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_seed_with_a_row_in_another_block_is_finished(tmp_path: Path) -> None:
    a, b = (RunDir.of(str(tmp_path), "x", "sig", seeds) for seeds in ([0, 1, 2], [2, 3]))
    b.add_results([result(2, by="b")])
    a.add_results([result(2, by="a")])
    assert not a.results.exists()
    assert a.finished()[2]["by"] == "b"


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


def test_a_process_that_never_held_the_lease_does_not_write_the_status(tmp_path: Path) -> None:
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
