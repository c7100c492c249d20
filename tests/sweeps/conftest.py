"""A sweep with jobs in every state."""

from pathlib import Path

import pytest

from launch.sweep.notes import write_note
from launch.sweep.plan import Plan
from stn.runs.directory import RunDir
from tests.support.sweeps import TWO_CELLS, add_result, save_plan

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
