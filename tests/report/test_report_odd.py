"""Reports over odd run directories: what is damaged, twice there, or only a part."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from launch.report import build
from launch.report.analysis import charts, sections, tables
from launch.report.analysis.cells import load
from launch.report.analysis.metrics import METRICS
from launch.report.analysis.verdicts import compare_pairs
from launch.report.output import figures, markdown
from launch.sweep.plan import Plan
from stn.config.resolve import resolve
from stn.config.schema import Config
from stn.config.yaml_files import dump_yaml
from stn.runs.directory import RunDir, find_runs
from stn.runs.files import read_rows


def _of(kind: str, change: dict) -> Callable[[RunDir], None]:
    """Return a function that changes fields of the result rows, or of one kind of metrics."""

    unsigned = change | {"row_sha256": None}  # else the row would be dropped as damaged

    def damage(run: RunDir) -> None:
        path = run.results if kind == "result" else run.metrics
        rows = [row | unsigned if row.get("kind", "result") == kind else row for row in read_rows(path)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    return damage


def _folder(name: str) -> Callable[[RunDir], None]:
    def damage(run: RunDir) -> None:
        (run.path / name).unlink(missing_ok=True)
        (run.path / name).mkdir(parents=True)

    return damage


ODD = ["x", None, [1], {"a": 1}, float("nan"), float("inf"), True, 10**400, 1e308]
DAMAGES: list[Callable[[RunDir], object]] = [
    *(_of("eval", {key: odd}) for key in ("seed", "epoch", "test_acc", "kind") for odd in ODD),
    *(_of("pose", {"degrees": odd}) for odd in [*ODD, *({"applied": [odd, 2], "predicted": [1, 2]} for odd in ODD)]),
    _of("pose", {"degrees": {"applied": [[1, 2], [3]], "predicted": [1]}}),
    *(_of("result", {key: odd}) for key in ("fused", "wall_s", "steps", "test_loss", "params") for odd in ODD),
    *(_of("result", {"confusion": odd}) for odd in [*ODD, [], ["ab"], [[1, 2], [1]], [[[1]]]]),
    *(_of("result", {"confusion": [[odd]]}) for odd in [*ODD, -1]),
    *(lambda run, odd=odd: run.env.write_text(f'{{"packages": {odd}, "commit": [1]}}') for odd in ("null", "[1]", "1")),
    lambda run: run.results.write_text('{"seed": 0, "status": "failed", "reason": "\\ud800"}\n'),
    lambda run: run.results.write_text(f'{{"seed": {"1" * 5000}}}\n'),
    lambda run: run.metrics.write_text('["eval"]\n"eval"\n'),
    *(_folder(name) for name in ("metrics.jsonl", "results.jsonl", "env.json", "pictures/warp.png")),
]  # fmt: skip


@pytest.mark.slow
def test_odd_rows_still_make_a_report(plan: Plan, tmp_path: Path) -> None:
    run = load([str(plan.experiment)]).cells[0].runs[0]
    for seed, row in run.rows().items():
        run.forget({seed})
        run.add_results([row | {"confusion": [[8, 2], [1, 9]], "wall_s": 3.0, "fused": 4}])
    pose = {"kind": "pose", "seed": 0, "step": 1, "degrees": {"applied": [1, 2], "predicted": [1, 2]}}
    run.add_metrics([{"kind": "eval", "seed": 0, "step": 1, "epoch": 1.0, "test_acc": 0.5}, pose])
    run.env.write_text("{}")
    shutil.copytree(run.path, tmp_path / "whole")
    for damage in DAMAGES:
        shutil.rmtree(run.path)
        shutil.copytree(tmp_path / "whole", run.path)
        damage(run)
        comparison = load([str(plan.experiment)])
        built = sections.build_sections(comparison, tmp_path)
        assert "stn_slx" in build.render_page(comparison, built)
        assert "stn_slx" in markdown.render_markdown(comparison, built)
        for kind in {"curves", "confusion", "pose"} & built[0].figures.keys():
            getattr(figures, kind)(built[0].charts)


def test_poses_that_are_drawn_are_of_all_images_and_both_directions(plan: Plan) -> None:
    """A shift has x and y one after the other: every second of them would be x alone."""
    cell = load([str(plan.experiment)]).cells[0]
    both = [[x, 1000 + x] for x in range(200)]
    cell.metrics["pose"] = {seed: [{"shift": {"applied": both, "predicted": both}}] for seed in range(10)}
    chart = charts.pose(cell)
    assert chart is not None
    assert len(chart["points"]) == charts.MOST_POINTS
    assert sum(a >= 1000 for a, _ in chart["points"]) == pytest.approx(200, abs=50)
    assert len({a for a, _ in chart["points"]}) > 200


def test_half_a_character_is_written_as_something(plan: Plan) -> None:
    comparison = load([str(plan.experiment)])
    comparison.cells[0].failed[9] = "\ud800"
    build.write_report(comparison, plan.experiment / "report")
    assert "seed 9 failed: ?" in (plan.experiment / "report" / "report.md").read_text()


def test_a_seed_in_two_run_directories_counts_once_and_that_is_said(plan: Plan) -> None:
    first = load([str(plan.experiment)]).cells[0].runs[0]
    second = RunDir(first.path.with_name("0-9"))
    second.path.mkdir()
    second.config.write_text(first.config.read_text())
    second.results.write_text(json.dumps({"seed": 0, "status": "finished", "test_acc": 0.1}) + "\n")
    rows = ({"kind": "eval", "seed": 0, "step": 1, "epoch": 1, "test_acc": acc} for acc in (0.9, 0.1))
    for run, row in zip((first, second), rows, strict=True):
        run.add_metrics([row])
    comparison = load([str(plan.experiment)])
    assert comparison.cells[0].rows[0]["test_acc"] == 0.9
    assert [row["test_acc"] for row in comparison.cells[0].metrics["eval"][0]] == [0.9]
    assert "skipped seeds 0, read from another run directory" in " ".join(comparison.notes)


def test_metrics_of_a_seed_are_of_the_run_that_has_its_result(plan: Plan) -> None:
    whole = load([str(plan.experiment)]).cells[0].runs[0]
    abandoned = RunDir(whole.path.with_name("0"))
    abandoned.path.mkdir()
    abandoned.config.write_text(whole.config.read_text())
    for run, epochs in ((abandoned, (1,)), (whole, (1, 2))):
        run.add_metrics([{"kind": "eval", "seed": 0, "step": e, "epoch": e, "test_acc": 0.1 * e} for e in epochs])
    cell = load([str(plan.experiment)]).cells[0]
    assert cell.runs[0].path == abandoned.path
    assert [row["epoch"] for row in cell.metrics["eval"][0]] == [1, 2]


def test_experiments_that_were_moved_side_by_side_are_told_apart(plan: Plan, tmp_path: Path) -> None:
    cells = {cell.sig: cell.rows for cell in load([str(plan.experiment)]).cells}
    assert len(cells) > 1
    (tmp_path / "moved").mkdir()
    for i, run in enumerate(find_runs([str(plan.experiment)])):
        run.path.rename(tmp_path / "moved" / f"r{i}")
    moved = load([str(tmp_path / "moved")])
    assert {cell.sig: cell.rows for cell in moved.cells} == cells
    assert all(sections.build_sections(moved, tmp_path))
    assert moved.notes == []


def test_results_that_have_only_been_published_are_no_damage(plan: Plan) -> None:
    run = load([str(plan.experiment)]).cells[0].runs[0]
    run.published.mkdir(exist_ok=True)
    (run.published / "2").write_text(json.dumps(run.rows()[2]))
    run.results.write_text("".join(run.results.read_text().splitlines(keepends=True)[:2]))
    assert load([str(plan.experiment)]).notes == []


def test_one_experiment_of_two_sweeps_has_two_names(plan: Plan) -> None:
    shutil.copytree(plan.experiment, plan.experiment.with_name("again"))
    labels = [cell.label for cell in load([str(plan.experiment.parent)]).cells]
    assert sorted(labels) == ["cnn (again)", "cnn (two)", "stn_slx (again)", "stn_slx (two)"]


def test_a_sweeps_damaged_configuration_is_named_once_and_leaves_nothing_out(plan: Plan) -> None:
    path = plan.cell_file(plan.jobs[0])
    path.write_text("train: [")
    comparison = load([str(plan.experiment)])
    (note,) = comparison.notes
    assert note.startswith(f"{path} is not YAML")
    assert note.endswith(": its missing seeds are unknown")
    assert [len(cell.rows) for cell in comparison.cells] == [8, 6]


def test_a_part_of_a_sweep_does_not_miss_the_rest(plan: Plan) -> None:
    cell = load([str(plan.experiment)]).cells[0]
    for path in (cell.folder, cell.runs[0].path):
        (part,) = load([str(path)]).cells
        assert (part.label, part.missing) == ("cnn", [])


def test_no_direction_is_better_where_neither_is(plan: Plan) -> None:
    cells, metric = load([str(plan.experiment)]).cells, METRICS[-1]
    assert (metric.key, metric.higher_is_better) == ("pose_determinant", None)
    for cell in cells:
        for row in cell.rows.values():
            row["pose_determinant"] = row["test_acc"]
    (_, _, upper), (_, lower, _) = tables.matrix_table(cells, compare_pairs(cells, metric), metric).rows
    assert (upper.mark, lower.mark) == ("real", "real")


def test_seeds_of_different_code_are_not_averaged(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "x" / "sig" / "0-1")
    row = {"status": "finished", "test_acc": 0.9, "params": 26816}
    same = {"shapes": "a", "loss": [2.3]}
    run.add_results([row | {"seed": seed, "fingerprint": same} for seed in (0, 1)])
    run.config.write_text(dump_yaml(resolve(Config())))
    assert [len(cell.rows) for cell in load([str(tmp_path)]).cells] == [2]
    other = RunDir(tmp_path / "x" / "sig" / "2-3")
    other.config.parent.mkdir()
    other.config.write_text(dump_yaml(resolve(Config())))
    other.add_results([row | {"seed": 2, "fingerprint": {"shapes": "a", "loss": [2.4]}}])
    with pytest.raises(ValueError, match="seeds 0 and 2 were trained by different code"):
        load([str(tmp_path)])
    other.forget({2})
    other.add_results([row | {"seed": 3, "params": 28304}])
    with pytest.raises(ValueError, match="26,816 and 28,304 parameters"):
        load([str(tmp_path)])
