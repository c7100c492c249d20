"""The readers of run directories and plans, each as a function of one file's content."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import yaml
from safetensors.torch import load, save

from launch.report.analysis import cells, charts, metrics, sections
from launch.report.earlier.read import read_rows_csv
from launch.sweep.plan import Job, Plan, Sweep, load_plan
from launch.sweep.status import cell_table, job_statuses, last_metrics
from launch.wandb.client import RunUpload
from stn.runs.directory import RunDir
from stn.runs.files import read_json, read_rows
from stn.runs.lease import _is_over
from stn.runs.same_code import fingerprints
from stn.training import checkpoints

Parse = Callable[[bytes], object]


def plan(file: Path) -> Parse:
    def parse(content: bytes) -> object:
        file.write_bytes(content)
        read = load_plan(file.parent)
        read.sweep.minutes()
        return [(job.title, job.id, read.note_file(job)) for job in read.jobs], cell_table(job_statuses(read))

    return parse


def run_file(file: Path, run: RunDir) -> Parse:
    def read(content: bytes) -> object:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        comparison = cells.load([str(run.path.parents[1])])
        drawn = [charts.build_chart(cell, metrics.METRICS) for cell in comparison.cells]
        lease = run.lease.is_live(), _is_over(run.lease.newest()[1])
        steps = [checkpoints.saved_steps(run, seed) for seed in (0, 1)]
        rows = run.finished(), read_rows(run.metrics), fingerprints(run), last_metrics(run), read_json(run.status)
        job = Job(run.path.parent.name, run.path.name, "stn_c0", "mnist", "")
        states = job_statuses(
            Plan(run.path.parents[1] / "sweep", Sweep.model_validate({"name": "two", "seeds": "0-1"}), [job])
        )
        return drawn, lease, steps, rows, cell_table(states)

    return read


def uploaded(run: RunDir) -> Parse:
    config = yaml.safe_load(run.config.read_text())
    run.config.write_text(yaml.safe_dump(config | {"log": config["log"] | {"wandb": "offline"}}))

    def read(content: bytes) -> object:
        (run.path / "wandb-sync.json").write_bytes(content)
        record = RunUpload(run, "server", set())
        return record.confirm({}), [(seed.id, seed.last, seed.is_complete({})) for seed in record.seeds]

    return read


def checkpoint(run: RunDir) -> Parse:
    step = run.checkpoints / "seed-0" / "step-00000012.safetensors"

    def read(content: bytes) -> object:
        for path in (step, step.with_name("final.safetensors")):
            path.write_bytes(content)
        run.status.write_text('{"state": "stopped"}')
        return checkpoints.load_newest([(run, 0)]), checkpoints.load_final(run, {"seed": 0})

    return read


def earlier(file: Path) -> Parse:
    """The rows.csv of an earlier report."""

    def read(content: bytes) -> object:
        file.write_bytes(content)
        return [cell.numbers for cell in read_rows_csv(file)]

    return read


def _report(run: RunDir) -> object:
    return sections.build_sections(cells.load([str(run.path.parents[1])]), run.path / "report")[0].images


def answers(run: RunDir) -> Parse:
    """Return a reader of a seed's answers whose row has the hash of whatever they are."""
    row = run.rows()[0]

    def read(content: bytes) -> object:
        (run.path / row["predictions"]["file"]).write_bytes(content)
        facts = row["predictions"] | {"sha256": hashlib.sha256(content).hexdigest()}
        changed = {key: value for key, value in row.items() if key != "row_sha256"} | {"predictions": facts}
        (run.published / "0").write_text(json.dumps(changed) + "\n")
        run.results.write_text(json.dumps(changed) + "\n")
        return _report(run)

    return read


def images_of_tests(run: RunDir) -> Parse:
    def read(content: bytes) -> object:
        (run.path / "predictions" / "images.safetensors").write_bytes(content)
        return _report(run)

    return read


def with_wrong_headers(final: bytes) -> list[bytes]:
    """Return checkpoints whose hash is right and whose header is not."""
    tensors = {f"model/{name}": tensor for name, tensor in load(final).items()}
    headers = [{}, {"step": "12"}, {"step": 12, "sums": None}]
    return [save(tensors, {"stn": json.dumps(h | {"sha256": checkpoints.digest(tensors)})}) for h in headers]
