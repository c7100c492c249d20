"""Slurm, as far as it can be tested without one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch.sweep import plan as plans
from launch.sweep import slurm
from launch.sweep.commands import run_task
from launch.sweep.plan import Plan
from tests.support.paths import ROOT
from tests.support.plugin import write_plugin
from tests.support.slurm import fake_slurm
from tests.support.sweeps import TWO_CELLS, launch, save_plan, write_sweep

# ---- Slurm, as far as it goes without one


def test_the_array_script_is_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = TWO_CELLS | {"time": "2 hours", "gpus": 1, "cpus": 4, "memory": "8G", "seeds_per_job": 2}
    plan = save_plan(tmp_path, given)
    text = slurm.array_script(plan, plan.folder / "slurm" / "x" / "jobs-0.txt", 4, 3)
    text = text.replace(str(tmp_path), "HERE").replace(str(ROOT), "ROOT")
    golden = ROOT / "tests" / "golden" / "array.sh"
    assert text == golden.read_text()
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=True).returncode == 0


def test_without_slurm_one_line_says_so_and_a_dry_run_shows_the_script(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, TWO_CELLS)
    bare = {"PATH": str(Path(sys.executable).parent)}
    done = launch("sweep", path, "--on", "slurm", "--runs", tmp_path / "runs", **bare)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no Slurm on this machine")
    assert len(done.stderr.splitlines()) == 1
    shown = launch("sweep", path, "--on", "slurm", "--dry-run", "--runs", tmp_path / "other", **bare)
    assert "#SBATCH --array=0-1" in shown.stdout
    assert not (tmp_path / "other").exists()


def test_old_scripts_stay_when_the_controller_does_not_answer(tmp_path: Path) -> None:
    path, programs = write_sweep(tmp_path, TWO_CELLS), tmp_path / "bin"
    programs.mkdir()
    (programs / "scontrol").write_text("#!/bin/sh\necho 'scontrol: error: no controller' >&2\nexit 1\n")
    (programs / "scontrol").chmod(0o755)
    away = {"PATH": f"{programs}:/usr/bin:/bin"}
    asked = launch("sweep", path, "--on", "slurm", "--runs", tmp_path / "runs", **away)
    assert (asked.returncode, asked.stderr.strip()) == (2, "error: scontrol: error: no controller")
    for name in ("003", "old"):
        (tmp_path / "other" / "two" / "sweep" / "slurm" / name).mkdir(parents=True)
    shown = launch("sweep", path, "--on", "slurm", "--dry-run", "--runs", tmp_path / "other", **away)
    assert (shown.returncode, "#SBATCH --array=0-" in shown.stdout) == (0, True)
    assert "slurm/004/jobs-0.txt" in shown.stdout, "no submission is written over"


def test_a_large_sweep_is_split_and_a_report_follows(tmp_path: Path) -> None:
    env, path = fake_slurm(tmp_path), write_sweep(tmp_path, TWO_CELLS | {"seeds_per_job": 1})
    done = launch("sweep", path, "--on", "slurm", "--runs", tmp_path / "runs", "--max-parallel", 2, **env)
    assert done.returncode == 0, done.stderr
    calls = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    submitted = [call for call in calls if call[0] == "sbatch"]
    assert len(submitted) == 4
    arrays = sorted(tmp_path.glob("runs/two/sweep/slurm/*/array-*.sh"))
    assert [line for a in arrays for line in a.read_text().splitlines() if "--array" in line] == [
        "#SBATCH --array=0-2%2",
        "#SBATCH --array=0-2%2",
        "#SBATCH --array=0-1%2",
    ]
    assert [word for word in submitted[1] if "dependency" in word] == ["--dependency=afterany:102"]
    assert "--dependency=afterany:102:103:104" in submitted[3]
    lists = sorted(tmp_path.glob("runs/two/sweep/slurm/*/jobs-*.txt"))
    assert len({line for one in lists for line in one.read_text().splitlines()}) == 8


def test_a_refused_array_leaves_those_before_it_and_their_report(tmp_path: Path) -> None:
    env, path = fake_slurm(tmp_path), write_sweep(tmp_path, TWO_CELLS | {"seeds_per_job": 1})
    (tmp_path / "refused").write_text("array-2.sh")
    done = launch("sweep", path, "--on", "slurm", "--runs", tmp_path / "runs", **env)
    assert done.returncode == 1, done.stderr
    assert "6 of 8 jobs submitted (sbatch: error: refused); run the same command again later" in done.stdout
    assert "--dependency=afterany:102:103" in (tmp_path / "calls").read_text().split()
    (tmp_path / "refused").write_text("array-0.sh")
    done = launch("sweep", path, "--on", "slurm", "--runs", tmp_path / "other", **env)
    assert (done.returncode, done.stderr) == (2, "error: sbatch: error: refused\n")


def test_damaged_submissions_are_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = save_plan(tmp_path, TWO_CELLS)
    folder = plan.folder / "slurm" / "001"
    folder.mkdir(parents=True)
    (plan.folder / "outside.txt").write_text("outside\n")
    (folder / "jobs-0.txt").write_text(f"{plan.jobs[0].id}\n")
    entries = [{"array": "7", "jobs": "jobs-0.txt"}, {"array": "8", "jobs": "../../outside.txt"}, {"array": "9"}]
    entries += [{"jobs": "jobs-0.txt"}, {"array": 7, "jobs": [1]}, {"array": "10", "jobs": "jobs-9.txt"}]
    entries += [{"array": "7;rm", "jobs": "jobs-0.txt"}, {"array": "11", "jobs": "array-0.json"}]
    for i, entry in enumerate(entries):
        (folder / f"array-{i}.json").write_text(json.dumps(entry))
    asked: list[tuple[str, ...]] = []

    def answer(*words: str) -> str:
        asked.append(words)
        return "7|0|7_0|Resources\n7|5|7_5|Resources\n8|0|8_0|Resources\n7|N/A|7|x\n"

    monkeypatch.setattr(slurm, "run_slurm", answer)
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert slurm.Slurm().active_jobs(plan, release_held=False) == {plan.jobs[0].id}
    assert asked[0][asked[0].index("--job") + 1] == "7"


@pytest.mark.slow
def test_retry_leaves_alone_what_is_queued(tmp_path: Path) -> None:
    env, path = fake_slurm(tmp_path), write_sweep(tmp_path, TWO_CELLS)
    assert launch("sweep", path, "--on", "slurm", "--runs", tmp_path / "runs", **env).returncode == 0
    (tmp_path / "queued").touch()
    done = launch("retry", "two", "--on", "slurm", "--runs", tmp_path / "runs", **env)
    assert done.returncode == 0, done.stderr
    assert "release" not in (tmp_path / "calls").read_text()
    newest = sorted(tmp_path.glob("runs/two/sweep/slurm/*/jobs-*.txt"))[-1].read_text().splitlines()
    jobs = [json.loads(line) for line in (tmp_path / "runs/two/sweep/manifest.jsonl").read_text().splitlines()]
    assert newest == [f"{jobs[1]['sig']}/{jobs[1]['seeds']}"]
    (tmp_path / "held").touch()
    assert launch("retry", "two", "--on", "slurm", "--runs", tmp_path / "runs", **env).returncode == 0
    assert "scontrol release" in (tmp_path / "calls").read_text()


def test_a_task_trains_the_job_of_its_line(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, int | None, int]] = []

    def recorded(plan: Plan, job: plans.Job, requeue: object) -> int:
        started.append((job.id, plan.sweep.gpus, plan.sweep.cpus))
        return 0

    monkeypatch.setattr("launch.sweep.commands.run_as_task", recorded)
    lines = [plan.jobs[5].id, plan.jobs[2].id, "nothing/0"]
    (tmp_path / "jobs.txt").write_text("".join(f"{line}\n" for line in lines))
    assert [run_task(plan.folder, tmp_path / "jobs.txt", i, gpus=2, cpus=3) for i in range(3)] == [0, 0, 0]
    assert started == [(plan.jobs[5].id, 2, 3), (plan.jobs[2].id, 2, 3)], "a job that is no longer planned is not run"
    for file, index in (("jobs.txt", 3), ("jobs.txt", -1), ("none.txt", 0)):
        with pytest.raises(ValueError, match=rf"{file} has no job {index}; it has \d jobs, from 0"):
            run_task(plan.folder, tmp_path / file, index, gpus=0, cpus=1)


def test_a_task_is_requeued_unless_slurm_has_started_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, ...]] = []

    def answer(*words: str) -> str:
        calls.append(words)
        return "JobId=7 Restarts=1 Requeue=1"

    monkeypatch.setattr(slurm, "run_slurm", answer)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    for name, value in (("SLURM_ARRAY_JOB_ID", "5"), ("SLURM_ARRAY_TASK_ID", "2"), ("SLURM_RESTART_COUNT", "0")):
        monkeypatch.setenv(name, value)
    slurm.Slurm().requeue()
    assert ("scontrol", "requeue", "5_2") not in calls
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    slurm.Slurm().requeue()
    assert ("scontrol", "requeue", "5_2") in calls


@pytest.mark.parametrize("kind", ["sweep", "report", "array"])
def test_a_folder_named_as_ours_is_not_run_and_plugins_beside_it_are_found(kind: str, tmp_path: Path) -> None:
    for name in ("launch", "stn"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('theirs')\n")
    write_plugin(tmp_path)
    mine = {"plugin": "my_package.things", "limit_train": 256, "epochs": 1}
    sweep = write_sweep(tmp_path, TWO_CELLS | {"base": mine, "grid": {"arch": ["aligned"]}})
    shown = launch("sweep", sweep, "--on", "slurm", "--dry-run", cwd=tmp_path).stdout
    (tmp_path / "array.sh").write_text(shown[shown.index("#!/bin/bash") :])
    words = {"sweep": ["slurm/sweep.sh", sweep, "--dry-run"], "report": ["slurm/report.sh", "two"], "array": []}[kind]
    script = [ROOT / words[0], *words[1:]] if words else [tmp_path / "array.sh"]
    env = {"PATH": os.environ["PATH"], "STN_ROOT": str(ROOT), "SLURM_ARRAY_TASK_ID": "0", "STN_VENV": sys.prefix}
    line = ["bash", *map(str, script)]
    done = subprocess.run(line, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    ours = {"sweep": "#SBATCH --array=0-", "report": "error: nothing named 'two'", "array": "error: "}[kind]
    assert ours in done.stdout + done.stderr
    assert "theirs" not in done.stderr


@pytest.mark.parametrize("kind", ["venv", "conda", "nothing"])
def test_a_site_names_any_environment(kind: str, tmp_path: Path) -> None:
    """One of conda's has a Python and no script that activates it."""
    folder = tmp_path / "my environment" / "bin"
    folder.mkdir(parents=True)
    if kind != "nothing":
        (folder / "python").symlink_to("/bin/true")
    if kind == "venv":
        (folder / "activate").write_text('PATH="activated:$PATH"\n')
    words = ["bash", "-euc", f'. "{ROOT}/slurm/env.sh" && echo "$PATH"']
    env = {"PATH": os.environ["PATH"], "STN_VENV": str(folder.parent)}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    first = {"venv": "activated", "conda": str(folder), "nothing": ""}[kind]
    assert (done.returncode, done.stdout.partition(":")[0]) == (kind == "nothing", first)
    assert ("run 'make .venv/ready'" in done.stderr) == (kind == "nothing")
