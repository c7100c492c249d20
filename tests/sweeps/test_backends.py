"""Another scheduler is one entry of the registry."""

from pathlib import Path

import pytest

from launch.sweep import backends, slurm
from launch.sweep import plan as plans
from launch.sweep.commands import Submission, retry, start_sweep
from launch.sweep.notes import read_note, write_note
from launch.sweep.plan import Plan, find_plan
from stn.runs.directory import RunDir
from tests.support.sweeps import TWO_CELLS, add_result, save_plan, write_sweep

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

    def check(self, plan: Plan) -> None: ...

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


@pytest.mark.parametrize(("on", "refusal"), [("local", "this machine has 0"), ("slurm", "no Slurm on this machine")])
def test_what_is_refused_keeps_the_records_of_failures(
    on: str, refusal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    plan = save_plan(tmp_path, TWO_CELLS | {"gpus": 1})
    crashed, diverged = plan.jobs
    write_note(plan, crashed, {"error": "boom"})
    add_result(plan, diverged, 0, status="failed", reason="non-finite loss")
    rule = plan.folder / "fail-fast.json"
    rule.write_text("kept")
    for command, what in ((start_sweep, str(tmp_path / "two.yaml")), (retry, "two")):
        with pytest.raises(ValueError, match=refusal):
            command(what, Submission(on=on, runs=str(tmp_path / "runs")))
        assert read_note(plan, crashed)["error"] == "boom"
        assert RunDir(plan.experiment / diverged.sig / diverged.block).rows()[0]["status"] == "failed"
        assert rule.read_text() == "kept"


def test_a_task_that_was_started_by_hand_outside_slurm_is_not_requeued(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(slurm, "run_slurm", lambda *words: pytest.fail(f"there is no job for {words}"))
    backends.find_backend("slurm").requeue()
