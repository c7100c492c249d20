"""Each case that limits a comparison is found where it is and nowhere else, and its advice is about what was done."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launch.report.analysis.cells import Cell, load
from launch.report.analysis.sections import build_sections
from launch.report.output.markdown import render_markdown
from launch.sweep.plan import Plan
from stn.runs.directory import RunDir
from tests.support.report_cases import ENV, cells_of, found, only, set_env


def test_other_commits(clean: Plan) -> None:
    cells = cells_of(clean)
    set_env(cells[1], commit="b" * 40)
    case = only(cells)
    assert case.what == "different commits are compared: aaaaaaaaaaaa (cnn), bbbbbbbbbbbb (stn_slx)"
    assert case.advice.startswith("see what changed (git diff bbbbbbbbbbbb aaaaaaaaaaaa -- stn train.py), ")
    assert case.advice.endswith("train stn_slx again at aaaaaaaaaaaa with --retrain")
    set_env(cells[1], commit=None)
    assert only(cells).advice.startswith("a run does not know its commit")


def test_commits_that_compute_the_same(clean: Plan) -> None:
    cells = cells_of(clean)
    for cell in cells:
        set_env(cell, slice(1), commit="b" * 40)
    case = only(cells)
    assert case.what == "different commits are compared: aaaaaaaaaaaa, bbbbbbbbbbbb"
    assert "see what changed" in case.advice, "no fingerprint says that they compute the same"
    for cell in cells:
        for row in cell.rows.values():
            row["fingerprint"] = {"shapes": "x", "loss": [1.0]}
    assert only(cells).advice.endswith("whose fingerprints agree: they compute the same")
    set_env(cells[0], commit="b" * 40)
    assert "see what changed" in only(cells).advice, "one cell has one commit alone"


def test_a_run_without_a_result_has_no_commit_dirt_or_device_to_tell(clean: Plan) -> None:
    for cell in cells_of(clean):
        run = RunDir(cell.folder / "8-9")
        run.path.mkdir()
        run.config.write_text(cell.runs[0].config.read_text())
        run.env.write_text(json.dumps(ENV | {"commit": "b" * 40, "dirty": True, "device": "cuda"}))
    assert found(cells_of(clean)) == [], "no seed of the other commit is compared"


def test_how_often_runs_were_evaluated_matters_to_the_best_epoch_alone(clean: Plan) -> None:
    cells = cells_of(clean)
    _config("eval", every="9 steps")(cells[0])
    for row in cells[0].rows.values():
        del row["best_test_acc"]
    assert found(cells) == []


def test_uncommitted_changes(clean: Plan) -> None:
    cells = cells_of(clean)
    set_env(cells[1], dirty=True)
    case = only(cells)
    assert case.what == "some runs were started with uncommitted changes"
    assert case.advice == "no commit says what trained stn_slx: commit, and train again before it is cited"


def test_other_fingerprints_of_one_configuration(clean: Plan, tmp_path: Path) -> None:
    shutil.copytree(clean.experiment, tmp_path / "again")
    cells = [cell for path in (clean.experiment, tmp_path / "again") for cell in load([str(path)]).cells[:1]]
    for cell, loss, setting in zip(cells, (2.3, 2.4), ("(two)", "(again)"), strict=True):
        cell.setting = setting
        for row in cell.rows.values():
            row["fingerprint"] = {"shapes": "x", "loss": [loss]}
    case = only(cells)
    assert case.what == "cnn (two) and cnn (again) have one configuration and other fingerprints (loss differs)"
    assert case.advice.endswith(f"python train.py --config {cells[0].runs[0].config} --seeds 0-7 --retrain")
    for row in cells[0].rows.values():
        row["fingerprint"]["loss"] = [2.4]
    assert found(cells) == []
    cells = cells_of(clean)
    for cell in cells:
        for row in cell.rows.values():
            row["fingerprint"] = {"shapes": cell.arch, "loss": [2.3]}
    assert found(cells) == [], "two architectures compute different things"


def test_recut_blocks(clean: Plan) -> None:
    cells = cells_of(clean)
    for cell, fused in zip(cells, (4, 10), strict=True):
        for row in cell.rows.values():
            row["fused"] = fused
    case = only(cells)
    assert case.what == "different numbers of seeds at once are compared: 10 (stn_slx), 4 (cnn)"
    assert "accuracies compare" in case.advice
    for row in cells[1].rows.values():
        row["fused"] = 4
    cells[1].rows[7]["fused"] = 3
    assert found(cells) == [], "the last block of a cell is often smaller"


def _config(section: str, **values: Any) -> Callable[[Cell], None]:
    def change(cell: Cell) -> None:
        part = getattr(cell.config, section).model_copy(update=values)
        cell.config = cell.config.model_copy(update={section: part})

    return change


def _row(**values: Any) -> Callable[[Cell], None]:
    return lambda cell: cell.rows[0].update(values)


DIFFERENCES: dict[str, tuple[Callable[[Cell], None], str]] = {
    "devices": (lambda cell: set_env(cell, device_name="H100"), "H100 (cnn), cpu (stn_slx)"),
    "versions of torch": (lambda cell: set_env(cell, packages={"torch": "3"}), "2 (stn_slx), 3 (cnn)"),
    "contents of the files (hash)": (lambda cell: set_env(cell, data={"content": "0f"}), "0f (cnn), None (stn_slx)"),
    "precisions": (_config("train", precision="bf16"), "bf16 (cnn), fp32 (stn_slx)"),
    "batch sizes": (_config("data", batch_size=7), "128 (stn_slx), 7 (cnn)"),
    "numbers of validation images": (_config("data", validation=100), "0 (stn_slx), 100 (cnn)"),
    "numbers of training images (limit)": (_config("data", limit_train=1000), "1000 (cnn), 256 (stn_slx)"),
    "numbers of test images (limit)": (_config("data", limit_test=1000), "1000 (cnn), all (stn_slx)"),
    "settings of eval.mirror": (_config("eval", mirror=True), "no (stn_slx), yes (cnn)"),
    "intervals between evaluations (best epoch)": (
        _config("eval", every="9 steps"),
        "2 steps (stn_slx), 9 steps (cnn)",
    ),
    "numbers of processes": (_row(world_size=2), "2 (cnn), None (cnn, stn_slx)"),
    "lengths of training (steps)": (_row(steps=7), "7 (cnn), None (cnn, stn_slx)"),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_what_should_agree(name: str, clean: Plan) -> None:
    change, values = DIFFERENCES[name]
    cells = cells_of(clean)
    change(cells[0])
    case = only(cells)
    assert case.what == f"different {name} are compared: {values}"
    assert ("train all" in case.advice) or name == "numbers of processes"


def test_odd_environments_are_unknown(clean: Plan) -> None:
    cells = cells_of(clean)
    for text in ("", "[1]", '{"packages": [1], "commit": [1], "data": 3}', '{"packages": null}'):
        for cell in cells:
            for run in cell.runs:
                run.env.write_text(text)
        assert found(cells) == []


def test_the_verdict_stands_above_the_warnings(clean: Plan, tmp_path: Path) -> None:
    set_env(cells_of(clean)[1], dirty=True)
    comparison = load([str(clean.experiment)])
    text = render_markdown(comparison, build_sections(comparison, tmp_path))
    verdict, warning, table = (text.index(part) for part in ("stn_slx beats cnn", "**Warning:** some runs", "| arch"))
    assert verdict < warning < text.index("- stn_slx: seeds 5-6 are missing") < table
    assert "uncommitted changes; no commit says what trained stn\\_slx: commit" in text.replace(
        "stn_slx:", "stn\\_slx:"
    )
