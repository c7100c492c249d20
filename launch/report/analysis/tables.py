"""The tables of a report, independent of the format in which they are written."""

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from launch.report.analysis.cells import Cell
from launch.report.analysis.metrics import Metric
from launch.report.analysis.stats import summary
from launch.report.analysis.verdicts import Pair, Verdict, p_text

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
    """The verdict: better, worse, real (different, where neither direction is better), equal or unknown."""
    tooltip: str = ""

    @classmethod
    def verdict(cls, mark: str, tooltip: str = "") -> "Entry":
        return cls("different" if mark == "real" else mark, mark, mark=mark, tooltip=tooltip)

    @classmethod
    def number(cls, value: float | None, spec: str = ",") -> "Entry":
        return cls("-" if value is None else format(value, spec), value)


class Table(NamedTuple):
    headings: list[str]
    rows: list[list[Entry]]


def _value(metric: Metric, value: float | None, sign: str = "") -> Entry:
    return Entry(metric.format(value, sign), value)


def interval_entry(metric: Metric, low: float | None, high: float | None) -> Entry:
    return Entry("-") if low is None or high is None else Entry(metric.interval(low, high), low)


def verdict_interval(metric: Metric, verdict: Verdict) -> Entry:
    """Return the interval of a difference."""
    if verdict.interval is None:
        return Entry("-")
    return Entry(metric.interval(*verdict.interval, "+", verdict.margin), verdict.interval[0])


def p_entry(p: float | None) -> Entry:
    return Entry("-" if p is None else p_text(p, 4), p)


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
            row += [_value(metric, s.mean), _value(metric, s.sd), interval_entry(metric, s.low, s.high)]
            row += [_value(metric, value) for value in (s.median, best, worst)]
        else:
            row += [Entry("-")] * 6
        costs = [cell.values(key).values() for key in ("params", "images_per_s", "wall_s", "fused")]
        row += [Entry.number(median(values) if values else None, ",.0f") for values in costs]
        rows.append([*row, Entry.number(len(cell.missing)), Entry.number(len(cell.failed))])
    return Table(headings, rows)


def mark_of(verdict: Verdict, difference: float, metric: Metric) -> str:
    """Return the mark of a verdict for whichever of two architectures is above the other by this difference."""
    if verdict.outcome != "better":
        return verdict.outcome
    if metric.higher_is_better is None:
        return "real"
    return "better" if (difference > 0) == metric.higher_is_better else "worse"


def pair_table(pairs: Sequence[Pair], metric: Metric) -> Table:
    """Return the table with a row for every two architectures."""
    headings = ["second - first", "verdict", "pairs", f"difference{metric.difference_unit}", "95 % interval (Holm)"]
    headings += ["p (t test, Holm)", "d_z", "more seeds to tell"]
    rows = []
    for pair in pairs:
        label, test = f"{pair.second.label} - {pair.first.label}", pair.test
        verdict = Entry.verdict(mark_of(pair.verdict, test.mean, metric), pair.why)
        row = [Entry(label, label), verdict, Entry.number(test.n), _value(metric, test.mean if test.n else None, "+")]
        row += [verdict_interval(metric, pair.verdict), p_entry(pair.verdict.p)]
        rows.append([*row, Entry.number(test.effect if test.sd else None, ".2f"), Entry.number(pair.verdict.more)])
    return Table(headings, rows)


def _matrix_entry(pair: Pair, sign: float, metric: Metric) -> Entry:
    """Return the difference second - first (sign 1) or first - second (sign -1)."""
    test, mark = pair.test, mark_of(pair.verdict, sign * pair.test.mean, metric)
    if not test.n:
        return Entry("no shared seeds", mark=mark)
    mean = sign * test.mean
    row, column = (pair.second, pair.first) if sign > 0 else (pair.first, pair.second)
    facts = [f"{row.label} - {column.label}: {metric.difference(mean, '+')}"]
    if pair.verdict.interval and pair.verdict.p is not None:
        low, high = sorted(sign * end for end in pair.verdict.interval)
        facts += [
            f"95 % interval {metric.interval(low, high, '+', pair.verdict.margin)}",
            f"p = {p_text(pair.verdict.p, 4)}",
        ]
        facts += [f"d_z {sign * test.effect:.2f}"]
    else:
        facts += [pair.why]
    return Entry(metric.format(mean, "+"), mean, "", mark, ", ".join([*facts, f"{test.n} pairs"]))


def matrix_table(cells: Sequence[Cell], pairs: Sequence[Pair], metric: Metric) -> Table:
    """Return the mean differences, row minus column, with the signs of the verdicts."""
    entries: dict[tuple[int, int], Entry] = {}
    for pair in pairs:
        entries[id(pair.second), id(pair.first)] = _matrix_entry(pair, 1.0, metric)
        entries[id(pair.first), id(pair.second)] = _matrix_entry(pair, -1.0, metric)
    entries |= {(id(cell), id(cell)): Entry("") for cell in cells}
    other = Entry("other images")
    rows = [[Entry(row.label), *(entries.get((id(row), id(column)), other) for column in cells)] for row in cells]
    return Table(["row - column", *(cell.label for cell in cells)], rows)
