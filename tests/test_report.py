"""Reports: what they say is in the rows, whatever the rows are."""

import csv
import io
import json
from pathlib import Path

import pytest
from conftest import ROOT
from test_sweep import TWO, launch, result, saved

from launch.report import data, markdown
from launch.report.data import load
from launch.report.stats import compare, summary
from launch.sweep import Plan
from stn.config import dump_yaml, load_yaml, parse_seeds
from stn.rundir import RunDir


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Two architectures on eight seeds each; one seed of the second has failed, one is missing."""
    plan = saved(tmp_path, TWO | {"seeds": "0-7", "seeds_per_job": 4})
    for job in plan.jobs:
        run = RunDir(plan.experiment / job.sig / job.block)
        run.path.mkdir(parents=True)
        run.config.write_text(dump_yaml(load_yaml(plan.cell_file(job))))
        for seed in parse_seeds(job.seeds):
            second = job.arch == "stn_slx"
            if second and seed == 5:
                result(plan, job, seed, status="failed", reason="loss is nan at step 3")
            elif not (second and seed == 6):
                acc = 0.9 + 0.01 * second + 0.001 * seed * (2 if second else 1)
                result(plan, job, seed, acc, best_test_acc=acc + 0.01, params=1000, images_per_s=1e4, wall_s=3.0)
    return plan


def test_figures_are_those_of_the_rows(plan: Plan) -> None:
    first, second = load([str(plan.experiment)])
    assert (first.label, second.label, first.dataset) == ("cnn", "stn_slx", "mnist")
    values = {seed: 0.9 + 0.001 * seed for seed in range(8)}
    assert first.values("test_acc") == pytest.approx(values)
    assert (second.failed, second.missing) == ({5: "loss is nan at step 3"}, [6])
    text = markdown.markdown([first, second])
    mean = summary(list(values.values()))
    assert f"| cnn | 8 | {100 * mean.mean:.2f} | {100 * (mean.sd or 0):.2f} |" in text
    assert f"| {100 * (mean.mean + 0.01):.2f} | 1,000 | 10,000 | 3 |" in text
    pair = compare(first.values("test_acc"), second.values("test_acc"))
    assert pair.difference is not None
    assert pair.p == 2 / 64
    assert f"| stn_slx - cnn | 6 | {100 * pair.difference.mean:+.2f} |" in text
    assert "| 0.03125 |" in text
    assert "- stn_slx: seeds 6 are missing" in text
    assert "- stn_slx: seed 5 failed: loss is nan at step 3" in text


def test_the_csv_has_every_seed(plan: Plan) -> None:
    rows = list(csv.DictReader(io.StringIO(markdown.rows_csv(load([str(plan.experiment)])))))
    assert [(row["arch"], row["seed"], row["status"]) for row in rows if row["status"] != "finished"] == [
        ("stn_slx", "5", "failed"),
        ("stn_slx", "6", "missing"),
    ]
    assert len(rows) == 16


def test_few_pairs_claim_nothing(plan: Plan) -> None:
    cells = load([str(plan.experiment)])
    cells[1].rows = {seed: row for seed, row in cells[1].rows.items() if seed < 5}
    assert "too few pairs (under 6)" in markdown.markdown(cells)


def test_cells_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    plan = saved(tmp_path, TWO | {"grid": {"arch": ["cnn"], "lr": [0.01, 0.02]}, "seeds": "0"})
    for job in plan.jobs:
        run = RunDir(plan.experiment / job.sig / job.block)
        result(plan, job, 0)
        run.config.write_text(dump_yaml(load_yaml(plan.cell_file(job))))
    assert {cell.label for cell in load([str(plan.experiment)])} == {"cnn optim.lr=0.01", "cnn optim.lr=0.02"}


def test_what_should_not_differ_is_said(plan: Plan) -> None:
    for i, cell in enumerate(load([str(plan.experiment)])):
        for run in cell.runs:
            run.env.write_text(json.dumps({"commit": "abc", "dirty": bool(i)}))
    cells = load([str(plan.experiment)])
    assert data.warnings(cells) == ["some runs were started with uncommitted changes"]
    cells[0].runs[0].env.write_text(json.dumps({"commit": "def"}))
    cells[0].config = cells[0].config.model_copy(
        update={"train": cells[0].config.train.model_copy(update={"steps": 7, "precision": "bf16"})}
    )
    assert [text.split(" are")[0] for text in data.warnings(cells)[:3]] == [
        "different commits",
        "different precisions",
        "different lengths of training (steps)",
    ]


@pytest.mark.parametrize("case", ["empty", "one seed", "all failed", "no figure", "damaged"])
def test_whatever_there_is_there_is_a_report(case: str, tmp_path: Path) -> None:
    plan = saved(tmp_path, TWO | {"grid": {"arch": ["cnn"]}, "seeds": "0"})
    job = plan.jobs[0]
    run = RunDir(plan.experiment / job.sig / job.block)
    if case != "empty":
        run.path.mkdir(parents=True)
        run.config.write_text(dump_yaml(load_yaml(plan.cell_file(job))))
    if case == "one seed":
        result(plan, job, 0)
    elif case == "all failed":
        result(plan, job, 0, status="failed", reason="a | b <script>\nc")
    elif case == "no figure":
        run.add_result({"seed": 0, "status": "finished", "test_acc": None})
    elif case == "damaged":
        run.results.write_text('{"seed": 0, "test_acc"\n[1]\n{"seed": "x"}\n{"seed": 0}\n\0')
    done = launch("report", plan.experiment, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    text = (plan.experiment / "report" / "report.md").read_text()
    assert ("no run directories" in text) == (case == "empty")
    assert "<script>" not in text
