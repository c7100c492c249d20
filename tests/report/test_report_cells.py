"""Reports: curves, poses, confusion matrices and pictures, and how cells are told apart."""

import base64
import csv
import io
import json
import shutil
from pathlib import Path

import pytest

from launch.report import build
from launch.report.analysis import charts, sections
from launch.report.analysis.cells import load
from launch.report.output import embedding, markdown
from launch.report.output.latex import _architectures
from launch.sweep.plan import Plan
from stn.commands.library.run import change
from stn.config.resolve import resolve, signature
from stn.config.schema import Config, Train
from stn.config.seed_list import format_seeds, parse_seeds
from stn.config.yaml_files import dump_yaml, load_yaml
from stn.runs.directory import RunDir
from tests.support.sweeps import TWO_CELLS, add_result, save_plan


def test_curves_are_of_evaluations_and_keep_their_last_point(plan: Plan) -> None:
    cell = load([str(plan.experiment)]).cells[0]
    run = cell.runs[0]
    lines = [{"kind": "train", "seed": 0, "step": 1, "epoch": 0.5, "loss": 9.0}]
    for epoch in range(1, 103):
        lines += [{"kind": "eval", "seed": s, "step": epoch, "epoch": epoch, "test_acc": epoch / 200} for s in (0, 1)]
    lines += [{"kind": "eval", "seed": 99, "step": 1, "epoch": 1, "test_acc": 1.0}]
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "eval", "se')
    chart = charts.curve(cell)
    assert chart is not None
    assert (list(chart["seeds"]), chart["x"][0], chart["x"][-1]) == (["0", "1"], 2, 102)
    assert len(chart["x"]) == 51
    assert chart["seeds"]["0"][-1] == pytest.approx(1 - 102 / 200)
    assert (chart["mean"][-1], chart["low"][-1]) == (chart["seeds"]["0"][-1], chart["seeds"]["0"][-1])


def test_poses_are_of_all_seeds_and_of_different_images(plan: Plan) -> None:
    cell = load([str(plan.experiment)]).cells[1]
    for run in cell.runs:
        seeds = [seed for seed in parse_seeds(run.path.name) if seed in cell.rows]
        poses = {"applied": [float(i) for i in range(200)], "predicted": [1.0] * 199 + [None]}
        rows = [{"kind": "pose", "seed": seed, "step": 1, "epoch": 1, "degrees": poses} for seed in seeds]
        run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cell.rows[0] |= {"pose_slope": 0.5, "pose_intercept": 3.0}
    cell.rows[1] |= {"pose_slope": 0.7, "pose_intercept": 5.0}
    chart = charts.pose(cell)
    assert chart is not None
    assert (chart["unit"], chart["slope"], chart["intercept"]) == ("degrees", pytest.approx(0.6), 4.0)
    assert len(chart["points"]) <= charts.MOST_POINTS
    assert len({x for x, _ in chart["points"]} - {199.0}) > 150


def test_the_confusion_matrix_is_the_mean_over_seeds(plan: Plan) -> None:
    cell = load([str(plan.experiment)]).cells[0]
    cell.rows[0]["confusion"], cell.rows[1]["confusion"] = [[8, 2], [1, 9]], [[6, 4], [1, 9]]
    chart = charts.confusion(cell)
    assert chart == {"n": 2, "mean": [[7, 3], [1, 9]], "least": [[6, 2], [1, 9]], "most": [[8, 4], [1, 9]]}
    cell.rows[2]["confusion"] = [[1]]
    assert charts.confusion(cell) is None


def test_values_on_validation_images_are_compared_with_none_on_test_images(tmp_path: Path) -> None:
    grid = {"arch": ["cnn", "stn_slx", "stn_c0"]}
    plan = save_plan(tmp_path, TWO_CELLS | {"grid": grid, "seeds": "0-3"})
    for job in plan.jobs:
        split, by = ("test", 0.0) if job.arch == "cnn" else ("val", 0.01 if job.arch == "stn_slx" else 0.02)
        run = RunDir(plan.experiment / job.sig / job.block)
        values = [{f"{split}_acc": v, f"{split}_loss": 1 - v, "macro_f1": v} for v in (0.9, 0.91, 0.93, 0.95 + by)]
        rows = [{"seed": seed, "status": "finished", **value} for seed, value in enumerate(values)]
        run.add_results([row | {f"{split}_top5_acc": 0.99} for row in rows])
        config = load_yaml(plan.cell_file(job))
        run.config.write_text(dump_yaml(change(config, data={"validation": 0 if split == "test" else 100})))
    shutil.rmtree(plan.folder)
    comparison = load([str(plan.experiment)])
    (section,) = sections.build_sections(comparison, tmp_path)
    panels = {panel.metric.key: panel for panel in section.panels}
    assert panels.keys() >= {"test_loss", "val_loss", "test_top5_acc", "val_top5_acc"}
    panel = panels["macro_f1"]
    assert [(pair.first.arch, pair.second.arch) for pair in panel.compared] == [("stn_c0", "stn_slx")]
    assert panel.matrix is not None
    assert [entry.text for entry in panel.matrix.rows[0][1:]] == ["", "other images", "other images"]
    assert [p.metric.key for p in section.panels if p.uncompared] == ["macro_f1"]
    assert panel.uncompared in markdown.render_markdown(comparison, [section])
    assert panel.uncompared in build.render_page(comparison, [section])
    assert r"\mathbf" not in _architectures(section, panel)
    rows = list(csv.DictReader(io.StringIO(markdown.render_csv(comparison.cells))))
    assert [float(rows[-1][key]) for key in ("val_loss", "val_top5_acc")] == pytest.approx([0.04, 0.99])


def test_cells_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    plan = save_plan(tmp_path, TWO_CELLS | {"grid": {"arch": ["cnn"], "lr": [0.01, 0.02]}, "seeds": "0"})
    for job in plan.jobs:
        run = RunDir(plan.experiment / job.sig / job.block)
        add_result(plan, job, 0)
        run.config.write_text(dump_yaml(load_yaml(plan.cell_file(job))))
    assert [cell.label for cell in load([str(plan.experiment)]).cells] == ["cnn lr=0.01", "cnn lr=0.02"]
    odd = RunDir(tmp_path / "runs" / plan.experiment.name / "0123456789ab" / "0")
    assert odd.path.parents[1] == plan.experiment
    odd.path.mkdir(parents=True)
    odd.config.write_text("arch: cnn\nlr: 0.03\n")  # of a value that has left the grid: no empty name
    labels = [cell.label for cell in load([str(plan.experiment)]).cells]
    assert [label for label in labels if "optim.lr=0.03" in label]
    assert "cnn" not in labels
    shutil.rmtree(odd.path.parent)
    shutil.rmtree(plan.folder)  # no sweep to say what it calls them
    assert [cell.label for cell in load([str(plan.experiment)]).cells] == ["cnn optim.lr=0.01", "cnn optim.lr=0.02"]


def test_seeds_of_a_block_whose_name_is_a_hash_are_missing_too(tmp_path: Path) -> None:
    seeds = [*range(0, 200, 2)]
    config = Config(train=Train(seeds=format_seeds(seeds)))
    run = RunDir.of(str(tmp_path), "x", signature(resolve(config)), seeds)
    assert run.seeds is None
    run.path.mkdir(parents=True)
    run.config.write_text(dump_yaml(resolve(config)))
    run.add_results([{"seed": seed, "status": "finished", "test_acc": 0.9} for seed in seeds[:20]])
    (cell,) = load([str(tmp_path)]).cells
    assert (len(cell.rows), cell.missing) == (20, seeds[20:])


def test_the_same_experiment_in_several_folders_is_told_apart(plan: Plan, tmp_path: Path) -> None:
    for folder in ("again", "x/again"):
        shutil.copytree(plan.experiment, tmp_path / folder)
    cells = load([str(plan.experiment), str(tmp_path / "again"), str(tmp_path / "x" / "again")]).cells
    labels = [cell.label for cell in cells if cell.arch == "cnn"]
    places = (plan.experiment, tmp_path / "again", tmp_path / "x" / "again")
    assert sorted(labels) == sorted(f"cnn ({folder / cells[0].sig})" for folder in places)


def test_pictures_are_in_the_page_as_long_as_there_is_room(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, comparison = plan.experiment / "report", load([str(plan.experiment)])
    out.mkdir()
    for cell, content in zip(comparison.cells, (b"first", b"second"), strict=True):
        cell.runs[1].pictures.mkdir()
        (cell.runs[1].pictures / "warp.png").write_bytes(content)
    built = sections.build_sections(comparison, out)
    ((caption, pictures),) = built[0].pictures.items()
    assert "several stages of training" in caption
    assert [(out / picture.link).read_bytes() for picture in pictures] == [b"first", b"second"]
    assert all(f"]({picture.link})" in markdown.render_markdown(comparison, built) for picture in pictures)
    monkeypatch.setattr(embedding, "MOST_BYTES", 6)
    html = build.render_page(comparison, built)
    assert f"data:image/png;base64,{base64.b64encode(b'first').decode()}" in html
    assert base64.b64encode(b"second").decode() not in html
    assert f'href="{pictures[1].link}"' in html
    told = "pictures  1 picture linked, not embedded: "
    for room, said in ((6, True), (11, False)):
        monkeypatch.setattr(embedding, "MOST_BYTES", room)
        build.compare([str(plan.experiment)])
        assert (told in capsys.readouterr().out) == said


def test_figures_of_an_older_report_are_deleted(plan: Plan) -> None:
    out = plan.experiment / "report"
    (out / "figures").mkdir(parents=True)
    for name in ("cifar10-curves.png", "cifar10-curves.svg", "mine.png"):
        (out / "figures" / name).write_text("old")
    build.write_report(load([str(plan.experiment)]), out)
    names = {path.name for path in (out / "figures").iterdir()}
    assert {f"mnist-{name}.{kind}" for name in ("pairs", "seeds", "cost") for kind in ("png", "svg")} == names - {
        "mine.png"
    }
    assert "mine.png" in names
