"""Files of a run directory: atomic, one row per seed, and none left over."""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stn.runs import files
from stn.runs.directory import RunDir
from stn.tracking.pictures import warps_file
from stn.training import checkpoints
from tests.support.records import metric, result


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    files.write_atomic(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"No space left.*{path}"):
        files.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_contents_are_synced_before_a_name_appears_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def recorded(name: str) -> Callable:
        call = getattr(os, name)

        def record(first: Any, *more: Any, **options: Any) -> object:
            is_folder = name == "fsync" and stat.S_ISDIR(os.fstat(first).st_mode)
            calls.append("fsync folder" if is_folder else name)
            return call(first, *more, **options)

        return record

    for name in ("fsync", "link", "replace"):
        monkeypatch.setattr(os, name, recorded(name))
    files.write_atomic(tmp_path / "a", "text")
    assert calls == ["fsync", "replace", "fsync folder"]
    calls.clear()
    assert files.publish(tmp_path / "b", "text")
    assert calls == ["fsync", "link", "fsync folder"]


def test_a_copy_whose_temporary_file_was_swept_has_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy was paused with its temporary file written; its successor has deleted that file."""
    link = os.link

    def late(temporary: Path, path: Path) -> None:
        temporary.unlink()
        link(temporary, path)

    monkeypatch.setattr(os, "link", late)
    assert not files.publish(tmp_path / "rows" / "0", "text")
    assert not list((tmp_path / "rows").iterdir())


def test_a_copy_that_is_deposed_between_its_check_and_the_rename_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its successor has deleted the temporary file."""
    rename, run = Path.replace, RunDir(tmp_path / "x" / "sig" / "0")
    run.lease.take(print)

    def late(temporary: Path, path: Path) -> None:
        if deposed:
            (run.lease.folder / "2").write_text("{}")
        temporary.unlink()
        rename(temporary, path)

    monkeypatch.setattr(Path, "replace", late)
    deposed = False
    with pytest.raises(FileNotFoundError):
        run.replace(run.status, "text")
    deposed = True
    assert not run.replace(run.status, "text")
    (run.lease.folder / "2").unlink()
    run.lease.lost = None
    run.cut_metrics([], 0)
    run.close_metrics()
    assert not run.status.exists()
    assert not run.metrics.exists()


def test_rows_that_a_deposed_copy_appends_are_not_kept(tmp_path: Path) -> None:
    """The copy was paused, does not know of its successor, and has metrics.jsonl open."""
    deposed, successor = RunDir(tmp_path), RunDir(tmp_path)
    deposed.cut_metrics([0], -1)
    deposed.add_metrics([metric(0, 1), metric(0, 2)])
    successor.cut_metrics([0], 1)
    successor.add_metrics([metric(0, 2, by="successor")])
    deposed.add_metrics([metric(0, 3)])
    deposed.sync_metrics()
    assert files.read_rows(successor.metrics) == [metric(0, 1), metric(0, 2, by="successor")]
    for run in (deposed, successor):
        run.close_metrics()


def test_torn_and_foreign_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"seed": 1}\n[1]\n\xff\n{"seed": 2, "x', encoding="latin-1")
    assert files.read_rows(path) == [{"seed": 1}]
    assert files.read_rows(tmp_path / "none") == []


def test_one_result_row_per_seed_and_finished_over_blocks(tmp_path: Path) -> None:
    a, b = (RunDir.of(str(tmp_path), "x", "sig", seeds) for seeds in ([0, 1], [1, 2]))
    a.add_results([result(1, v=1)])
    a.add_results([result(0, v=2)])
    a.add_results([result(1, v=3)])
    b.add_results([result(2, v=4)])
    assert [(r["seed"], r["v"]) for r in files.read_rows(a.results)] == [(0, 2), (1, 1)]
    assert set(b.finished()) == {0, 1, 2}


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.add_metrics([metric(s, t) for t in (5, 10, 15) for s in (0, 1)])
    with run.metrics.open("a") as file:
        file.write('{"seed": 0, "step"')
    run.cut_metrics([0], 10)
    assert [(r["seed"], r["step"]) for r in files.read_rows(run.metrics)] == [
        (0, 5),
        (1, 5),
        (0, 10),
        (1, 10),
        (1, 15),
    ]


def test_a_second_copy_is_kept_out_until_the_first_leaves(tmp_path: Path) -> None:
    first, second = RunDir(tmp_path), RunDir(tmp_path)
    first.lease.take(print)
    with pytest.raises(OSError, match=rf"another process \(.*:{os.getpid()}\)"):
        second.lease.take(print, patience_s=0)
    first.lease.release()
    second.lease.take(print, patience_s=0)
    second.lease.release()


def test_long_seed_lists_get_a_short_folder(tmp_path: Path) -> None:
    block = RunDir.of(str(tmp_path), "x", "sig", list(range(0, 2000, 2))).path.name
    assert block.startswith("1000-seeds-")
    assert len(block) < 40


def test_temporary_files_of_killed_processes_do_not_stay(tmp_path: Path) -> None:
    run, here = RunDir(tmp_path), socket.gethostname()
    dead, living = f".x.{here}-999999998-1.tmp", f".x.{here}-{os.getppid()}-1.tmp"
    folders = [tmp_path, run.published, run.pictures, run.lease.folder, run.checkpoints / "seed-0"]
    folders.append(warps_file(run, 0, 10).parent)
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (dead, living, ".x.elsewhere-1-1.tmp"):
            (folder / name).touch()
    checkpoints.drop_temporary_files(run, has_lease=False)
    assert not list(tmp_path.rglob(dead))
    assert len(list(tmp_path.rglob(".x.*.tmp"))) == 2 * len(folders)
    checkpoints.drop_temporary_files(run)
    assert {path.parent for path in tmp_path.rglob(".x.*.tmp")} == {run.lease.folder}
