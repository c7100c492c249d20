"""Sweep files for tests, their plans, and results written without training."""

import subprocess
import sys
from pathlib import Path

import yaml
from torch import Tensor

from launch.sweep import plan as plans
from launch.sweep.expand import Change, expand
from launch.sweep.expand import write as write_plan
from launch.sweep.plan import Plan
from stn.runs.directory import RunDir
from stn.training.checkpoints import digest, drop_temporary_files
from tests.support.paths import ROOT
from tests.support.trainer import Run, environment, fork_server

TWO_CELLS = {"base": {"limit_train": 256, "epochs": 1}, "grid": {"arch": ["cnn", "stn_slx"]}, "seeds": "0-3"}
TINY = {
    "base": {
        "dataset": "mnist",
        "steps": 100,
        "batch_size": 32,
        "limit_train": 640,
        "limit_test": 100,
        "eval": {"every": "50 steps"},
        "checkpoint": {"every": "10 steps"},
        "log": {"every": "50 steps", "pictures": False, "wandb": "disabled"},
    },
    "grid": {"arch": ["cnn", "stn_slx"]},
    "seeds": "0-3",
    "seeds_per_job": 4,
}
"""A sweep that trains two blocks of four seeds, long enough to be interrupted."""


def launch(*words: object, cwd: Path | str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m launch`` in a process of its own; in the fork server unless the test needs a fresh Python."""
    line, environ = ["-m", "launch", *map(str, words)], environment(**{"PYTHONPATH": str(ROOT)} | env)
    if sys.platform == "linux" and not env.keys() - {"PYTHONPATH"}:
        return fork_server().run(line, environ, cwd=cwd or Path.cwd())
    return subprocess.run(
        [sys.executable, *line],
        capture_output=True,
        text=True,
        env=environ,
        cwd=cwd,
        timeout=300,
        check=False,
    )


def write_sweep(folder: Path, sweep: dict, name: str = "two") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(sweep))
    return path


def expand_sweep(tmp_path: Path, sweep: dict) -> Change:
    return expand(str(write_sweep(tmp_path, sweep)), str(tmp_path / "runs"))


def save_plan(tmp_path: Path, sweep: dict) -> Plan:
    change = expand_sweep(tmp_path, sweep)
    write_plan(change)
    return change.plan


def add_result(plan: Plan, job: plans.Job, seed: int, acc: float = 0.9, **more: object) -> None:
    """Write a result row as a training of this job would."""
    run = RunDir(plan.experiment / job.sig / job.block)
    run.add_results([{"seed": seed, "sig": job.sig, "status": "finished", "test_acc": acc} | more])


Weights = dict[tuple[str, int], dict[str, Tensor]]
"""Final weights by architecture and seed."""


def weights_of_seeds(runs: Path, killed_late: bool = False) -> Weights:
    """Return the final weights of all seeds; each must have one row, which says that these are its weights.

    Nor may a temporary file be left, but where a start was perhaps ``killed_late``, when no later one could tidy up:
    there the next would delete it, and of a claim the next on the same machine.
    """
    weights: Weights = {}
    for run in [Run(path.parent) for path in runs.glob("*/*/*/results.jsonl")]:
        for seed, row in run.results().items():
            assert (row["arch"], seed) not in weights
            weights[row["arch"], seed] = run.weights(seed)
            assert digest(run.weights(seed)) == row["weights_sha256"]
        assert len(run.rows("results.jsonl")) == len(run.results())
    if killed_late:
        for path in runs.glob("*/*/*/results.jsonl"):
            drop_temporary_files(RunDir(path.parent), has_lease=False)
    left = [path for path in runs.rglob("*.tmp") if not (killed_late and path.parent.name == ".claim")]
    assert left == [], "temporary files are left"
    return weights


def assert_same_weights(weights: Weights, expected: Weights) -> None:
    """Compare bit for bit: the seeds of a block resume together, and finish as one."""
    assert weights.keys() == expected.keys()
    for key, tensors in expected.items():
        assert weights[key].keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert weights[key][name].equal(tensor), (key, name)
