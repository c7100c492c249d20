"""A sweep with jobs in every state, and a run directory."""

from pathlib import Path

import pytest
from PIL import Image

from launch.sweep.notes import write_note
from launch.sweep.plan import Plan
from stn.runs.directory import RunDir
from stn.tracking.pictures import warps_file
from tests.support.sweeps import TWO_CELLS, add_result, save_plan
from tests.support.wandb_runs import record

# ---- where it stands


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Jobs: done, failed by itself, running, stopped, killed, crashed, never begun, given up."""
    plan = save_plan(tmp_path, TWO_CELLS | {"seeds": "0-7", "seeds_per_job": 2})
    runs = [RunDir(plan.experiment / job.sig / job.block) for job in plan.jobs]
    for seed, acc in ((0, 0.9), (1, 0.8)):
        add_result(plan, plan.jobs[0], seed, acc)
    add_result(plan, plan.jobs[1], 2)
    add_result(plan, plan.jobs[1], 3, status="failed", reason="loss is nan at step 3")
    runs[2].lease.take(print)
    runs[2].write_status("running", seeds="4-5", step=10, steps=20)
    add_result(plan, plan.jobs[2], 4)
    runs[3].write_status("stopped", step=10, steps=20)
    runs[4].write_status("running", step=10, steps=20)
    runs[5].write_status("failed", reason="RuntimeError: boom")
    write_note(plan, plan.jobs[7], {"error": "given up after 4 starts without progress"})
    return plan


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """Seed 0 has finished and has pictures, seed 1 is at step 100."""
    run = record(tmp_path, {0: 200, 1: 100}, done=(0,))
    for step in (100, 200):
        path = warps_file(run, 0, step)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 4), (step, 0, 0)).save(path)
    return run
