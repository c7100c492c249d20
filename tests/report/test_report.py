"""Reports: what they say is in the rows, whatever the rows are."""

import base64
import csv
import io
import json
import shutil
from pathlib import Path

import pytest

from launch.report import build
from launch.report.analysis import charts, sections, tables
from launch.report.analysis.cells import load
from launch.report.analysis.metrics import METRICS
from launch.report.analysis.stats import compare, summary
from launch.report.output import markdown
from launch.sweep.plan import Plan
from stn.config.seed_list import parse_seeds
from stn.config.yaml_files import dump_yaml, load_yaml
from stn.runs.directory import RunDir
from tests.support.paths import ROOT
from tests.support.sweeps import TWO_CELLS, add_result, launch, save_plan


def test_numbers_are_those_of_the_rows(plan: Plan, tmp_path: Path) -> None:
    comparison = load([str(plan.experiment)])
    first, second = comparison.cells
    assert (first.label, second.label, first.dataset) == ("cnn", "stn_slx", "mnist")
    values = {seed: 0.9 + 0.001 * seed for seed in range(8)}
    assert first.values("test_acc") == pytest.approx(values)
    assert (second.failed, second.missing) == ({5: "loss is nan at step 3"}, [6])
    text = markdown.render_markdown(comparison, sections.build_sections(comparison, tmp_path))
    mean = summary(list(values.values()))
    assert f"| [cnn](runs/two/{first.sig}) | 8 | {100 * mean.mean:.2f} | {100 * (mean.sd or 0):.2f} |" in text
    assert f"| 8 | {100 * (mean.mean + 0.01):.2f} |" in text.partition("best epoch")[2]
    assert "| 1,000 | 10,000 | 3 | - | 0 | 0 |" in text
    pair = compare(first.values("test_acc"), second.values("test_acc"))
    assert pair.difference is not None
    assert pair.p == 2 / 64
    assert f"| stn_slx - cnn | 6 | {100 * pair.difference.mean:+.2f} |" in text
    assert "| 0.03125 |" in text
    assert "- stn_slx: seeds 6 are missing" in text
    assert "- stn_slx: seed 5 failed: loss is nan at step 3" in text


def test_the_csv_has_every_seed(plan: Plan) -> None:
    rows = list(csv.DictReader(io.StringIO(markdown.render_csv(load([str(plan.experiment)]).cells))))
    assert [(row["arch"], row["seed"], row["status"]) for row in rows if row["status"] != "finished"] == [
        ("stn_slx", "5", "failed"),
        ("stn_slx", "6", "missing"),
    ]
    assert len(rows) == 16


def test_top5_accuracy_is_reported_where_rows_have_it(plan: Plan, tmp_path: Path) -> None:
    """Rows of older runs, and of data sets with at most five classes, lack it."""
    comparison = load([str(plan.experiment)])
    cell = comparison.cells[0]
    assert "top 5" not in markdown.render_markdown(comparison, sections.build_sections(comparison, tmp_path))
    for seed in range(4):
        cell.rows[seed]["test_top5_acc"] = 0.99 + 0.001 * seed
    panels = {panel.metric.key: panel for panel in sections.build_sections(comparison, tmp_path)[0].panels}
    with_it, without = panels["test_top5_acc"].architectures.rows
    assert [entry.text for entry in with_it[1:3]] == ["4", "99.15"]
    assert [entry.text for entry in without[1:3]] == ["0", "-"]
    rows = list(csv.DictReader(io.StringIO(markdown.render_csv(comparison.cells))))
    assert [row["test_top5_acc"] for row in rows[3:5]] == ["0.993", ""]


def test_few_pairs_have_no_p_value(plan: Plan) -> None:
    cells = load([str(plan.experiment)]).cells
    cells[1].rows = {seed: row for seed, row in cells[1].rows.items() if seed < 5}
    pairs = tables.compare_pairs(cells, METRICS[0])
    assert "no p-value (fewer than 6 shared seeds)" in markdown.render_table(tables.pair_table(pairs, METRICS[0]))
    matrix = tables.matrix_table(cells, pairs, METRICS[0])
    assert [value.mark for row in matrix.rows for value in row[1:]] == ["", "few", "few", ""]


def test_a_matrix_has_both_signs_and_knows_what_is_better(plan: Plan) -> None:
    cells = load([str(plan.experiment)]).cells
    loss = next(metric for metric in METRICS if metric.key == "test_loss")
    for metric, marks in ((METRICS[0], ("worse", "better")), (loss, ("better", "worse"))):
        for cell in cells:  # the same numbers, once as an accuracy and once as a loss
            for row in cell.rows.values():
                row["test_loss"] = row["test_acc"]
        (_, _, upper), (_, lower, _) = tables.matrix_table(cells, tables.compare_pairs(cells, metric), metric).rows
        assert (upper.mark, lower.mark) == marks
        assert upper.text[0] + lower.text[0] == "-+"
        assert upper.text[1:] == lower.text[1:]


def test_what_may_be_chance_is_not_called_better(plan: Plan) -> None:
    cells = load([str(plan.experiment)]).cells
    for seed, row in cells[1].rows.items():
        row["test_acc"] = cells[0].rows[seed]["test_acc"] + 0.01 * (-1) ** seed + 0.001
    (pair,) = tables.compare_pairs(cells, METRICS[0])
    assert pair.p is not None
    assert pair.p > 0.05
    (_, _, upper), (_, lower, _) = tables.matrix_table(cells, [pair], METRICS[0]).rows
    assert (upper.mark, lower.mark) == ("weak", "weak")


def test_what_so_many_pairs_on_so_few_seeds_cannot_show_is_said(plan: Plan) -> None:
    """Six pairs of seeds: no p below 2/64, so that two comparisons are already too many."""
    cells = load([str(plan.experiment)]).cells
    assert tables.power_note(tables.compare_pairs(cells, METRICS[0])) == ""
    three = tables.compare_pairs([*cells, cells[1]], METRICS[0])
    assert "can fall below 0.094; use at least 7 seeds" in tables.power_note([three[0], three[1], three[0]])


def test_every_seed_of_a_sweep_that_has_begun_nowhere_is_missing(tmp_path: Path) -> None:
    plan = save_plan(tmp_path, TWO_CELLS | {"seeds": "0-3"})
    for path in (plan.experiment, plan.experiment.parent):
        cells = load([str(path)]).cells
        assert [(cell.arch, cell.missing) for cell in cells] == [("cnn", [0, 1, 2, 3]), ("stn_slx", [0, 1, 2, 3])]


def test_what_cannot_be_read_is_said(plan: Plan) -> None:
    run = load([str(plan.experiment)]).cells[0].runs[0]
    run.results.write_text(run.results.read_text() + '{"seed": 7, "te\n[]\n')
    (run.path.parent.parent / "x" / "0").mkdir(parents=True)
    (run.path.parent.parent / "x" / "0" / "config.yaml").write_text("train: [")
    notes = load([str(plan.experiment)]).notes
    assert len(notes) == 2
    assert "skipped 2 damaged or repeated lines" in " ".join(notes)
    assert "left out" in " ".join(notes)
    (plan.folder / "manifest.jsonl").write_text("damaged")
    assert any("its missing seeds are unknown" in note for note in load([str(plan.experiment)]).notes)


def test_a_curve_is_of_evaluations_and_keeps_its_end(plan: Plan) -> None:
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


def test_a_confusion_is_the_mean_over_seeds(plan: Plan) -> None:
    cell = load([str(plan.experiment)]).cells[0]
    cell.rows[0]["confusion"], cell.rows[1]["confusion"] = [[8, 2], [1, 9]], [[6, 4], [1, 9]]
    chart = charts.confusion(cell)
    assert chart == {"n": 2, "mean": [[7, 3], [1, 9]], "least": [[6, 2], [1, 9]], "most": [[8, 4], [1, 9]]}
    cell.rows[2]["confusion"] = [[1]]
    assert charts.confusion(cell) is None


def test_cells_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    plan = save_plan(tmp_path, TWO_CELLS | {"grid": {"arch": ["cnn"], "lr": [0.01, 0.02]}, "seeds": "0"})
    for job in plan.jobs:
        run = RunDir(plan.experiment / job.sig / job.block)
        add_result(plan, job, 0)
        run.config.write_text(dump_yaml(load_yaml(plan.cell_file(job))))
    assert [cell.label for cell in load([str(plan.experiment)]).cells] == ["cnn lr=0.01", "cnn lr=0.02"]
    shutil.rmtree(plan.folder)  # no sweep to say what it calls them
    assert [cell.label for cell in load([str(plan.experiment)]).cells] == ["cnn optim.lr=0.01", "cnn optim.lr=0.02"]


def test_the_same_experiment_in_several_folders_is_told_apart(plan: Plan, tmp_path: Path) -> None:
    for folder in ("again", "x/again"):
        shutil.copytree(plan.experiment, tmp_path / folder)
    cells = load([str(plan.experiment), str(tmp_path / "again"), str(tmp_path / "x" / "again")]).cells
    labels = [cell.label for cell in cells if cell.arch == "cnn"]
    places = (plan.experiment, tmp_path / "again", tmp_path / "x" / "again")
    assert sorted(labels) == sorted(f"cnn ({folder / cells[0].sig})" for folder in places)


def test_what_should_not_differ_is_said(plan: Plan) -> None:
    for i, cell in enumerate(load([str(plan.experiment)]).cells):
        for run in cell.runs:
            run.env.write_text(json.dumps({"commit": "abc", "dirty": bool(i)}))
    cells = load([str(plan.experiment)]).cells
    assert sections.confounders(cells) == ["some runs were started with uncommitted changes"]
    cells[0].runs[0].env.write_text(json.dumps({"commit": "def", "device": "cuda", "packages": {"torch": "1"}}))
    cells = load([str(plan.experiment)]).cells
    train = cells[0].config.train.model_copy(update={"precision": "bf16"})
    batches = cells[0].config.data.model_copy(update={"batch_size": 7})
    cells[0].config = cells[0].config.model_copy(update={"train": train, "data": batches})
    cells[0].rows[0] |= {"world_size": 2, "steps": 7}
    assert [text.split(" are")[0].removeprefix("different ") for text in sections.confounders(cells)[:-1]] == [
        "commits",
        "devices",
        "versions of torch",
        "precisions",
        "numbers of processes",
        "lengths of training (steps)",
        "batch sizes",
    ]
    cells[0].config = cells[0].config.model_copy(update={"data": batches.model_copy(update={"validation": 100})})
    assert "different numbers of validation images are compared: 0, 100" in sections.confounders(cells)


@pytest.mark.parametrize("case", ["empty", "one seed", "all failed", "no value", "damaged"])
def test_whatever_there_is_there_is_a_report(case: str, tmp_path: Path) -> None:
    plan = save_plan(tmp_path, TWO_CELLS | {"grid": {"arch": ["cnn"]}, "seeds": "0"})
    job = plan.jobs[0]
    run = RunDir(plan.experiment / job.sig / job.block)
    run.path.mkdir(parents=True)
    run.config.write_text(dump_yaml(load_yaml(plan.cell_file(job))))
    if case == "one seed":
        add_result(plan, job, 0)
    elif case == "all failed":
        add_result(plan, job, 0, status="failed", reason="a | b <script>\nc")
    elif case == "no value":
        run.add_results([{"seed": 0, "status": "finished", "test_acc": None}])
    elif case == "damaged":
        run.results.write_text('{"seed": 0, "test_acc"\n[1]\n{"seed": "x"}\n{"seed": 0, "test_acc": NaN}\n\0')
    elif case == "empty":
        shutil.rmtree(plan.experiment)
        plan.experiment.mkdir()
    done = launch("report", plan.experiment, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    text = (plan.experiment / "report" / "report.md").read_text()
    assert ("No run directories" in text) == (case == "empty")
    assert ("finished without a value" in text) == (case == "no value")
    assert ("skipped 5 damaged or repeated lines" in text) == (case == "damaged")
    assert "<script>" not in text
    html = (plan.experiment / "report" / "index.html").read_text()
    assert ("No run directories" in html) == (case == "empty")


def test_pictures_are_in_the_page_as_long_as_there_is_room(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
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
    monkeypatch.setattr(build, "MOST_BYTES", 6)
    html = build.render_page(comparison, built)
    assert f"data:image/png;base64,{base64.b64encode(b'first').decode()}" in html
    assert base64.b64encode(b"second").decode() not in html
    assert f'href="{pictures[1].link}"' in html


def test_an_older_reports_figures_are_gone(plan: Plan) -> None:
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
