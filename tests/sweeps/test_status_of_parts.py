"""Where a job stands that several processes train, each its part of the seeds in a run directory of its own."""

from pathlib import Path

import pytest

from launch.sweep.job import record_start
from launch.sweep.status import job_statuses
from stn.config.seed_list import format_seeds, parse_seeds
from stn.config.yaml_files import dump_yaml, load_yaml
from stn.runs.directory import RunDir
from tests.support.sweeps import TWO_CELLS, save_plan


@pytest.mark.parametrize("damaged", [False, True])
def test_parts_whose_names_are_hashes_are_of_their_job(damaged: bool, tmp_path: Path) -> None:
    seeds = format_seeds(list(range(0, 400, 2)))
    plan = save_plan(tmp_path, TWO_CELLS | {"seeds": seeds, "seeds_per_job": 100, "restarts": 1})
    job, other = plan.jobs[:2]
    every, config = parse_seeds(job.seeds), load_yaml(plan.cell_file(job))
    parts = [RunDir.of(str(tmp_path / "runs"), "two", job.sig, every[i::2]) for i in range(2)]
    for part, those in zip(parts, (every[::2], every[1::2]), strict=True):
        assert part.seeds is None, "its name is a hash"
        part.path.mkdir(parents=True)
        train = config.train.model_copy(update={"seeds": format_seeds(those)})
        part.config.write_text("{" if damaged else dump_yaml(config.model_copy(update={"train": train})))
    for step in range(5):
        for part in parts:
            part.write_status("stopped", step=step, steps=20)
        assert record_start(plan, job, plan.log_file(job)) or damaged
    states = {status.job.id: status.state for status in job_statuses(plan)}
    assert (states[job.id], states[other.id]) == ("failed" if damaged else "stopped", "waiting")
