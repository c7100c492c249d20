"""A run whose machine dies at any write to its directory resumes to the result of one that was never interrupted."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from stn.config.resolve import resolve
from stn.config.schema import Arch, Checkpoint, Config, Data, Eval, Log, Train
from stn.runs.lease import Lease
from stn.runs.trials import build_trials
from stn.training.runtime import Runtime
from stn.training.stop import Stop
from tests.support.trainer import Run, only_run

SYNC = ("fsync", "link", "replace", "unlink")
"""The calls of ``os`` by which a run directory changes durably."""


class Crash(BaseException):
    """The death of the process: not an Exception, so that nothing handles it."""


class Disk:
    """Counts the calls of ``SYNC``; from call number ``last`` on none of them happens any more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.last = 0, sys.maxsize
        self.synced_sizes: dict[int, int] = {}
        """Size of each file, by inode, when it was last synced."""
        for name in SYNC:
            monkeypatch.setattr(os, name, self._guarded(getattr(os, name)))

    def _guarded(self, call: Callable) -> Callable:
        def guarded(*arguments: object, **options: object) -> object:
            self.count += 1
            if self.count > self.last:
                raise Crash
            result = call(*arguments, **options)
            if call.__name__ == "fsync":
                file = os.fstat(cast(int, arguments[0]))
                self.synced_sizes[file.st_ino] = file.st_size
            return result

        return guarded

    def lose_unsynced(self, folder: Path) -> None:
        """Cut every file to what was synced of it, as a machine may that loses power."""
        for path in folder.rglob("*"):
            if path.is_file():
                os.truncate(path, min(path.stat().st_size, self.synced_sizes.get(path.stat().st_ino, 0)))


def train_here(runs: Path) -> Run:
    """Train two seeds for three steps in this process."""
    import train as script

    config = Config(
        arch=Arch(name="stn_c0", net="tutorial"),
        data=Data(batch_size=2, limit_train=16, limit_test=8),
        train=Train(seeds="0-1", steps=3, precision="fp64", fuse=2),
        eval=Eval(every="2 steps"),
        checkpoint=Checkpoint(every="1 steps"),
        log=Log(every="1 steps", wandb="disabled", pictures=False, runs=str(runs)),
    )
    config = resolve(config)
    assert script.train(Runtime(config, 2), Stop([], None, None), build_trials([config])) == 0
    return only_run(runs)


def measurements(run: Run) -> dict[tuple, float | None]:
    """Return the loss of each metrics row, by what the row is about; there must be no row twice."""
    rows = run.rows()
    losses = {(row["kind"], row["seed"], row["step"]): row.get("loss", row.get("test_loss")) for row in rows}
    assert len(losses) == len(rows)
    return losses


def assert_same(run: Run, expected: Run) -> None:
    """Compare bit for bit: the seeds of a block resume together and finish together."""
    assert measurements(run) == measurements(expected)
    assert [row["seed"] for row in run.rows("results.jsonl")] == [0, 1]
    for seed in (0, 1):
        for name, weight in expected.weights(seed).items():
            assert run.weights(seed)[name].equal(weight), name
    assert not list(run.path.rglob("*.tmp"))


PARTS = 8


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in range(1, PARTS))])
def test_a_crash_at_each_write_of_a_run_loses_nothing(
    part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    # A dead process holds no lease; this one lives on. Leases are tested in tests/unit/test_lease.py.
    monkeypatch.setattr(Lease, "take", lambda *_: None)
    monkeypatch.setattr(Lease, "held", lambda _: True)
    disk = Disk(monkeypatch)
    expected = train_here(tmp_path / "whole")
    writes = disk.count
    assert writes > 40, "a run writes less often than when this was written"
    for last in range(part, writes, PARTS):
        runs = tmp_path / str(last)
        disk.count, disk.last = 0, last
        with pytest.raises(Crash):
            train_here(runs)
        disk.last = sys.maxsize
        disk.lose_unsynced(runs)
        try:
            assert_same(train_here(runs), expected)
        except BaseException as error:
            error.add_note(f"after a crash at write {last + 1} of {writes}")
            raise
