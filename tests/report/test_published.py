"""Published results beside ours: only where a run is of the very recipe."""

import json
import math
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from launch.report import build
from launch.report.analysis import published
from launch.report.analysis.cells import Cell, load
from launch.report.analysis.published import Replication, replications
from launch.report.analysis.sections import build_sections
from launch.report.analysis.stats import half_width
from launch.report.output.markdown import render_table
from stn.config.resolve import resolve, signature
from stn.config.schema import Config
from stn.config.yaml_files import RECIPES, build_config, dump_yaml, overlay, read_yaml
from stn.runs.directory import RunDir

ACCURACIES = [0.9911, 0.9907, 0.9895, 0.9906, 0.9902]


def changed(recipe: str, **sections: dict[str, Any]) -> Config:
    return resolve(build_config(overlay(read_yaml(RECIPES / f"{recipe}.yaml"), sections), recipe))


def cell(folder: Path, config: Config, accuracies: list[float] = ACCURACIES, epochs: tuple[float, ...] = ()) -> Cell:
    """Return the cell of a run with these last accuracies, the best 0.001 higher, those at ``epochs`` 0.01 lower."""
    seeds = list(range(len(accuracies)))
    run = RunDir.of(str(folder), config.log.name or "", signature(config), seeds)
    run.path.mkdir(parents=True)
    run.config.write_text(dump_yaml(config))
    rows = [
        {"seed": s, "status": "finished", "test_acc": a, "best_test_acc": a + 0.001} for s, a in enumerate(accuracies)
    ]
    run.results.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for seed, acc in enumerate(accuracies):
        run.add_metrics([{"kind": "eval", "seed": seed, "step": 1, "epoch": e, "test_acc": acc - 0.01} for e in epochs])
    (only,) = load([str(run.path)]).cells
    return only


def at(replications_of_cell: list[Replication]) -> dict[str | int, Replication]:
    return {replication.published.at: replication for replication in replications_of_cell}


def test_a_whole_run_is_compared_with_the_published_result(tmp_path: Path) -> None:
    """By hand: SD 0.0606, t(4) = 2.7764, so half a width is 2.7764 x 0.0606 x sqrt(1/5 + 1/5) = 0.1064."""
    by_epoch = at(replications(cell(tmp_path, changed("s2_conv"))))
    assert set(by_epoch) == {"last", "best"}
    last, best = by_epoch["last"], by_epoch["best"]
    assert (last.published.value, last.n, last.agrees) == ("98.86", 5, False)
    assert (last.mean, last.sd) == pytest.approx((99.042, 0.06058), abs=1e-5)
    assert last.difference == pytest.approx(99.042 - 98.86)
    assert last.half_width == pytest.approx(0.10637, abs=1e-5)
    assert best.mean == pytest.approx(99.142)
    assert best.difference == pytest.approx(99.142 - 99.05)
    assert best.agrees


def test_errors_are_compared_with_errors(tmp_path: Path) -> None:
    (replication,) = replications(cell(tmp_path, changed("finnveden_t"), [0.9887, 0.9885, 0.9889]))
    assert (replication.published.system, replication.published.n) == ("Finnveden et al., T, stn_slx", 10)
    assert replication.mean == pytest.approx(1.13)
    assert replication.difference == pytest.approx(0, abs=1e-9)
    assert replication.half_width == pytest.approx(4.302653 * 0.02 * math.sqrt(1 / 3 + 1 / 10), rel=1e-6)


@pytest.mark.parametrize("accuracies", [[0.99], [0.99, 0.99], [0.991, 0.989], [0.99, 0.99, 0.99]])
def test_too_few_seeds_and_equal_ones_claim_nothing(accuracies: list[float], tmp_path: Path) -> None:
    ours = cell(tmp_path, changed("s2_conv"), accuracies)
    last = at(replications(ours))["last"]
    assert (last.n, last.half_width, last.agrees) == (len(accuracies), None, None)
    assert last.difference == pytest.approx(0.14)
    table = published.replication_table([ours])
    assert table is not None
    why = "no interval from so few seeds" if len(accuracies) < 3 else "no interval: all seeds agree"
    assert {row[-1].text for row in table.rows} == {why}


def test_without_a_finished_seed_there_is_nothing_to_compare(tmp_path: Path) -> None:
    unfinished = cell(tmp_path, changed("s2_conv"))
    unfinished.rows = {}
    assert replications(unfinished) == []


def test_runs_whose_number_was_not_stated_count_as_one(tmp_path: Path) -> None:
    (replication,) = replications(cell(tmp_path, changed("icstn"), [0.98, 0.99, 1.0]))
    assert (replication.published.n, str(replication.published)) == (None, "1.230")
    assert replication.half_width == pytest.approx(half_width(statistics.stdev([0.0, 1.0, 2.0]), 3, 1))


@pytest.mark.parametrize(
    "sections",
    [
        {"optim": {"lr": 0.02}},
        {"optim": {"momentum": 0.9}},
        {"train": {"epochs": 29}},
        {"train": {"steps": 1407}},
        {"train": {"precision": "bf16"}},
        {"data": {"batch_size": 128}},
        {"data": {"name": "mnist_r"}},
        {"data": {"limit_test": 1000}},
        {"arch": {"name": "stn_c0_coord"}},
        {"arch": {"padding": "zeros"}},
        {"arch": {"net": "tutorial_norm"}},
        {"eval": {"mirror": True}},
    ],
    ids=str,
)
def test_another_recipe_is_compared_with_nothing(sections: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    assert replications(cell(tmp_path, changed("s2_conv", **sections))) == []


@pytest.mark.parametrize(
    "sections",
    [
        {"train": {"seeds": "7-19", "threads": 1, "fuse": 2, "processes": 2}},
        {"data": {"root": "elsewhere"}, "log": {"name": "other", "runs": "elsewhere"}},
        {"eval": {"batch_size": 50}, "checkpoint": {"every": "5 epochs"}, "optim": {"accumulate": 2}},
    ],
    ids=str,
)
def test_what_changes_no_result_changes_nothing(sections: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    assert set(at(replications(cell(tmp_path, changed("s2_conv", **sections))))) == {"last", "best"}


def test_the_best_of_more_evaluations_is_another_result(tmp_path: Path) -> None:
    assert set(at(replications(cell(tmp_path, changed("s2_conv", eval={"every": "100 steps"}))))) == {"last"}


def test_a_result_at_an_epoch_is_that_evaluation(tmp_path: Path) -> None:
    """Rows of other kinds, and of seeds that have not finished, do not count."""
    evaluated = cell(tmp_path, changed("s1_conv"), [0.99, 0.98], epochs=(5.0, 10.0))
    run = evaluated.runs[0]
    run.add_metrics([{"kind": "eval", "seed": 2, "step": 1, "epoch": 5.0, "test_acc": 0.1}])
    run.add_metrics([{"kind": "train", "seed": 0, "step": 1, "epoch": 20.0, "test_acc": 0.1, "of": "eval"}])
    with run.metrics.open("a") as file:
        file.write('{"kind": "eval", "seed": 0, "epo')
    by_epoch = at(replications(evaluated))
    assert set(by_epoch) == {"last", 5, 10}
    assert (by_epoch[5].n, by_epoch[5].published.value) == (2, "97.70")
    assert by_epoch[5].mean == pytest.approx(97.5)
    assert by_epoch[5].difference == pytest.approx(-0.2)
    assert by_epoch["last"].mean == pytest.approx(98.5)


def test_a_configuration_that_no_longer_resolves_is_compared_with_nothing(tmp_path: Path) -> None:
    unresolved = cell(tmp_path, changed("s2_conv"))
    unresolved.config = unresolved.config.model_copy(
        update={"arch": unresolved.config.arch.model_copy(update={"name": "gone"})}
    )
    assert replications(unresolved) == []


def test_without_recipes_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As beside an installed package."""
    whole = cell(tmp_path, changed("s2_conv"))
    monkeypatch.setattr(published, "RECIPES", tmp_path)
    published._results_by_signature.cache_clear()
    assert replications(whole) == []
    monkeypatch.undo()
    published._results_by_signature.cache_clear()
    assert replications(whole)


def test_the_report_has_a_table_where_there_is_something_to_compare(tmp_path: Path) -> None:
    cells = [cell(tmp_path / "a", changed("s2_conv")), cell(tmp_path / "b", changed("s2_conv", optim={"lr": 0.5}))]
    table_of_cells = published.replication_table(cells)
    assert table_of_cells is not None
    row = "| manuelrames, convolution, last epoch | stn_c0 | % accuracy | 98.86 (n = 5) | 99.04 | 0.06 | 5 | +0.18 |"
    assert f"{row} no (± 0.11) |" in render_table(table_of_cells)
    assert render_table(table_of_cells).count("manuelrames, convolution, last epoch") == 1
    (last,) = (row for row in table_of_cells.rows if row[0].text == "manuelrames, convolution, last epoch")
    assert [value.sort for value in last][3:8] == pytest.approx([98.86, 99.04, 0.06, 5, 0.18], abs=0.01)
    assert published.replication_table(cells[1:]) is None
    comparison = load([str(tmp_path / "a")])
    shown = build.render_page(comparison, build_sections(comparison, tmp_path))
    labels = re.findall(r'data-about="(.*?)"', shown.partition('class="published"')[2].partition("</table>")[0])
    assert set(labels) == {"stn_c0"}, "the page's filter is for architectures"


def test_each_recipe_and_each_cell_is_resolved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparing every cell with every result takes seconds for each cell otherwise."""
    resolved: list[Config] = []
    monkeypatch.setattr(published, "resolve", lambda config: resolved.append(config) or resolve(config))
    published._results_by_signature.cache_clear()
    cells = [cell(tmp_path / str(i), changed("s2_conv", optim={"lr": 0.01 + i / 100})) for i in range(5)]
    assert sum(map(len, map(replications, cells))) == 2
    recipes = sum((RECIPES / f"{result.recipe}.yaml").is_file() for result in published.published_results())
    assert len(resolved) == recipes + len(cells)
