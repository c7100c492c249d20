"""The spec of the comparison on W&B: filters, groups, panels and blocks."""

import json
from pathlib import Path

from launch.report.analysis.cells import Cell, Comparison, load
from launch.report.analysis.sections import build_sections
from launch.report.output.markdown import escape, render_markdown, render_table
from launch.report.output.wandb_spec import build_spec
from launch.report.overview import build_overview
from stn.tracking.wandb_run import init_arguments, values
from tests.support.answers import known_images, write_run
from tests.support.wandb_report import blocks, build, cells_of, conditions, grids, publish, spec_on
from tests.support.wandb_server import WandbServer


def test_the_saved_spec_groups_by_architecture(server: WandbServer, cells: list[Cell], tmp_path: Path) -> None:
    publish(cells, tmp_path)
    for (run_sets, panels), dataset in zip(grids(spec_on(server)), ["mnist", "mnist_r"], strict=True):
        (runs,) = run_sets
        assert runs["grouping"] == [{"section": "config", "name": "arch.value"}]
        assert runs["project"] == {"name": "stn", "entityName": "me", "id": "internal-stn"}
        groups = sorted(f"two-{cell.arch}-{dataset}-{cell.sig[:6]}" for cell in cells if cell.dataset == dataset)
        assert (runs["name"], conditions(runs)) == (dataset, {"config:dataset.value": dataset, "run:group": groups})
        assert [(item["op"], item.get("connector")) for item in runs["filters"]["filters"]] == [
            ("=", None),
            ("IN", "AND"),
        ]
        assert {item["config"]["groupBy"] for item in panels} == {"arch.value"}
        metrics = [item["config"]["metrics"] for item in panels]
        assert metrics == [["test_acc"], ["test_loss"], ["train/loss"], ["test_acc"]]


def test_filters_and_panels_name_what_runs_are_sent_with(cells: list[Cell]) -> None:
    (((runs,), panels), *_), arguments = grids(build(cells)), init_arguments(cells[0].config, cells[0].sig, 0)
    assert (arguments["config"]["arch"], arguments["config"]["dataset"]) == (
        "cnn",
        conditions(runs)["config:dataset.value"],
    )
    assert arguments["group"] in conditions(runs)["run:group"]
    row = {"step": 1, "epoch": 0.1, "loss": 1.0, "test_acc": 1.0, "test_loss": 1.0}
    sent = values(row | {"kind": "train"}) | values(row | {"kind": "eval"})
    named = {metric for panel in panels for metric in panel["config"]["metrics"]}
    assert named | {panels[0]["config"]["xAxis"]} <= set(sent)


def test_intervals_are_in_markdown_blocks(cells: list[Cell]) -> None:
    cells[0].failed, cells[0].missing = {8: "nan"}, [9]
    introduction, first, second = [block["content"] for block in blocks(build(cells), "markdown-block")]
    assert "W&B cannot draw such intervals" in introduction
    assert "| architecture | n | mean % | SD | 95 % interval |" in first
    assert "| stn_slx - cnn | unknown | 8 |" in first
    assert first.startswith("- cnn and stn_slx: unknown; the difference is the same on every seed")
    assert "Missing seeds: 1; failed seeds: 1." in first
    assert "Missing seeds" not in second
    assert "](" not in first, "a link to a folder of this machine"


def test_settings_of_one_architecture_are_told_apart(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, {"arch": ["cnn", "stn_slx"], "lr": [0.01, 0.02]})
    (((runs,), panels),) = grids(build(cells))
    assert runs["grouping"] == [{"section": "config", "name": "arch.value"}, {"section": "run", "name": "group"}]
    assert {panel["config"]["groupBy"] for panel in panels} == {"group"}


def test_the_report_has_what_ours_says_on_top(cells: list[Cell], tmp_path: Path) -> None:
    comparison = Comparison("two", cells, [])
    sections = build_sections(comparison, tmp_path)
    overview = build_overview(sections)
    _, top, first, _ = [block["content"] for block in blocks(build_spec(sections, overview=overview), "markdown-block")]
    assert overview.across
    assert top.startswith("## Across data sets")
    assert top in render_markdown(comparison, sections, overview)
    panel = sections[0].panels[0]
    assert panel.matrix
    assert render_table(panel.matrix) in first
    assert (first.count(panel.pair_signature), first.count(panel.signature)) == (2, 1)


def test_a_report_on_wandb_says_what_images_say(tmp_path: Path) -> None:
    for arch, wrong in (("cnn", 0.3), ("stn_slx", 0.1)):
        write_run(tmp_path, arch, range(3), known_images(200), wrong)
    sections = build_sections(load([str(tmp_path)]), tmp_path)
    said = json.dumps(build_spec(sections))
    for block in sections[0].images.blocks:
        assert f"### {block.title}" in said
        assert all(json.dumps(escape(line))[1:-1] in said for line in block.lines)
