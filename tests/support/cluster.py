"""A real Slurm for tests, and jobs on it. $STN_SLURM names the script that brings one up and takes it down."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.machine import EVERY_CORE, wait_until
from tests.support.paths import ROOT
from tests.support.trainer import environment

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "PREEMPTED", "DEADLINE")


NAME = "tiny"
"""The name of the sweeps of these tests."""


@dataclass
class Job:
    id: str
    folder: Path
    cluster: "Cluster"

    def facts(self) -> dict[str, str]:
        """Return what scontrol prints about the job; for an array, about its first task."""
        return dict(re.findall(r"(\S+?)=(\S*)", self.cluster.call("scontrol", "show", "job", "-o", self.id)))

    def state(self) -> str:
        return self.facts()["JobState"]

    def states(self) -> dict[str, str]:
        """Return the state of each array task."""
        lines = self.cluster.call("squeue", "-h", "-r", "-t", "all", "-o", "%i %T", "-j", self.id).splitlines()
        return dict(line.split() for line in lines)

    def log(self) -> str:
        """Return the output of all of the job's tasks."""
        return "\n".join(f"--- {p.name}\n{p.read_text()}" for p in sorted(self.folder.glob(f"*{self.id}*.out")))

    def tell(self) -> str:
        shown = self.cluster.call("squeue", "-r", "-t", "all", "-j", self.id)
        return f"{shown}\n{self.log()}"

    def wait(self, seconds: float = 120) -> "Job":
        """Wait until the job, or every task of an array, has ended for good."""
        wait_until(f"the end of job {self.id}", lambda: set(self.states().values()) <= set(ENDED), seconds, self.tell)
        return self

    def cancel(self) -> None:
        if not set(self.states().values()) <= set(ENDED):
            self.cluster.call("scancel", self.id)
            self.wait(60)


@dataclass
class Cluster:
    environment: dict[str, str]
    jobs: list[Job] = field(default_factory=list)

    def call(self, *words: str, cwd: Path = ROOT, **env: str) -> str:
        done = subprocess.run(
            words, capture_output=True, text=True, cwd=cwd, env=self.environment | env, timeout=60, check=False
        )
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, folder: Path, *words: object, cwd: Path = ROOT, **env: str) -> Job:
        """Run sbatch with these arguments; output goes to ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        array = any(str(word).startswith(("--array", "-a")) for word in words)
        output = folder / ("%A_%a.out" if array else "%j.out")
        line = ("sbatch", "--parsable", "--output", str(output), *map(str, words))
        job = Job(self.call(*line, cwd=cwd, **env).strip(), folder, self)
        self.jobs.append(job)
        return job


def array(cluster: Cluster, folder: Path) -> Job:
    """The newest array of the sweep."""
    newest = sorted((folder / "runs" / NAME / "sweep" / "slurm").glob("*/array-0.json"))[-1]
    return Job(str(json.loads(newest.read_text())["array"]), folder / "runs" / NAME / "sweep" / "logs", cluster)


def logs(folder: Path) -> str:
    return "\n".join(f"--- {p.name}\n{p.read_text()}" for p in sorted(folder.glob("runs/*/sweep/logs/*")))


def report_of(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.glob("runs/*/sweep/logs/report-*.log"))


def bring_up() -> Iterator[Cluster]:
    script = os.environ.get("STN_SLURM", "")
    if not Path(script).is_file():
        pytest.skip("no Slurm (STN_SLURM names a script that brings one up)")
    if os.getuid() != 0:
        pytest.skip("no Slurm: only root can bring one up")
    if not (shutil.which("slurmctld") or shutil.which("apt-get")):
        pytest.skip("no Slurm: neither installed nor on a Debian, where it could be")

    def run(word: str) -> subprocess.CompletedProcess[str]:
        # pytest pins each worker to a core, and daemons would inherit that.
        free = (lambda: os.sched_setaffinity(0, EVERY_CORE)) if EVERY_CORE else None
        return subprocess.run([script, word], capture_output=True, text=True, timeout=300, check=False, preexec_fn=free)

    ours = run("status").returncode != 0
    if ours and (up := run("up")).returncode != 0:
        if "apt-get install failed" in up.stderr:
            pytest.skip("no Slurm: its packages cannot be installed here")
        pytest.fail(f"no Slurm:\n{up.stdout}{up.stderr}")
    conf = run("env").stdout.partition("=")[2].strip()
    # A job inherits sbatch's environment: that of these tests, whichever venv they run in.
    kept = {k: v for k, v in environment().items() if not k.startswith(("SLURM_", "SBATCH_"))}
    cluster = Cluster(kept | {"SLURM_CONF": conf, "STN_VENV": os.environ.get("VIRTUAL_ENV", str(ROOT / ".venv"))})
    try:
        yield cluster
    finally:
        for job in cluster.jobs:
            job.cancel()
        if ours:
            run("down")
