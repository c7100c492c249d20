"""How a sweep on this machine ends: its status and its report."""

from pathlib import Path

import pytest

from launch.report import build
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

    def check(self, plan: Plan) -> None: ...

    def submit(self, plan: Plan, jobs: list[Job], max_parallel: int | None) -> int:
        for job in jobs:
            for seed in parse_seeds(job.seeds):
                add_result(plan, job, seed)
        return 0

    def requeue(self) -> None: ...


def run_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs_here: bool) -> int:
    monkeypatch.setitem(backends.BACKENDS, "local", Finishing(runs_here))
    return start_sweep(str(write_sweep(tmp_path, TWO_CELLS)), Submission(runs=str(tmp_path / "my runs")))


@pytest.mark.parametrize("runs_here", [True, False])
def test_a_sweep_here_ends_with_its_status_and_report(
    runs_here: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_sweep(tmp_path, monkeypatch, runs_here) == 0
    out = capsys.readouterr().out
    row = ["cnn", "mnist", "4", "-", "-", "-", "-", "90.00%", "0.00%"]
    assert (row in [line.split() for line in out.splitlines()]) == runs_here
    page = tmp_path / "my runs" / "two" / "report" / "index.html"
    assert page.is_file() == runs_here
    assert (f"report    {page}" in out) == runs_here


def test_a_report_that_fails_does_not_fail_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no fonts")

    monkeypatch.setattr(build, "compare", fail)
    assert run_sweep(tmp_path, monkeypatch, True) == 0
    again = f"again with: python -m launch report '{tmp_path / 'my runs' / 'two'}'"
    assert capsys.readouterr().out.splitlines()[-1] == f"warning: no report (RuntimeError: no fonts); {again}"


def test_without_a_result_there_is_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Finishing, "submit", lambda *_: 0)
    assert run_sweep(tmp_path, monkeypatch, True) == 0
    assert "no report: no seed has a result yet" in capsys.readouterr().out
    assert not (tmp_path / "my runs" / "two" / "report").exists()
