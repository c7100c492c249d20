"""A sweep on Slurm: arrays with a task per job, a report job after them.

Must not know what is trained.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

from launch.sweep.plan import Job, Plan
from launch.train import ROOT
from stn.runs.files import read_json, write_atomic

WARNING_S = 120
"""Slurm says so long before the time limit (up to a minute earlier) that it is near."""


class NoSlurm(ValueError):
    """Slurm is not here, or does not answer."""


def run_slurm(*words: str) -> str:
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
    match = re.search(r"MaxArraySize\s*=\s*(\d+)", run_slurm("scontrol", "show", "config"))
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
        queue = run_slurm("squeue", "--noheader", "--array", "--job", ",".join(arrays), "--format=%F|%K|%i|%r")
    except NoSlurm as error:
        if "Invalid job id" in str(error):  # so old that Slurm has forgotten it
            return set()
        raise
    found = set()
    for array, task, name, reason in (line.strip().split("|", 3) for line in queue.splitlines()):
        if array in arrays and task.isdigit():
            found.add(arrays[array][int(task)])
            if release and "requeued held" in reason:
                run_slurm("scontrol", "release", name)
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
        arrays.append(run_slurm("sbatch", "--parsable", *after, str(text)).strip().split(";")[0])
        write_atomic(folder / f"array-{i}.json", json.dumps({"array": arrays[-1], "jobs": names.name}) + "\n")
        yield f"array {arrays[-1]}: {len(part):,} jobs ({text})"
    report = run_slurm(
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
