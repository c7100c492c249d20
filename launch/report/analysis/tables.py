"""The tables of a report, independent of the format in which they are written."""

import itertools
import math
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from launch.report.analysis.cells import Cell
from launch.report.analysis.metrics import Metric
from launch.report.analysis.stats import ALPHA, FEWEST_PAIRS, PairedTest, Summary, compare, holm, summary

MOST_PAIRS = 300
"""Pairs of a data set that are compared under every metric; with more, only the first metric is compared."""
MOST_IN_MATRIX = 30
"""Architectures in a matrix; with more, only the table of pairs is shown."""


class Entry(NamedTuple):
    """One entry of a table."""

    text: str
    sort: float | str | None = None
    """Sort key; None if the value is unknown."""
    link: str = ""
    mark: str = ""
    """Significant: better, worse, or real (if neither direction is better). Otherwise: weak, or few (no p-value)."""
    tooltip: str = ""

    @classmethod
    def number(cls, value: float | None, spec: str = ",") -> "Entry":
        return cls("-" if value is None else format(value, spec), value)


class Table(NamedTuple):
    headings: list[str]
    rows: list[list[Entry]]


def _value(metric: Metric, value: float | None, sign: str = "") -> Entry:
    return Entry(metric.format(value, sign), value)


def _interval(metric: Metric, values: Summary, sign: str = "") -> Entry:
    text = f"{metric.format(values.low, sign)} to {metric.format(values.high, sign)}"
    return Entry("-" if values.low is None else text, values.low)


def link(cell: Cell, out: Path) -> str:
    """Return the relative path from the report to the cell's run directories."""
    return Path(os.path.relpath(cell.folder, out.resolve())).as_posix()


def architecture_table(cells: Sequence[Cell], metric: Metric, out: Path) -> Table:
    """Summarise the seeds of every architecture, with links from ``out`` to their run directories."""
    extremes = ("most", "least") if metric.higher_is_better is None else ("best seed", "worst seed")
    headings = ["architecture", "n", f"mean {metric.unit}".rstrip(), "SD", "95 % interval", "median", *extremes]
    headings += ["parameters", "images/s", "time s", "seeds at once", "missing", "failed"]
    rows = []
    for cell in cells:
        values = cell.values(metric.key).values()
        row = [Entry(cell.label, cell.label, link(cell, out)), Entry.number(len(values))]
        if values:
            s = summary(values)
            best, worst = (s.minimum, s.maximum) if metric.higher_is_better is False else (s.maximum, s.minimum)
            row += [_value(metric, s.mean), _value(metric, s.sd), _interval(metric, s)]
            row += [_value(metric, value) for value in (s.median, best, worst)]
        else:
            row += [Entry("-")] * 6
        costs = [cell.values(key).values() for key in ("params", "images_per_s", "wall_s", "fused")]
        row += [Entry.number(median(values) if values else None, ",.0f") for values in costs]
        rows.append([*row, Entry.number(len(cell.missing)), Entry.number(len(cell.failed))])
    return Table(headings, rows)


class Pair(NamedTuple):
    """Two architectures, the second compared with the first."""

    first: Cell
    second: Cell
    test: PairedTest
    p: float | None
    """Corrected for the number of pairs of this data set."""

    @property
    def p_text(self) -> str:
        return f"no p-value (fewer than {FEWEST_PAIRS} shared seeds)" if self.p is None else f"{self.p:.4g}"


def compare_pairs(cells: Sequence[Cell], metric: Metric) -> list[Pair]:
    """Compare every two cells on the seeds that both have."""
    values = {id(cell): cell.values(metric.key) for cell in cells}
    tests = [(a, b, compare(values[id(a)], values[id(b)])) for a, b in itertools.combinations(cells, 2)]
    corrected = iter(holm([test.p for _, _, test in tests if test.p is not None]))
    return [Pair(a, b, test, None if test.p is None else next(corrected)) for a, b, test in tests]


def power_note(pairs: Sequence[Pair]) -> str:
    """Return a note if no difference, however clear, could be significant with so many pairs on so few seeds."""
    counts = [pair.test.n for pair in pairs if pair.p is not None]
    smallest_p = len(counts) * 2.0 ** (1 - max(counts, default=0))
    if not counts or smallest_p < ALPHA:
        return ""
    enough = math.ceil(1 + math.log2(len(counts) / ALPHA))
    return f"with {len(counts)} pairs on {max(counts)} seeds, no corrected p-value can fall below \
{min(1.0, smallest_p):.2g}; use at least {enough} seeds, or compare fewer architectures"


def pair_table(pairs: Sequence[Pair], metric: Metric) -> Table:
    """Return the table with a row for every two architectures."""
    headings = ["second - first", "pairs", f"difference{metric.difference_unit}", "95 % interval"]
    headings += ["p (sign flips, Holm)", "d_z", "seeds for 80 % power"]
    rows = []
    for pair in pairs:
        label, test = f"{pair.second.label} - {pair.first.label}", pair.test
        row = [Entry(label, label), Entry.number(test.n)]
        if difference := test.difference:
            row += [_value(metric, difference.mean, "+"), _interval(metric, difference, "+")]
            row += [Entry(pair.p_text, pair.p), Entry.number(test.effect, ".2f"), Entry.number(test.seeds)]
        else:
            row += [Entry("-")] * 5
        rows.append(row)
    return Table(headings, rows)


def _matrix_entry(pair: Pair, sign: float, metric: Metric) -> Entry:
    """Return the difference second - first (sign 1) or first - second (sign -1)."""
    test, d = pair.test, pair.test.difference
    if d is None:
        return Entry("no shared seeds", mark="few")
    mean = sign * d.mean
    mark = "few" if pair.p is None else "weak" if pair.p >= ALPHA else "real"
    if mark == "real" and metric.higher_is_better is not None:
        mark = "better" if (mean > 0) == metric.higher_is_better else "worse"
    ends = sorted(sign * end for end in (d.low, d.high) if end is not None)
    row, column = (pair.second, pair.first) if sign > 0 else (pair.first, pair.second)
    facts = [f"{row.label} - {column.label}: {metric.format(mean, '+')} {metric.unit}".rstrip()]
    facts += [f"95 % interval {metric.format(ends[0], '+')} to {metric.format(ends[1], '+')}"] if ends else []
    facts += [pair.p_text if pair.p is None else f"p = {pair.p_text}"]
    facts += [] if test.effect is None else [f"d_z {sign * test.effect:.2f}"]
    return Entry(metric.format(mean, "+"), mean, "", mark, ", ".join([*facts, f"{test.n} pairs"]))


def matrix_table(cells: Sequence[Cell], pairs: Sequence[Pair], metric: Metric) -> Table:
    """Return the mean differences, row minus column, marked by whether they are significant."""
    entries: dict[tuple[int, int], Entry] = {}
    for pair in pairs:
        entries[id(pair.second), id(pair.first)] = _matrix_entry(pair, 1.0, metric)
        entries[id(pair.first), id(pair.second)] = _matrix_entry(pair, -1.0, metric)
    rows = [[Entry(row.label), *(entries.get((id(row), id(column)), Entry("")) for column in cells)] for row in cells]
    return Table(["row - column", *(cell.label for cell in cells)], rows)
