"""The Slurm back end: job arrays with a task per job, and a report job after them."""

import json
import os
import re
import shlex
import shutil
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field

from launch.sweep.plan import Job, Plan
from launch.sweep.sbatch import directive, gpus_of_the_site, run_slurm, sbatch, site_variables, slurm_minutes
from stn.config.fields import Section
from stn.config.source import INSTALLED, SOURCE
from stn.runs.files import read_json, read_text, write_atomic
from stn.tracking.console import say, warn

WARNING_S = 120
"""Seconds before the time limit at which Slurm sends USR1; it may come up to a minute earlier."""


class SubmittedArray(Section):
    """An array that was submitted: array-N.json."""

    array: Annotated[str, Field(pattern="^[0-9]+$")]
    """Slurm's id."""
    jobs: Annotated[str, Field(pattern=r"^jobs-[0-9]+\.txt$")]
    """File beside it: the job id of each task."""


def array_script(plan: Plan, jobs_file: Path, n: int, max_parallel: int | None) -> str:
    """Return the script of an array of ``n`` tasks; it can also be submitted by hand."""
    sweep, slurm = plan.sweep, plan.sweep.slurm
    minutes = slurm_minutes(slurm.time) if slurm.time else sweep.minutes()
    options = [
        f"--job-name={sweep.name}",
        f"--array=0-{n - 1}" + (f"%{max_parallel}" if max_parallel else ""),
        f"--output={(plan.folder / 'logs').absolute()}/%A_%a.log",
        "--open-mode=append",
        f"--chdir={Path.cwd()}",
        "--ntasks=1",
        f"--cpus-per-task={sweep.cpus}",
        *([] if slurm.time else [f"--time={minutes}"]),
        "--requeue",
        f"--signal=B:USR1@{min(WARNING_S, minutes * 20)}",
    ]
    options += [f"--gres=gpu:{sweep.gpus}"] if sweep.gpus and not slurm.gres else []
    options += [f"--mem={sweep.memory}"] if sweep.memory and not slurm.mem else []
    options += slurm.options(sweep.gpus)
    if any("\n" in option for option in options):
        raise ValueError(f"{plan.folder}: Slurm takes no folder with a line break in its name")
    directives = "\n".join(map(directive, options))
    # A clone's slurm/env.sh names the environment; an installed package is in one.
    environment = f': "${{STN_VENV:={sys.prefix}}}"\n' if SOURCE == INSTALLED else ""
    folder, jobs = (shlex.quote(str(path.absolute())) for path in (plan.folder, jobs_file))
    return f"""#!/bin/bash
# Sweep {sweep.name}: task i trains line i (from 0) of {jobs_file.name}.
{directives}
set -eo pipefail
export STN_ROOT={shlex.quote(str(SOURCE))}
{environment}export PYTHONPATH="$STN_ROOT${{PYTHONPATH:+:$PYTHONPATH}}"
source "$STN_ROOT/slurm/env.sh"
# exec: Slurm's warning before the time limit reaches the process that replaces this shell.
exec python -P -m launch task {folder} {jobs} "$SLURM_ARRAY_TASK_ID" --gpus {sweep.gpus or 0} --cpus {sweep.cpus}
"""


@cache
def max_array_size() -> int:
    """Return how many tasks an array may have: indices run from 0 to MaxArraySize - 1."""
    match = re.search(r"MaxArraySize\s*=\s*(\d+)", run_slurm("scontrol", "show", "config"))
    if match and match[1] == "0":
        raise ValueError("this Slurm allows no job arrays (MaxArraySize is 0)")
    return int(match[1]) if match else 1001


def submission_folder(plan: Plan) -> Path:
    """Return the folder of the next submission, numbered from 001."""
    numbers = [int(path.name) for path in plan.folder.glob("slurm/[0-9]*") if path.name.isdigit()]
    return plan.folder / "slurm" / f"{max(numbers, default=0) + 1:03d}"


class Slurm:
    """Slurm's queue as a back end of sweeps."""

    runs_here = False

    def active_jobs(self, plan: Plan, release_held: bool) -> set[str]:
        """Return the ids of jobs that an earlier submission has queued or running; empty if there is no Slurm.

        Slurm holds a task whose start failed on a dying node; release_held lets such tasks start again.
        """
        job_ids: dict[tuple[str, str], str] = {}
        for file in plan.folder.glob("slurm/*/array-*.json"):
            with suppress(ValueError):  # damaged: leases keep a job that is queued twice from training twice
                entry = SubmittedArray(**read_json(file))
                lines = read_text(file.with_name(entry.jobs)).splitlines()
                job_ids |= {(entry.array, str(task)): job_id for task, job_id in enumerate(lines)}
        arrays = ",".join(dict.fromkeys(array for array, _ in job_ids))
        if not arrays or not shutil.which("squeue"):
            return set()
        try:
            queue = run_slurm("squeue", "--noheader", "--array", "--job", arrays, "--format=%F|%K|%i|%r")
        except ValueError as error:
            if "Invalid job id" in str(error):  # Slurm forgets jobs that ended long ago
                return set()
            raise
        active = set()
        for array, task, name, reason in (line.strip().split("|", 3) for line in queue.splitlines()):
            if (array, task) in job_ids:
                active.add(job_ids[array, task])
                if release_held and "requeued held" in reason:
                    run_slurm("scontrol", "release", name)
        return active

    def preview(self, plan: Plan, jobs: list[Job], max_parallel: int | None) -> str:
        size = len(jobs)
        with suppress(ValueError):  # the script can be shown without a Slurm
            size = min(size, max_array_size())
        text = array_script(plan, submission_folder(plan) / "jobs-0.txt", size, max_parallel)
        more = -(-len(jobs) // size) - 1
        return f"{text}# and {more} more arrays, {len(jobs):,} jobs in all" if more else text

    def check(self, plan: Plan) -> None:
        max_array_size()
        site_variables()

    def submit(self, plan: Plan, jobs: list[Job], max_parallel: int | None) -> int:
        size, folder = max_array_size(), submission_folder(plan)
        if not plan.sweep.gpus:
            if asking := gpus_of_the_site():
                warn(f"jobs hold the GPUs of {asking} and train on CPUs; write gpus: N in the sweep file to use them")
            else:
                say("jobs get no GPU: `gpus: 1` in the sweep file asks for one each")
        arrays: list[str] = []
        refusal = ""
        for i, part in enumerate(jobs[start : start + size] for start in range(0, len(jobs), size)):
            jobs_file, script = folder / f"jobs-{i}.txt", folder / f"array-{i}.sh"
            write_atomic(jobs_file, "".join(f"{job.id}\n" for job in part))
            write_atomic(script, array_script(plan, jobs_file, len(part), max_parallel))
            # A throttle holds within one array only, so throttled arrays run one after the other.
            after = [f"--dependency=afterany:{arrays[-1]}"] if max_parallel and arrays else []
            try:
                # Given here as well as in the script: here they win over variables SBATCH_*.
                arrays.append(sbatch(*after, *plan.sweep.slurm.options(plan.sweep.gpus), str(script)))
            except ValueError as error:
                if not arrays:
                    raise
                refusal = str(error)  # a site bounds how many jobs a user may have
                break
            write_atomic(folder / f"array-{i}.json", json.dumps({"array": arrays[-1], "jobs": jobs_file.name}) + "\n")
            say(f"array {arrays[-1]}: {len(part):,} jobs ({script})")
        self._submit_report(plan, arrays)
        if refusal:
            warn(
                f"{len(arrays) * size:,} of {len(jobs):,} jobs submitted ({refusal}); run the same command again later"
            )
        return int(bool(refusal))

    @staticmethod
    def _submit_report(plan: Plan, arrays: list[str]) -> None:
        """Submit the job that prints the status and writes the report, after all arrays; they run without it, too."""
        words = (
            f"--dependency=afterany:{':'.join(arrays)}",
            f"--job-name={plan.sweep.name}-report",
            f"--output={(plan.folder / 'logs').absolute()}/report-%j.log",
            f"--chdir={Path.cwd()}",
            *plan.sweep.slurm.report_options(),
        )
        try:
            report = sbatch(*words, str(SOURCE / "slurm" / "report.sh"), str(plan.folder.absolute()))
        except ValueError as error:
            experiment = shlex.quote(str(plan.experiment))
            warn(f"no report job ({error}); when the sweep is over: python -m launch report {experiment}")
            return
        say(f"report job {report} runs after them")

    def requeue(self) -> None:
        array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        name = f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID")
        if not name:
            return  # the task was started by hand
        restarts = re.search(r"Restarts=(\d+)", run_slurm("scontrol", "show", "job", "--oneliner", name))
        if not restarts or restarts[1] != os.environ.get("SLURM_RESTART_COUNT", "0"):
            return  # Slurm has already started the task again on another node
        print(f"requeue {name}", flush=True)
        run_slurm("scontrol", "requeue", name)
        time.sleep(30)  # Slurm kills this process; exiting before would look like the end of the job
