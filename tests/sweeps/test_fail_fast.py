"""--fail-fast N: after N failed jobs no other starts, here and on Slurm; the status says so."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from launch.sweep import fail_fast, local
from launch.sweep import plan as plans
from launch.sweep.commands import Submission, print_status, retry, run_task, start_sweep
from launch.sweep.notes import write_note
from launch.sweep.plan import Plan, find_plan
from stn.config.seed_list import parse_seeds
from tests.support.sweeps import TWO_CELLS, add_result, launch, save_plan, write_sweep

EIGHT = TWO_CELLS | {"seeds_per_job": 1}
FAILING = {"cnn"}
"""Architectures whose jobs fail in these tests."""


class Failed:
    """An attempt that has ended at once: failed for some architectures, done for the others."""

    def __init__(self, plan: Plan, job: plans.Job, log: Path, devices: dict[str, str]) -> None:
        self.plan, self.job, self.devices, self.child = plan, job, devices, self

    def poll(self) -> int:
        return 0

    def outcome(self) -> str:
        if self.job.arch in FAILING:
            write_note(self.plan, self.job, {"error": "boom"})
            return "failed"
        for seed in parse_seeds(self.job.seeds):
            add_result(self.plan, self.job, seed)
        return "done"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(local, "Attempt", Failed)
    monkeypatch.setattr("launch.sweep.local.time.sleep", lambda seconds: None)
    monkeypatch.setattr("launch.sweep.local.build_workers", lambda plan, most: [{}, {}])
    return str(write_sweep(tmp_path, EIGHT))


def submission(tmp_path: Path, **more: Any) -> Submission:
    return Submission(runs=str(tmp_path / "runs"), **more)


def test_no_job_starts_after_so_many_failures(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start_sweep(file, submission(tmp_path, fail_fast=2)) == 1
    out = capsys.readouterr().out
    plan = find_plan("two", str(tmp_path / "runs"))
    assert (
        "ended early: 2 jobs failed (--fail-fast 2), 6 jobs left; fix the cause, then run: python -m launch retry"
        in out
    )
    assert len(list((plan.folder / "jobs").glob("*.json"))) == 2
    assert start_sweep(file, submission(tmp_path)) == 1  # without the flag all jobs run
    out = capsys.readouterr().out
    assert "4 failed, 4 done" in out
    assert "ended early" not in out


def test_a_retry_counts_its_own_failures(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A seed whose loss became non-finite stays failed in a sweep that is started again, and does not end it."""
    plan = save_plan(tmp_path, EIGHT)
    for job in plan.jobs[:2]:
        add_result(plan, job, int(job.seeds), status="failed", reason="non-finite loss")
    assert start_sweep(file, submission(tmp_path, fail_fast=1)) == 1
    out = capsys.readouterr().out
    told = launch("status", "two", "--json", "--runs", tmp_path / "runs").stdout
    assert json.loads(told)["ended_early"] == "2 jobs failed (--fail-fast 1)"
    assert "1 job failed (--fail-fast 1): 4 waiting jobs left, 1 to finish" in out  # of two workers
    assert "ended early: 2 jobs failed (--fail-fast 1), 4 jobs left" in out
    shutil.rmtree(plan.folder / "jobs")
    assert retry("two", submission(tmp_path, fail_fast=3)) == 1
    assert "4 jobs failed (--fail-fast 3), 4 jobs left" in capsys.readouterr().out


def test_fewer_failures_end_nothing(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start_sweep(file, submission(tmp_path, fail_fast=5)) == 1
    assert "4 failed, 4 done" in capsys.readouterr().out


def test_tasks_of_a_scheduler_ask_before_they_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = save_plan(tmp_path, EIGHT)
    fail_fast.write_rule(plan, 1, "slurm", [], [])
    write_note(plan, plan.jobs[0], {"error": "boom"})
    (tmp_path / "jobs.txt").write_text(f"{plan.jobs[5].id}\n")
    assert run_task(plan.folder, tmp_path / "jobs.txt", 0, gpus=0, cpus=1) == 0
    assert capsys.readouterr().out == f"{plan.jobs[5].id} is left: 1 job failed (--fail-fast 1)\n"
    print_status(plan)
    out = capsys.readouterr().out
    assert "ended early: 1 job failed (--fail-fast 1), 7 jobs left" in out
    assert out.rstrip().endswith(f"python -m launch retry {plan.experiment} --on slurm")


@pytest.mark.parametrize(("restarts", "starts"), [("0", False), ("1", True)])
def test_a_task_that_slurm_starts_again_goes_on(
    restarts: str, starts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has begun before the failures, and was preempted or out of time."""
    started: list[str] = []
    monkeypatch.setattr("launch.sweep.commands.run_as_task", lambda plan, job, requeue: started.append(job.id) or 0)
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    plan = save_plan(tmp_path, EIGHT)
    fail_fast.write_rule(plan, 1, "slurm", [], [])
    write_note(plan, plan.jobs[0], {"error": "boom"})
    (tmp_path / "jobs.txt").write_text(f"{plan.jobs[5].id}\n")
    assert run_task(plan.folder, tmp_path / "jobs.txt", 0, gpus=0, cpus=1) == 0
    assert started == [plan.jobs[5].id] * starts


@pytest.mark.parametrize("text", ["", "{", "[]", '{"most": 0}', '{"most": "x"}', '{"most": 1, "more": 1}'])
def test_a_damaged_rule_stops_nothing(tmp_path: Path, text: str) -> None:
    plan = save_plan(tmp_path, EIGHT)
    write_note(plan, plan.jobs[0], {"error": "boom"})
    (plan.folder / "fail-fast.json").write_text(text)
    assert fail_fast.why_not_start(plan) is None


def test_the_number_must_be_one_or_more(tmp_path: Path) -> None:
    done = launch("sweep", write_sweep(tmp_path, EIGHT), "--fail-fast", 0, "--runs", tmp_path / "runs")
    assert (done.returncode, done.stderr) == (2, "error: --fail-fast must be 1 or more, not 0\n")
