"""Reports: their numbers are those of the rows, whatever the rows are."""

import csv
import io
import shutil
from pathlib import Path

import pytest

from launch.report.analysis import sections, tables, verdicts
from launch.report.analysis.cells import load
from launch.report.analysis.metrics import METRICS
from launch.report.analysis.stats import compare, summary
from launch.report.output import markdown
from launch.sweep.plan import Plan
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
    low, high = pair.interval(0.05)
    assert (
        f"| stn_slx - cnn | **better** | 6 | {100 * pair.mean:+.2f} | {100 * low:+.2f} to {100 * high:+.2f} |" in text
    )
    assert f"| {pair.p:.4g} | {pair.mean / pair.sd:.2f} | - |" in text
    assert (
        f"- stn_slx beats cnn by {100 * pair.mean:.2f} points (95 % {100 * low:.2f} to {100 * high:.2f}, n = 6" in text
    )
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
    """Rows of older runs, and of data sets with at most five classes, have none."""
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


def test_few_pairs_are_unknown(plan: Plan) -> None:
    cells = load([str(plan.experiment)]).cells
    cells[1].rows = {seed: row for seed, row in cells[1].rows.items() if seed < 2}
    pairs = verdicts.compare_pairs(cells, METRICS[0])
    assert "| stn_slx - cnn | unknown | 2 | +1.05 | - | - | - | - |" in markdown.render_table(
        tables.pair_table(pairs, METRICS[0])
    )
    matrix = tables.matrix_table(cells, pairs, METRICS[0])
    assert [value.mark for row in matrix.rows for value in row[1:]] == ["", "unknown", "unknown", ""]
    assert matrix.rows[1][1].tooltip == "stn_slx - cnn: +1.05 points, fewer than 3 shared seeds, 2 pairs"
    cells[1].rows = {}
    pairs = verdicts.compare_pairs(cells, METRICS[0])
    assert "| stn_slx - cnn | unknown | 0 | - | - | - | - | - |" in markdown.render_table(
        tables.pair_table(pairs, METRICS[0])
    )
    assert tables.matrix_table(cells, pairs, METRICS[0]).rows[0][2].text == "no shared seeds"


def test_a_matrix_has_both_signs_and_knows_what_is_better(plan: Plan) -> None:
    cells = load([str(plan.experiment)]).cells
    loss = next(metric for metric in METRICS if metric.key == "test_loss")
    for metric, marks in ((METRICS[0], ("worse", "better")), (loss, ("better", "worse"))):
        for cell in cells:  # the same numbers, once as an accuracy and once as a loss
            for row in cell.rows.values():
                row["test_loss"] = row["test_acc"]
        (_, _, upper), (_, lower, _) = tables.matrix_table(cells, verdicts.compare_pairs(cells, metric), metric).rows
        assert (upper.mark, lower.mark) == marks
        assert upper.text[0] + lower.text[0] == "-+"
        assert upper.text[1:] == lower.text[1:]


def test_differences_that_may_be_chance_are_not_called_better(plan: Plan) -> None:
    cells = load([str(plan.experiment)]).cells
    for seed, row in cells[1].rows.items():
        row["test_acc"] = cells[0].rows[seed]["test_acc"] + 0.01 * (-1) ** seed + 0.001
    (pair,) = verdicts.compare_pairs(cells, METRICS[0])
    assert (pair.verdict.p or 0) > 0.05
    (_, _, upper), (_, lower, _) = tables.matrix_table(cells, [pair], METRICS[0]).rows
    (equal,) = verdicts.compare_pairs(cells, METRICS[0], 5.0)
    assert [row[-1].mark for row in tables.matrix_table(cells, [equal], METRICS[0]).rows] == ["equal", ""]
    assert (upper.mark, lower.mark) == ("unknown", "unknown")


def test_all_seeds_of_a_sweep_that_has_not_begun_are_missing(tmp_path: Path) -> None:
    plan = save_plan(tmp_path, TWO_CELLS | {"seeds": "0-3"})
    for path in (plan.experiment, plan.experiment.parent):
        cells = load([str(path)]).cells
        assert [(cell.arch, cell.missing) for cell in cells] == [("cnn", [0, 1, 2, 3]), ("stn_slx", [0, 1, 2, 3])]


def test_unreadable_files_are_named(plan: Plan) -> None:
    run = load([str(plan.experiment)]).cells[0].runs[0]
    run.results.write_text(run.results.read_text() + '{"seed": 7, "te\n[]\n')
    (run.path.parent.parent / "x" / "0").mkdir(parents=True)
    (run.path.parent.parent / "x" / "0" / "config.yaml").write_text("train: [")
    notes = load([str(plan.experiment)]).notes
    assert len(notes) == 2
    assert "skipped 2 damaged, foreign or repeated lines" in " ".join(notes)
    assert "left out" in " ".join(notes)
    (plan.folder / "manifest.jsonl").write_text("damaged")
    assert any("its missing seeds are unknown" in note for note in load([str(plan.experiment)]).notes)


@pytest.mark.parametrize("case", ["empty", "one seed", "all failed", "no value", "damaged"])
def test_a_report_is_written_whatever_the_rows_hold(case: str, tmp_path: Path) -> None:
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
    assert ("skipped 5 damaged, foreign or repeated lines" in text) == (case == "damaged")
    assert "<script>" not in text
    html = (plan.experiment / "report" / "index.html").read_text()
    assert ("No run directories" in html) == (case == "empty")
