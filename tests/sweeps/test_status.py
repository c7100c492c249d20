"""Where a sweep stands, from files alone, and which of its jobs are given up."""

import json
from pathlib import Path

import pytest

from launch.sweep import status
from launch.sweep.expand import expand
from launch.sweep.expand import write as write_plan
from launch.sweep.job import record_start, reset_job, training_command
from launch.sweep.notes import exit_text, write_note
from launch.sweep.plan import Plan, find_plan
from launch.sweep.status import job_status, job_statuses
from stn.runs.directory import RunDir
from tests.support.records import metric
from tests.support.sweeps import TWO_CELLS, launch, write_sweep


def test_states_are_read_from_files(plan: Plan) -> None:
    states = [one.state for one in job_statuses(plan)]
    assert states == ["done", "failed", "running", "stopped", "stopped", "failed", "waiting", "failed"]
    cnn, slx = status.cell_table(job_statuses(plan))
    assert {state: cnn[state] for state in status.STATES} == {
        "done": 4,
        "running": 1,
        "waiting": 0,
        "stopped": 2,
        "failed": 1,
    }
    assert (cnn["missing"], cnn["failed_seeds"], cnn["n"]) == ("5-7", "3", 4)
    assert cnn["mean"] == pytest.approx((0.9 + 0.8 + 0.9 + 0.9) / 4)
    assert cnn["sd"] == pytest.approx(0.05)
    assert list(cnn["reasons"]) == [3]
    assert slx["errors"] == ["RuntimeError: boom", "given up after 4 starts without progress"]


def test_status_prints_and_speaks_json(plan: Plan, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for name in ("two", tmp_path / "two.yaml", runs / "two", runs / "two" / "sweep"):
        done = launch("status", name, "--runs", runs, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["totals"] == {"done": 4, "running": 1, "waiting": 2, "stopped": 4, "failed": 5}
    text = launch("status", "two", "--runs", runs).stdout
    assert "87.50%" in text
    assert "RuntimeError: boom" in text
    assert "failed, cnn mnist seed 3: " in text
    unknown = launch("status", "tow", "--runs", runs)
    assert unknown.returncode == 2
    assert unknown.stderr == f"error: nothing named 'tow' in {runs}, did you mean 'two'?\n"
    elsewhere = launch("status", "tow", "--runs", tmp_path / "none").stderr
    assert elsewhere.startswith(f"error: nothing named 'tow' in {tmp_path / 'none'}, and no sweep 'tow'; ")
    assert "has not been started" in launch("status", "smoke", "--runs", runs).stderr


def test_damaged_files_cause_no_traceback(plan: Plan) -> None:
    before = [one.state for one in job_statuses(plan)]
    for job, text in zip(plan.jobs, ("", "{", "[]", "\0", "5", '{"state"', "nul", "x"), strict=True):
        run = RunDir(plan.experiment / job.sig / job.block)
        run.path.mkdir(exist_ok=True, parents=True)
        run.status.write_text(text)
        plan.note_file(job).parent.mkdir(exist_ok=True)
        plan.note_file(job).write_text(text)
    after = [one.state for one in job_statuses(plan)]
    assert after[:3] == before[:3]
    assert set(after[3:]) == {"stopped"}


ODD = ["x", None, [1], {"a": 1}, float("nan"), 10**400, -1, True]


def test_wrong_values_in_files_of_a_run_cause_no_traceback(plan: Plan) -> None:
    """The JSON is valid; a job without a result is in some state, and the table is printed."""
    job = plan.jobs[3]
    run = RunDir(plan.experiment / job.sig / job.block)
    other = RunDir(run.path.with_name("6"))
    other.write_status("stopped")
    good = {"state": "failed", "time": 1.0, "seeds": "6-7", "step": 1, "steps": 2, "reason": "x"}
    note = {"starts": 1, "idle": 1, "progress": [1, 2], "error": "x"}
    other.lease.take(print)
    held = other.lease.newest()[1]
    other.lease.release()
    files = {run.status: good, plan.note_file(job): note, run.results: {"seed": 6, "test_acc": 0.5}}
    for file, values in (files | {run.path / ".claim" / "1": held}).items():
        file.parent.mkdir(exist_ok=True)
        for key in values:
            for odd in ODD:
                file.write_text(json.dumps(values | {"status": "finished", key: odd}) + "\n")
                cells = status.cell_table(job_statuses(plan))
                assert sum(cell[state] for cell in cells for state in status.STATES) == 16
                status.render_cells("two", cells, dict.fromkeys(status.STATES, 0))
                json.dumps(cells)
        file.unlink()


def test_a_note_is_read_as_it_was_written(plan: Plan) -> None:
    write_note(plan, plan.jobs[0], {"starts": 2, "idle": 1, "progress": [1, 2]})
    assert status.read_note(plan, plan.jobs[0]) == {"starts": 2, "idle": 1, "progress": [1, 2]}
    write_note(plan, plan.jobs[0], {"starts": "many"})
    assert status.read_note(plan, plan.jobs[0]) == {}


def test_foreign_files_among_run_directories_are_ignored(plan: Plan) -> None:
    before = [(one.state, one.missing) for one in job_statuses(plan)]
    job = plan.jobs[6]
    folder = plan.experiment / job.sig
    (folder / "-").mkdir(parents=True)
    (folder / ".DS_Store").write_text("of a file browser")
    assert [(one.state, one.missing) for one in job_statuses(plan)] == before
    RunDir(folder / "4-7").add_results([{"seed": 4, "status": "finished", "test_acc": 0.5}])
    assert job_status(plan, job).missing == [5]


def test_rows_of_other_blocks_count(plan: Plan) -> None:
    """Somebody trained seeds 12-15 of the same experiment by hand."""
    job = plan.jobs[6]
    RunDir(plan.experiment / job.sig / "4-7").add_results([{"seed": 4, "status": "finished", "test_acc": 0.5}])
    assert job_status(plan, job).missing == [5]


def test_only_missing_leaves_out_failed_and_running_jobs(plan: Plan, tmp_path: Path) -> None:
    words = ("sweep", tmp_path / "two.yaml", "--dry-run", "--runs", tmp_path / "runs")
    every, missing = (launch(*words, *more).stdout for more in ((), ("--only-missing",)))
    listed = [[job for job in plan.jobs if job.id in text] for text in (every, missing)]
    assert listed[0] == plan.jobs[2:]
    assert listed[1] == [plan.jobs[i] for i in (3, 4, 6)]


def test_a_job_without_progress_is_given_up_and_keeps_how_it_ended(plan: Plan) -> None:
    job, log = plan.jobs[3], plan.log_file(plan.jobs[3])
    log.parent.mkdir(exist_ok=True)
    log.write_text("epoch 1\nslurmstepd: error: Detected 1 oom_kill event\n")
    assert [record_start(plan, job, log) for _ in range(4)] == [True] * 4
    RunDir(plan.experiment / job.sig / job.block).write_status("running", step=12, steps=20)
    assert [record_start(plan, job, log) for _ in range(5)] == [True] * 4 + [False]
    why = "given up after 4 starts without progress; the last one: "
    assert job_status(plan, job).error == f"{why}epoch 1\nslurmstepd: error: Detected 1 oom_kill event"
    reset_job(plan, job_status(plan, job))
    assert record_start(plan, job, log)
    write_note(plan, job, {"progress": [0, 12], "idle": 3, "end": "killed by SIGKILL\nepoch 2"})
    assert not record_start(plan, job, log)
    assert job_status(plan, job).error == f"{why}killed by SIGKILL\nepoch 2"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (3, "exit code 3"),
        (-9, "killed by SIGKILL, perhaps out of memory"),
        (137, "killed by SIGKILL, perhaps out of memory"),
        (-11, "killed by SIGSEGV"),
        (-100, "killed by signal 100"),
    ],
)
def test_an_exit_is_described_by_its_signal(code: int, text: str) -> None:
    assert exit_text(code) == text


def test_a_job_that_progresses_between_stops_is_not_given_up(plan: Plan) -> None:
    """Record starts and ends as the trainer and Slurm do at each time limit."""
    job = plan.jobs[3]
    run = RunDir(plan.experiment / job.sig / job.block)
    for i in range(6):
        assert record_start(plan, job, plan.log_file(job))
        run.write_status("running", seeds=job.seeds, step=1000 * (i + 1), steps=10**6)
        run.write_end("stopped", reason="SIGTERM", finished=0, failed=[])


def test_a_job_trains_into_the_folder_of_its_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_plan(expand(str(write_sweep(tmp_path, TWO_CELLS)), "runs"))
    (tmp_path / "runs").rename(tmp_path / "moved")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    plan = find_plan(str(tmp_path / "moved" / "two"), "runs")
    words = training_command(plan, plan.jobs[0])
    assert words[words.index("--runs") + 1] == str(tmp_path / "moved")


def test_only_retry_forgets_a_failure(plan: Plan) -> None:
    reset_job(plan, job_statuses(plan)[1], drop_failed=True)
    assert job_statuses(plan)[1].missing == [3]
    reset_job(plan, job_statuses(plan)[5])
    assert job_statuses(plan)[5].state == "stopped"


def test_the_newest_rows_are_found_before_the_poses_of_many_seeds(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.add_metrics([metric(0, 8), metric(0, 9, kind="eval")])
    points = {"applied": [0.1234] * 200, "predicted": [0.1234] * 200}
    run.add_metrics([metric(seed, 9, kind="pose", degrees=points) for seed in range(64)])
    found = status.last_metrics(run)
    assert (found["train"]["step"], found["eval"]["step"], found["pose"]["seed"]) == (8, 9, 63)
    assert run.metrics.stat().st_size > 1 << 16
