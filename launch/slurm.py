"""A sweep on Slurm: arrays with a task per job, a report job after them, and what a task does on its node.

Must not know what is trained.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from types import FrameType

from launch.attempt import Attempt, begin
from launch.local import ROOT
from launch.sweep import Job, Plan
from stn.files import read_json, write_atomic

WARNING_S = 120
"""Slurm says so long before the time limit (up to a minute earlier) that it is near."""


class NoSlurm(ValueError):
    """Slurm is not here, or does not answer."""


def _slurm(*words: str) -> str:
    """What a Slurm command prints. It must not inherit the job that we may be in."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SQUEUE_")) or k == "SLURM_CONF"}
    env["STN_ROOT"] = str(ROOT)
    try:
        return subprocess.run(words, check=True, capture_output=True, text=True, env=env).stdout
    except FileNotFoundError:
        raise NoSlurm(f"there is no Slurm on this machine ({words[0]} not found); --dry-run shows the script") from None
    except subprocess.CalledProcessError as error:
        raise NoSlurm((error.stderr.strip().splitlines() or [str(error)])[-1]) from None


# ---- submission


def script(plan: Plan, jobs_file: Path, n: int, most: int | None) -> str:
    """The array job: a text that can be read, and submitted again by hand."""
    sweep, logs = plan.sweep, (plan.folder / "logs").absolute()
    throttle = f"%{most}" if most else ""
    minutes = sweep.minutes()
    options = [
        f"--job-name={sweep.name}",
        f"--array=0-{n - 1}{throttle}",
        f"--output={logs}/%A_%a.log",
        "--open-mode=append",
        f"--chdir={Path.cwd()}",
        "--ntasks=1",
        f"--cpus-per-task={sweep.cpus}",
        f"--time={minutes}",
        "--requeue",
        f"--signal=B:USR1@{min(WARNING_S, minutes * 20)}",
    ]
    options += [f"--gres=gpu:{sweep.gpus}"] if sweep.gpus else []
    options += [f"--mem={sweep.memory}"] if sweep.memory else []
    lines = [f"#SBATCH {shlex.quote(option)}" for option in options]
    task = f"python -m launch task {shlex.quote(str(plan.folder.absolute()))} {shlex.quote(str(jobs_file.absolute()))}"
    return "\n".join(
        [
            "#!/bin/bash",
            f"# Sweep {sweep.name}: task i trains line i (from 0) of {jobs_file.name}.",
            *lines,
            "set -eo pipefail",
            f"export STN_ROOT={shlex.quote(str(ROOT))}",
            'export PYTHONPATH="$STN_ROOT${PYTHONPATH:+:$PYTHONPATH}"',
            'source "$STN_ROOT/slurm/env.sh"',
            "# exec: Slurm's warning before the time limit reaches what replaces this shell.",
            f'exec {task} "$SLURM_ARRAY_TASK_ID"' + f" --gpus {sweep.gpus or 0} --cpus {sweep.cpus}",
            "",
        ]
    )


def largest_array() -> int:
    """Tasks of an array, at most: indices run from 0 to one below MaxArraySize."""
    match = re.search(r"MaxArraySize\s*=\s*(\d+)", _slurm("scontrol", "show", "config"))
    if match and match[1] == "0":
        raise NoSlurm("this Slurm allows no job arrays (MaxArraySize is 0)")
    return int(match[1]) if match else 1001


def in_queue(plan: Plan, release: bool) -> set[str]:
    """Ids of jobs that an earlier submission has waiting or running; none where there is no Slurm to ask.

    A task whose start has failed on a dying node is held by Slurm until somebody releases it.
    """
    arrays: dict[str, list[str]] = {}
    for file in sorted(plan.folder.glob("slurm/*/array-*.json")):
        entry = read_json(file)
        if "array" in entry:
            arrays[entry["array"]] = (file.parent / entry["jobs"]).read_text().splitlines()
    if not arrays or not shutil.which("squeue"):
        return set()
    try:
        queue = _slurm("squeue", "--noheader", "--array", "--job", ",".join(arrays), "--format=%F|%K|%i|%r")
    except NoSlurm as error:
        if "Invalid job id" in str(error):  # so old that Slurm has forgotten it
            return set()
        raise
    found = set()
    for array, task, name, reason in (line.strip().split("|", 3) for line in queue.splitlines()):
        if array in arrays and task.isdigit():
            found.add(arrays[array][int(task)])
            if release and "requeued held" in reason:
                _slurm("scontrol", "release", name)
    return found


def submit(plan: Plan, jobs: list[Job], most: int | None, dry: bool) -> Iterator[str]:
    """Submit arrays of jobs and the report after them; lines that say what has been done so far."""
    size = len(jobs)
    with suppress(NoSlurm) if dry else nullcontext():
        size = min(size, largest_array())
    parts = [jobs[i : i + size] for i in range(0, len(jobs), size)]
    last = max((int(path.name) for path in plan.folder.glob("slurm/[0-9]*") if path.name.isdigit()), default=0)
    folder = plan.folder / "slurm" / f"{last + 1:03d}"
    if dry:
        yield script(plan, folder / "jobs-0.txt", len(parts[0]), most)
        if len(parts) > 1:
            yield f"# and {len(parts) - 1} more, {len(jobs):,} jobs in all"
        return
    (plan.folder / "logs").mkdir(parents=True, exist_ok=True)
    arrays: list[str] = []
    for i, part in enumerate(parts):
        names = folder / f"jobs-{i}.txt"
        write_atomic(names, "".join(f"{job.id}\n" for job in part))
        text = folder / f"array-{i}.sh"
        write_atomic(text, script(plan, names, len(part), most))
        # With a throttle arrays follow each other: it holds for each array, not for all.
        after = [f"--dependency=afterany:{arrays[-1]}"] if most and arrays else []
        arrays.append(_slurm("sbatch", "--parsable", *after, str(text)).strip().split(";")[0])
        write_atomic(folder / f"array-{i}.json", json.dumps({"array": arrays[-1], "jobs": names.name}) + "\n")
        yield f"array {arrays[-1]}: {len(part):,} jobs ({text})"
    report = _slurm(
        "sbatch",
        "--parsable",
        f"--dependency=afterany:{':'.join(arrays)}",
        f"--job-name={plan.sweep.name}-report",
        f"--output={(plan.folder / 'logs').absolute()}/report-%j.log",
        f"--chdir={Path.cwd()}",
        str(ROOT / "slurm" / "report.sh"),
        str(plan.folder.absolute()),
    )
    yield f"report job {report.strip()} runs after them"


# ---- a task on its node


class Task:
    """One task of an array: trains its job, goes back into the queue when its time is over."""

    def __init__(self, plan: Plan, job: Job) -> None:
        self.plan, self.job = plan, job
        self.wish: int | None = None

    def run(self) -> int:
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._heard)
        if not begin(self.plan, self.job):
            print(f"{self.job.label} seeds {self.job.seeds}: given up, no progress", flush=True)
            return 1
        log = Path(os.path.realpath(f"/proc/{os.getpid()}/fd/1"))
        print(f"{self.job.label} seeds {self.job.seeds} ({self.job.id})", flush=True)
        attempt = Attempt(self.plan, self.job, None, log)
        while attempt.child.poll() is None:
            if self.wish is not None:
                attempt.stop()
            time.sleep(0.1)
        end = attempt.end()
        print(f"{self.job.label} seeds {self.job.seeds}: {end}", flush=True)
        # After SIGTERM Slurm decides what becomes of the job; a run that a person stopped stays stopped.
        if (end == "died" and self.wish is None) or (end in ("stopped", "died") and self.wish == signal.SIGUSR1):
            self._requeue()
        return 1 if end == "failed" else 0

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self.wish in (None, signal.SIGUSR1):
            self.wish = number

    def _requeue(self) -> None:
        array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        name = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
        shown = re.search(r"Restarts=(\d+)", _slurm("scontrol", "show", "job", "--oneliner", name))
        if not shown or shown[1] != os.environ.get("SLURM_RESTART_COUNT", "0"):
            return  # Slurm has started it again without us, on another node
        print(f"back into the queue: {name}", flush=True)
        _slurm("scontrol", "requeue", name)
        time.sleep(30)  # Slurm ends this process; leaving before would look like an end of the job


def task(plan: Plan, jobs_file: Path, index: int, gpus: int, cpus: int) -> int:
    """Train a job with what it was submitted with, whatever the sweep's file says by now."""
    plan = plan._replace(sweep=plan.sweep.model_copy(update={"gpus": gpus, "cpus": cpus}))
    wanted = jobs_file.read_text().splitlines()[index]
    for job in plan.jobs:
        if job.id == wanted:
            return Task(plan, job).run()
    print(f"{wanted} is no longer part of sweep {plan.sweep.name}")
    return 0
