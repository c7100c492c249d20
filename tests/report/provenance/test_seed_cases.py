"""Cases of too few seeds, and of seeds that are there twice."""

import json
import shutil
from pathlib import Path

import pytest

from launch.report.analysis.cells import Comparison
from launch.report.analysis.sections import build_sections
from launch.report.output.latex import escape, render_latex
from launch.sweep.plan import Plan
from stn.runs.directory import RunDir
from tests.support.report_cases import cells_of, found, keep, only


def test_one_seed_has_no_interval(clean: Plan) -> None:
    cells = cells_of(clean)
    keep(cells[0], 3)
    config = cells[0].runs[0].config
    case = only(cells)
    assert case.what == "cnn has one seed, so that it has no SD and no interval"
    assert case.advice == f"train at least two more: python train.py --config {config} --seeds 4-5"
    cells[0].missing = [5, 4]
    assert only(cells).advice == "wait for seeds 4-5, which are missing"


def test_too_few_shared_seeds(clean: Plan) -> None:
    cells = cells_of(clean)
    keep(cells[1], 0, 1)
    case = only(cells)
    assert case.what == "cnn and stn_slx share 2 seeds, and a test takes 3"
    config = cells[1].runs[0].config
    assert case.advice == f"train those that cnn has: python train.py --config {config} --seeds 2-7"
    keep(cells[0], 4, 5, 6)
    case = only(cells)
    assert case.what == "cnn and stn_slx share no seed, and a test takes 3"
    assert "those that cnn has" in case.advice
    cells = cells_of(clean)
    for cell in cells:
        keep(cell, 0, 1)
    assert only(cells).advice == "train seeds 2 of both, or give the sweep a longer `seeds`"
    keep(cells[0])
    assert found(cells) == [], "that seeds are missing is said elsewhere"


def test_failed_seeds_are_said_wherever_a_verdict_is(clean: Plan, tmp_path: Path) -> None:
    cells = cells_of(clean)
    for seed in range(2, 8):
        cells[1].rows.pop(seed, None)
        cells[1].failed[seed] = "non-finite loss at step 3"
    said = "6 of 8 seeds of stn_slx failed"
    assert found(cells[1:]) == [], "one architecture is compared with none"
    assert [case.what for case in found(cells)] == ["cnn and stn_slx share 2 seeds, and a test takes 3", said]
    (section,) = build_sections(Comparison("x", cells, []), tmp_path)
    assert section.panels[0].verdicts == [f"cnn and stn_slx: unknown; fewer than 3 shared seeds; {said}"]
    captions = [line for line in render_latex([section]).splitlines() if line.startswith(r"\caption")]
    assert len(captions) == 4
    assert all(line.endswith(f" {escape(said)}.}}") for line in captions)
    cells[0].failed[9] = "out of memory"
    assert found(cells)[-1].what == f"1 of 9 seeds of cnn failed, {said}"


@pytest.mark.parametrize(("acc", "agree"), [(0.9, True), (0.1, False)])
def test_seeds_in_two_blocks(acc: float, agree: bool, clean: Plan) -> None:
    first = cells_of(clean)[0].runs[0]
    second = RunDir(first.path.with_name("0-9"))
    second.path.mkdir()
    shutil.copy(first.config, second.config)
    shutil.copy(first.env, second.env)
    second.results.write_text(json.dumps({"seed": 0, "status": "finished", "test_acc": acc}) + "\n")
    case = only(cells_of(clean))
    assert case.what == "cnn: seeds 0 are in 0-3 and in 0-9"
    expected = "they agree, and 0-3 counts; 0-9 can be deleted"
    other = "they differ, and 0-3 counts, as the first by name: move away the one that should not"
    assert case.advice == (expected if agree else other)
    second.results.unlink()
    assert found(cells_of(clean)) == [], "a block without a row is no second result"


def test_a_block_with_seeds_of_its_own_is_to_be_kept(clean: Plan) -> None:
    first = cells_of(clean)[0].runs[0]
    second = RunDir(first.path.with_name("2-9"))
    shutil.copytree(first.path, second.path)
    rows = [{"seed": seed, "status": "finished", "test_acc": 0.9 + 0.001 * seed} for seed in (2, 3, 8, 9)]
    shutil.rmtree(second.published, ignore_errors=True)
    second.results.write_text("".join(json.dumps(row) + "\n" for row in rows))
    case = only(cells_of(clean))
    assert case.what == "cnn: seeds 2-3 are in 0-3 and in 2-9"
    assert case.advice == "they agree, and 0-3 counts; keep 2-9: 0-3 lacks its seeds 8-9"
