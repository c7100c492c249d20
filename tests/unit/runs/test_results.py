"""Result rows: published once, checked, and repaired from their second copy."""

import errno
import json
import os
from pathlib import Path

import pytest

from stn.runs import files
from stn.runs.directory import RunDir
from stn.runs.records import Metric, Result, Status, valid
from tests.support.records import metric, result

SIG = "0123456789ab"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / SIG / "0-2")
    run.add_results([result(seed, sig=SIG, test_acc=0.9 + seed / 100) for seed in range(3)])
    assert run.is_whole()
    return run


DAMAGE = ["", "{", "[1]", "null", '{"seed": "1"}', json.dumps(result(1, sig="b" * 12)), json.dumps(result(7))]
DAMAGE += [
    json.dumps(result(1) | wrong)
    for wrong in ({"status": "done"}, {"test_acc": 9.0}, {"params": "many"}, {"world_size": [1]})
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_each_copy_of_a_row_is_repaired_from_the_other(run: RunDir, damage: str) -> None:
    before = run.results.read_text()
    for file in (run.results, run.published / "1"):
        lines = file.read_text().splitlines()
        file.write_text("\n".join([*lines[:1], damage, *lines[2:]][: len(lines)] if len(lines) > 1 else [damage]))
        assert run.rows().keys() == {0, 1, 2}
        assert run.rows()[1]["test_acc"] == 0.91
        assert not run.is_whole()
        told: list[str] = []
        run.heal(told.append)
        assert run.is_whole()
        assert run.results.read_text() == before
        if file == run.results:
            dropped = f"{run.results}: 1 damaged or foreign lines are dropped; .rows may have their other copy"
            assert told == [dropped]
    assert told == [f"{run.published / '1'} was damaged; repaired"]


def test_rows_of_another_run_in_a_directory_that_was_moved_do_not_count(run: RunDir) -> None:
    moved = RunDir(run.path.parent.with_name("moved") / "0-2")
    run.path.parent.rename(moved.path.parent)
    foreign = result(1, sig="f" * 12, test_acc=0.5) | {"row_sha256": None}
    with moved.results.open("a") as file:
        file.write(json.dumps(foreign) + "\n")
    (moved.published / "2").write_text(json.dumps(foreign | {"seed": 2}))
    (moved.published / "²").write_text("no seed's")
    moved = RunDir(moved.path)
    assert [row["test_acc"] for row in moved.rows().values()] == [0.9, 0.91, 0.92]
    assert moved.skipped_lines() == [f"{moved.results}: skipped 1 damaged, foreign or repeated lines"]
    moved.results.unlink()
    assert RunDir(moved.path).rows().keys() == {0, 1}


def test_a_copy_that_was_deleted_is_written_anew(run: RunDir) -> None:
    for file in (run.results, run.published / "1"):
        before = file.read_text()
        file.unlink()
        assert not run.is_whole()
        run.heal(print)
        assert run.is_whole()
        assert file.read_text() == before


def test_a_row_that_is_damaged_twice_is_trained_again(run: RunDir) -> None:
    row = run.rows()[1]
    (run.published / "1").write_text("{")
    run.results.write_text(
        "".join(line for line in run.results.read_text().splitlines(True) if '"seed": 1' not in line)
    )
    told: list[str] = []
    run.heal(told.append)
    assert told == [f"{run.published / '1'} was damaged; its seed is trained again"]
    assert run.rows().keys() == {0, 2}
    run.add_results([row])
    assert run.rows()[1] == row
    assert run.is_whole()


def test_a_row_that_is_published_over_a_damaged_one_counts(run: RunDir) -> None:
    row = run.rows()[1]
    run.forget({1})
    (run.published / "1").write_text("torn")
    run.add_results([row])
    assert run.rows()[1] == row


def test_a_plausible_edit_of_results_is_undone(run: RunDir) -> None:
    run.results.write_text(run.results.read_text().replace("0.91", "0.99"))
    assert not run.is_whole()
    run.heal(print)
    assert run.rows()[1]["test_acc"] == 0.91


def test_an_edit_of_both_copies_is_noticed(run: RunDir) -> None:
    for file in (run.results, run.published / "1"):
        file.write_text(file.read_text().replace("0.91", "0.99"))
    assert run.rows().keys() == {0, 2}
    told: list[str] = []
    run.heal(told.append)
    assert told == [
        f"{run.results}: 1 damaged or foreign lines are dropped; .rows may have their other copy",
        f"{run.published / '1'} was damaged; its seed is trained again",
    ]


def test_older_rows_without_a_hash_are_read(tmp_path: Path) -> None:
    run, old = RunDir(tmp_path / SIG / "0"), result(0, sig=SIG, test_acc=0.9)
    run.replace(run.published / "0", json.dumps(old) + "\n")
    run.replace(run.results, json.dumps(old) + "\n")
    assert run.is_whole()
    assert run.rows() == {0: old}


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_there_are_no_hard_links_a_name_is_still_created_once(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    new = run.published / "new"
    assert files.publish(new, "first")
    assert not files.publish(new, "second")
    assert new.read_text() == "first"
    run.forget({2})
    run.add_results([result(2, sig=SIG)])
    assert run.is_whole()
    second = RunDir(run.path)
    run.lease.take(print)
    run.lease.release()
    second.lease.take(print, patience_s=0)
    second.lease.release()


def test_another_error_of_link_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="No space left"):
        files.publish(tmp_path / "a", "text")


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (Result, result(0, lr=1), [{"seed": -1}, {"seed": True}, {"seed": 1.0}, {"reason": 3}, {"confusion": [["a"]]}]),
        (Metric, metric(0, 1), [{"kind": "x"}, {"step": -1}, {"epoch": "1"}, {"seed": None}, {"acc": 2}]),
        (
            Status,
            {"state": "running"},
            [{"state": "asleep"}, {"seeds": "a"}, {"seeds": None}, {"steps": 0}, {"step": "1"}],
        ),
    ],
)
def test_what_does_not_pass_the_schema_is_left_out(schema: type, good: dict, bad: list[dict]) -> None:
    assert valid([good, *(good | wrong for wrong in bad)], schema) == [good]
    assert valid([good | {"of a newer version": [1], "acc": 1.0000001}], schema)


def test_numbers_that_json_does_not_have_are_damage() -> None:
    assert files.parse_rows(['{"a": NaN}', '{"a": Infinity}', '{"a": 1}', "9" * 5000]) == [{"a": 1}]
