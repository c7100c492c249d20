"""The line under a table: another person with the same rows gets the same one."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

from launch.report.analysis.cells import load
from launch.report.analysis.metrics import METRICS
from launch.report.analysis.sections import build_sections
from launch.report.output.markdown import render_markdown
from launch.report.provenance.environments import environments
from launch.report.provenance.signature import signature
from launch.sweep.plan import Plan
from stn.commands.library.run import change


def fields(text: str) -> dict[str, str]:
    return dict(field.split(":", 1) for field in text.split("|"))


def test_it_says_what_the_table_is_of(plan: Plan, tmp_path: Path) -> None:
    for cell in load([str(plan.experiment)]).cells:
        for run in cell.runs:
            packages = {"torch": "2.15", "stn-harness": "0.1.0"}
            run.env.write_text(json.dumps({"commit": "a" * 40, "dirty": cell.arch == "cnn", "packages": packages}))
    comparison = load([str(plan.experiment)])
    panel = build_sections(comparison, tmp_path, 0.1)[0].panels[0]
    lines = []  # from the files alone
    for path in plan.experiment.glob("*/*/results.jsonl"):
        rows = map(json.loads, path.read_text().splitlines())
        lines += [json.dumps(["mnist", r["sig"], r["seed"], r["test_acc"]]) for r in rows if r["status"] == "finished"]
    digest = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:12]
    assert panel.signature == (
        "data:mnist|metric:test_acc|networks:cnn,stn_slx|n:6-8|steps:2|precision:fp32|limit-train:256|test:t-interval"
        f"|stn-harness:0.1.0|torch:2.15|commit:aaaaaaaaaaaa,aaaaaaaaaaaa+changes|rows:{digest}"
    )
    assert fields(panel.pair_signature) == fields(panel.signature) | {
        "n": "6",
        "pairs": "1",
        "test": "paired-t,holm,equal-0.1",
    }
    text = render_markdown(comparison, build_sections(comparison, tmp_path, 0.1))
    assert text.count(f"`{panel.pair_signature}`") == 2, "under the matrix and the pairs"
    tables = sum(line.startswith("| --- |") for line in text.splitlines())
    assert text.count("`data:") == tables, "under every table"


def test_it_is_the_same_in_another_folder_and_differs_with_a_value(plan: Plan, tmp_path: Path) -> None:
    def line(folder: Path) -> str:
        cells = load([str(folder)]).cells
        return signature(cells, METRICS[0], environments(cells), "t-interval")

    shutil.copytree(plan.experiment, tmp_path / "elsewhere" / plan.experiment.name)
    assert line(tmp_path / "elsewhere" / plan.experiment.name) == line(plan.experiment)
    cells = load([str(plan.experiment)]).cells
    before = signature(cells, METRICS[0], [], "t")
    assert fields(signature(cells[::-1], METRICS[0], [], "t"))["rows"] == fields(before)["rows"]
    cells[0].rows[0]["test_acc"] += 1e-12
    after = signature(cells, METRICS[0], [], "t")
    assert {key for key in fields(before) if fields(before)[key] != fields(after)[key]} == {"rows"}
    assert fields(before)["commit"] == fields(before)["torch"] == "unknown"


def test_what_is_unusual_is_said(plan: Plan) -> None:
    cells = load([str(plan.experiment)]).cells
    usual = fields(signature(cells, METRICS[0], [], "t"))
    for cell, validation in zip(cells, (5000, 0), strict=True):
        cell.config = change(cell.config, eval={"mirror": True}, data={"limit_test": 1000, "validation": validation})
    said = {"limit-test": "1000", "mirror": "yes", "validation": "5000,none"}
    assert fields(signature(cells, METRICS[0], [], "t")) == usual | said


def test_many_networks_are_counted_and_names_cannot_break_the_line(plan: Plan) -> None:
    cells = load([str(plan.experiment)]).cells
    cells[0].setting = "a|b<c>`\nd"
    assert fields(signature(cells, METRICS[0], [], "t"))["networks"] == "cnn a_b_c__ d,stn_slx"
    thirteen = [replace(cells[0], setting=str(i)) for i in range(13)]
    assert fields(signature(thirteen, METRICS[0], [], "t"))["networks"] == "13"
