"""A report against an earlier one where data sets are judged by different metrics."""

from pathlib import Path

from launch.report.analysis.cells import Cell, Comparison
from launch.report.analysis.sections import build_sections
from launch.report.earlier.compare import Against, compare_with
from launch.report.earlier.read import EarlierCell
from tests.support.across import cells_of


def cells(by: float) -> list[Cell]:
    """Return a cell with an accuracy and one with a loss alone, whose values have changed by this and a little more."""
    first, second = cells_of(
        {"cnn": {d: {s: 0.9 + by * (1 + 0.1 * s) for s in range(5)} for d in ("mnist", "mnist_r")}}
    )
    second.rows = {seed: {"test_loss": row["test_acc"]} for seed, row in second.rows.items()}
    return [first, second]


def against(before: list[Cell], now: list[Cell], margin: float | None = None) -> Against:
    sections = build_sections(Comparison("x", now, []), Path(), margin)
    return compare_with([EarlierCell.of(cell) for cell in before], Path("before"), sections, margin)


def test_a_margin_is_of_shares_also_beside_a_loss() -> None:
    changes = against(cells(0), cells(0.001), 0.5).changes
    assert [(change.metric.key, change.mark) for change in changes] == [("test_acc", "equal"), ("test_loss", "worse")]


def test_the_signature_has_the_margin_and_the_values_of_every_cell() -> None:
    now = cells(0.001)
    before = against(cells(0), now, 0.5).signature
    assert "|metric:test_acc,test_loss|" in before
    assert "|test:paired-t,holm,equal-0.5|" in before
    assert "equal" not in against(cells(0), now).signature
    for cell, key in zip(now, ("test_acc", "test_loss"), strict=True):
        cell.rows[0][key] += 1e-12
        after = against(cells(0), now, 0.5).signature
        assert after.partition("|rows:")[2] != before.partition("|rows:")[2]
        before = after
