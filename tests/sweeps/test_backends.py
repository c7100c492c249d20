"""Another scheduler is one entry of the registry."""

from pathlib import Path

import pytest

from launch.sweep import backends
from launch.sweep import plan as plans
from launch.sweep.commands import Submission, retry, start_sweep
from launch.sweep.plan import Plan, find_plan
from tests.support.sweeps import TWO_CELLS, write_sweep

# ---- back ends


class FakeBackend:
    """A scheduler that keeps what it is given in its queue."""

    runs_here = False

    def __init__(self) -> None:
        self.queue: list[str] = []

    def active_jobs(self, plan: Plan, release_held: bool) -> set[str]:
        return set(self.queue)

    def preview(self, plan: Plan, jobs: list[plans.Job], max_parallel: int | None) -> str:
        return f"would queue {len(jobs)}"

    def submit(self, plan: Plan, jobs: list[plans.Job], max_parallel: int | None) -> int:
        self.queue += [job.id for job in jobs][:max_parallel]
        return 0

    def requeue(self) -> None:
        pytest.fail("only a task on its node requeues its job")


def test_another_scheduler_is_one_entry_of_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake, runs = FakeBackend(), str(tmp_path / "runs")
    monkeypatch.setitem(backends.BACKENDS, "fake", fake)
    path = str(write_sweep(tmp_path, TWO_CELLS))
    assert start_sweep(path, Submission(on="fake", dry_run=True, runs=runs)) == 0
    assert "would queue 2" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
    assert start_sweep(path, Submission(on="fake", max_parallel=1, runs=runs)) == 0
    plan = find_plan("two", runs)
    assert fake.queue == [plan.jobs[0].id]
    assert retry("two", Submission(on="fake", runs=runs)) == 0
    assert fake.queue == [job.id for job in plan.jobs], "what is queued is not submitted again"
    assert retry("two", Submission(on="fake", runs=runs)) == 0
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no back end 'slrum' for --on; did you mean 'slurm'"):
        retry("two", Submission(on="slrum", runs=runs))
