"""A report against an earlier one: what is worse, by the rows alone; and files that are no earlier report."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from launch.report import build
from launch.report.analysis.cells import load
from launch.report.analysis.sections import build_sections
from launch.report.earlier.compare import Against, compare_with
from launch.report.earlier.read import EarlierCell, read_earlier, read_rows_csv
from launch.report.output.markdown import render_csv
from launch.sweep.plan import Plan
from tests.support.paths import ROOT
from tests.support.sweeps import launch


@pytest.fixture
def old(plan: Plan, tmp_path: Path) -> Path:
    """The rows.csv of the sweep before anything changed."""
    path = tmp_path / "old" / "rows.csv"
    path.parent.mkdir()
    path.write_text(render_csv(load([str(plan.experiment)]).cells))
    return path


def change(plan: Plan, arch: str, by) -> None:
    """Change the test accuracy of every seed of an architecture, in its files."""
    for path in plan.experiment.glob("*/*/results.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        if any(job.sig == path.parent.parent.name and job.arch == arch for job in plan.jobs):
            shutil.rmtree(path.parent / ".rows", ignore_errors=True)
            changed = [row | {"row_sha256": None, "test_acc": by(row)} for row in rows if row["status"] == "finished"]
            path.write_text("".join(json.dumps(row) + "\n" for row in changed))


def against(plan: Plan, old: Path, margin: float | None = None) -> Against:
    sections = build_sections(load([str(plan.experiment)]), old.parent, margin)
    return compare_with(read_earlier(old), old, sections, margin)


@pytest.mark.slow
def test_nothing_changed_is_the_same(plan: Plan, old: Path) -> None:
    found = against(plan, old)
    assert [c.mark for c in found.changes] == ["same", "same"]
    assert found.lines == [
        "mnist, cnn: the same on all 8 shared seeds",
        "mnist, stn_slx: the same on all 6 shared seeds",
    ]
    assert (found.worse, found.notes) == ([], [])
    done = launch("report", plan.experiment, "--against", old, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "no worse  2 same"


@pytest.mark.slow
def test_what_got_worse_is_said_with_its_numbers(plan: Plan, old: Path) -> None:
    change(plan, "cnn", lambda row: row["test_acc"] - 0.004 - 0.0003 * (row["seed"] % 3))
    before = {
        int(r["seed"]): float(r["test_acc"]) for r in csv.DictReader(old.read_text().splitlines()) if r["arch"] == "cnn"
    }
    d = np.array([-0.004 - 0.0003 * (seed % 3) for seed in sorted(before)])
    test: Any = scipy_stats.ttest_1samp(d, 0)
    low, high = (100 * end for end in test.confidence_interval(0.95))
    found = against(plan, old)
    assert found.worse == ["mnist, cnn"]
    assert found.lines[0] == (
        f"mnist, cnn: worse ({100 * d.mean():+.2f} points, 95 % {low:+.2f} to {high:+.2f}, n = 8 pairs, p < 0.001)"
    )
    row = found.table.rows[0]
    shown = [entry.text for entry in row]
    mean = 100 * np.mean(list(before.values()))
    assert shown[:4] == ["cnn", "mnist", "worse", "8"]
    assert shown[4:8] == [f"{mean:.2f}", f"{mean + 100 * d.mean():.2f}", f"{100 * d.mean():+.2f}",
                          f"{low:+.2f} to {high:+.2f}"]  # fmt: skip
    assert shown[8:] == [f"{test.pvalue:.4g}", "the same"]
    for source in (old, old.parent):
        done = launch("report", plan.experiment, "--against", source, cwd=ROOT)
        assert (done.returncode, done.stderr) == (3, "")
        assert done.stdout.splitlines()[-1] == "WORSE  mnist, cnn"
    out = plan.experiment / "report"
    assert found.lines[0] in (out / "report.md").read_text().replace("&lt;", "<")
    assert found.lines[0] in (out / "index.html").read_text().replace("&lt;", "<")
    assert launch("report", plan.experiment, "--against", out, cwd=ROOT).returncode == 0, "it replaced itself"


def test_better_equal_and_unknown_are_no_worse(plan: Plan, old: Path) -> None:
    change(plan, "cnn", lambda row: row["test_acc"] + 0.0004 + 0.0001 * (row["seed"] % 3))
    change(plan, "stn_slx", lambda row: row["test_acc"] + 0.01 * (-1) ** row["seed"])
    assert sorted(c.mark for c in against(plan, old).changes) == ["better", "unknown"]
    found = against(plan, old, 0.2)
    assert sorted(c.mark for c in found.changes) == ["equal", "unknown"]
    assert found.worse == []
    assert any("equal within 0.2 points" in line and "after Holm" in line for line in found.lines)


def test_a_seed_that_fails_now_is_worse(plan: Plan, old: Path) -> None:
    comparison = load([str(plan.experiment)])
    cell = comparison.cells[0]
    del cell.rows[3]
    cell.failed[3] = "loss is nan"
    found = compare_with(read_earlier(old), old, build_sections(comparison, old.parent))
    assert found.worse == ["mnist, cnn"]
    assert found.lines[0] == "mnist, cnn: the same on all 7 shared seeds; seeds 3 had finished and have failed now"
    second = comparison.cells[1]
    assert second.failed.keys() == {5}, "it had failed before, too"


def test_few_shared_seeds_and_one_shift_are_unknown(plan: Plan, old: Path) -> None:
    rows = [EarlierCell("mnist", "cnn", numbers={"test_acc": {0: 0.8, 1: 0.7}}, seeds={0: "finished", 1: "finished"})]
    sections = build_sections(load([str(plan.experiment)]), old.parent)
    found = compare_with(rows, old, sections)
    assert found.lines == ["mnist, cnn: unknown; fewer than 3 shared seeds"]
    assert found.notes == ["not in the earlier report: stn_slx on mnist"]
    assert found.table.rows[0][-1].text == "not recorded"
    rows[0].numbers["test_acc"] = {
        seed: value - 0.25 for seed, value in sections[0].cells[0].values("test_acc").items()
    }
    assert "it changed by the same on every seed" in compare_with(rows, old, sections).lines[0]
    rows[0].numbers = {}
    assert "the earlier report has no values for mnist, cnn" in compare_with(rows, old, sections).notes


def test_run_directories_and_a_page_are_an_earlier_report(plan: Plan, tmp_path: Path) -> None:
    shutil.copytree(plan.experiment, tmp_path / "before")
    build.write_report(load([str(plan.experiment)]), tmp_path / "r")
    change(plan, "cnn", lambda row: row["test_acc"] - 0.004 - 0.0003 * (row["seed"] % 3))
    runs, page = against(plan, tmp_path / "before"), against(plan, tmp_path / "r" / "index.html")
    assert runs.worse == page.worse == ["mnist, cnn"]
    assert runs.lines == page.lines
    assert runs.signature == page.signature
    assert runs.signature.partition("|rows:")[2].count("|against:") == 1


def test_settings_decide_before_signatures(plan: Plan, old: Path) -> None:
    sections = build_sections(load([str(plan.experiment)]), old.parent)
    cell = sections[0].cells[0]
    scores = {"test_acc": {0: 0.1}}
    moved = EarlierCell("mnist", "cnn", "(elsewhere)", cell.sig, scores, {0: "finished"})
    other = EarlierCell("mnist", "cnn", "", "other", scores, {0: "finished"})
    assert compare_with([moved, other], old, sections).changes[0].before is other
    assert compare_with([moved], old, sections).changes[0].before is moved


HEAD = "dataset,arch,setting,sig,seed,status,reason,test_acc\n"
DAMAGED = {
    "nothing": (b"", "no column 'dataset'"),
    "another table": (b"a,b\n1,2\n", "no column 'dataset'"),
    "a picture": (b"\x89PNG\r\n\x1a\n\xff\xfe", "is not the rows.csv of a report"),
    "cut": ((HEAD + "mnist,cnn,,abc,0,finished,,0.9\nmnist,cn").encode(), "line 3: has another number of fields"),
    "a word": ((HEAD + "mnist,cnn,,abc,0,finished,,high\n").encode(), "line 2: test_acc 'high' is not a number"),
    "nan": ((HEAD + "mnist,cnn,,abc,0,finished,,nan\n").encode(), "line 2: test_acc 'nan' is not a number"),
    "seed": ((HEAD + "mnist,cnn,,abc,-1,finished,,0.9\n").encode(), "line 2: seed '-1' is not a number"),
    "status": ((HEAD + "mnist,cnn,,abc,0,done,,0.9\n").encode(), "line 2: status 'done' is none of finished"),
    "twice": (
        (HEAD + "mnist,cnn,,abc,0,finished,,0.9\n" * 2).encode(),
        "line 3: seed 0 of cnn on mnist is there twice",
    ),
    "no seed": (HEAD.encode(), "it has no seed"),
    "another data set": ((HEAD + "svhn,cnn,,abc,0,finished,,0.9\n").encode(), "nothing in common; it has cnn on svhn"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_earlier_report_is_refused(case: str, plan: Plan, tmp_path: Path) -> None:
    content, why = DAMAGED[case]
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"rows\.csv") as refusal:
        against(plan, tmp_path / "rows.csv")
    assert why in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_is_not_there_is_refused_before_anything_is_written(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, why in ((tmp_path / "none", "no such file or folder"), (tmp_path / "empty", "no run directory")):
        done = launch("report", plan.experiment, "--against", source, cwd=ROOT)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"error: --against {source}: ")
        assert why in done.stderr
        assert "give the folder of an earlier report" in done.stderr
    assert not (plan.experiment / "report").exists()


def test_an_older_rows_csv_lacks_columns(old: Path, plan: Plan) -> None:
    rows = list(csv.DictReader(old.read_text().splitlines()))
    with old.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["dataset", "arch", "seed", "status", "test_acc"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    assert {cell.sig for cell in read_rows_csv(old)} == {""}
    assert [c.mark for c in against(plan, old).changes] == ["same", "same"]
