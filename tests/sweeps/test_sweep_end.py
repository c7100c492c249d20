"""How a sweep on this machine ends: its status, and what to type next."""

from pathlib import Path

import pytest

from launch.sweep import backends
from launch.sweep.commands import Submission, start_sweep
from launch.sweep.plan import Job, Plan
from stn.config.seed_list import parse_seeds
from tests.support.sweeps import TWO_CELLS, add_result, write_sweep


class Finishing:
    """A back end that ends every job at once."""

    def __init__(self, runs_here: bool) -> None:
        self.runs_here = runs_here

    def active_jobs(self, plan: Plan, release_held: bool) -> set[str]:
        return set()

    def preview(self, plan: Plan, jobs: list[Job], max_parallel: int | None) -> str:
        return ""

    def submit(self, plan: Plan, jobs: list[Job], max_parallel: int | None) -> int:
        for job in jobs:
            for seed in parse_seeds(job.seeds):
                add_result(plan, job, seed)
        return 0

    def requeue(self) -> None: ...


@pytest.mark.parametrize("runs_here", [True, False])
def test_a_sweep_here_ends_with_its_status(
    runs_here: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(backends.BACKENDS, "local", Finishing(runs_here))
    file = write_sweep(tmp_path, TWO_CELLS)
    assert start_sweep(str(file), Submission(runs=str(tmp_path / "my runs"))) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert (["cnn", "mnist", "4", "-", "-", "-", "-", "90.00%", "0.00%"] in lines) == runs_here
    compare = ["compare", "python", "-m", "launch", "report", f"'{tmp_path}/my", "runs/two'"]
    assert (lines[-1] == compare) == runs_here
