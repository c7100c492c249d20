"""The tables of a report, before anybody knows how they are drawn: what a report says, each figure once."""

import itertools
import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from launch.report.analysis.cells import Cell
from launch.report.analysis.stats import ALPHA, FEWEST_PAIRS, Pairing, Summary, compare, holm, summary
from stn.config.dataset import build_dataset


@dataclass(frozen=True)
class Metric:
    """A figure of a result row, and how it is written."""

    key: str
    title: str
    scale: float = 1.0
    unit: str = ""
    digits: int = 2
    higher: bool | None = True
    """Is better; None: neither is."""

    def text(self, value: float | None, sign: str = "") -> str:
        return "-" if value is None else f"{self.scale * value:{sign}.{self.digits}f}"

    @property
    def difference(self) -> str:
        """The unit of a difference, in a heading."""
        return {"%": " in points", "": ""}.get(self.unit, f" in {self.unit}")

    @property
    def axis(self) -> str:
        """What a chart's axis is called."""
        title = self.title.replace("accuracy", "error") if self.is_accuracy else self.title
        return f"{title} ({self.unit})" if self.unit else title

    @property
    def is_accuracy(self) -> bool:
        """Charts show 1 - accuracy."""
        return self.key.endswith("_acc")


def _share(key: str, title: str) -> Metric:
    return Metric(key, title, 100.0, "%")


METRICS: tuple[Metric, ...] = (
    _share("test_acc", "Test accuracy, last epoch"),
    _share("best_test_acc", "Test accuracy, best epoch (chosen on the test set)"),
    _share("val_acc", "Validation accuracy, last epoch"),
    _share("best_val_acc", "Validation accuracy, best epoch"),
    _share("macro_f1", "Macro F1, last epoch"),
    Metric("test_loss", "Test loss, last epoch", digits=4, higher=False),
    _share("bypass_acc", "Test accuracy with the transformer bypassed"),
    Metric("feature_agreement", "Agreement of feature maps", digits=3),
    Metric("pose_spread", "Spread of the final pose", digits=3, higher=False),
    Metric("pose_determinant", "Mean determinant of the image transform", digits=3, higher=None),
)
"""In the order of the page; the first that a data set has is what it is judged by."""
UNITS: dict[str, str] = {"degrees": "degrees", "log2_area": "log2 of the area", "shift": "pixels"}
"""Of kinds of pose, in the order of stn.evaluation.pose."""
MOST_PAIRS = 300
"""Of one data set, for which all metrics are compared; above, the first metric alone."""
MOST_IN_MATRIX = 30
"""Architectures; of more there is the table of pairs alone."""


class Value(NamedTuple):
    """A field of a table."""

    text: str
    sort: float | str | None = None
    """What it is sorted by; None: nothing is known."""
    link: str = ""
    mark: str = ""
    """better, worse, real (neither is better): significant; weak: not; few: nothing is claimed."""
    more: str = ""
    """What to say to who asks."""


class Table(NamedTuple):
    headings: list[str]
    rows: list[list[Value]]


def _pose_unit(dataset: str) -> str:
    """Of the first kind of pose that a data set has."""
    try:
        names = build_dataset(dataset).pose
    except ValueError:  # it is no longer there
        return ""
    return next((unit for kind, unit in UNITS.items() if ("x" if kind == "shift" else kind) in names), "")


def metrics_of(cells: Sequence[Cell]) -> list[Metric]:
    """What at least one seed has; the first of all where none has any."""
    found = [metric for metric in METRICS if any(cell.values(metric.key) for cell in cells)] or [METRICS[0]]
    unit = _pose_unit(cells[0].dataset)
    return [replace(metric, unit=unit) if metric.key == "pose_spread" else metric for metric in found]


def _interval(metric: Metric, found: Summary, sign: str = "") -> str:
    if found.low is None:
        return "-"
    return f"{metric.text(found.low, sign)} to {metric.text(found.high, sign)}"


def link(cell: Cell, out: Path) -> str:
    """The way from the report to the run directories."""
    return Path(os.path.relpath(cell.folder, out.resolve())).as_posix()


def architectures(cells: Sequence[Cell], metric: Metric, out: Path) -> Table:
    """What the seeds of each architecture say, with links to their run directories from a folder."""
    unit = f" {metric.unit}".rstrip()
    ends = ("best seed", "worst seed") if metric.higher is not None else ("most", "least")
    headings = ["architecture", "n", f"mean{unit}", "SD", "95 % interval", "median", *ends]
    headings += ["parameters", "images/s", "time s", "seeds at once", "missing", "failed"]
    rows = []
    for cell in cells:
        values = list(cell.values(metric.key).values())
        line = [Value(cell.label, cell.label, link(cell, out)), Value(str(len(values)), len(values))]
        if values:
            found = summary(values)
            high, low = (found.least, found.most) if metric.higher is False else (found.most, found.least)
            line += [Value(metric.text(found.mean), found.mean), Value(metric.text(found.sd), found.sd)]
            line += [Value(_interval(metric, found), found.low)]
            line += [Value(metric.text(value), value) for value in (found.median, high, low)]
        else:
            line += [Value("-")] * 6
        for key in ("params", "images_per_s", "wall_s", "fused"):
            given = cell.values(key)
            value = statistics.median(given.values()) if given else None
            line.append(Value("-" if value is None else f"{value:,.0f}", value))
        line += [Value(str(len(them)), len(them)) for them in (cell.missing, cell.failed)]
        rows.append(line)
    return Table(headings, rows)


class Pair(NamedTuple):
    """Two architectures, the second against the first."""

    first: Cell
    second: Cell
    found: Pairing
    p: float | None
    """Corrected for how many pairs of this data set are compared."""


def pairings(cells: Sequence[Cell], metric: Metric) -> list[Pair]:
    """Every two cells on the seeds that both have."""
    values = {id(cell): cell.values(metric.key) for cell in cells}
    pairs = [(a, b, compare(values[id(a)], values[id(b)])) for a, b in itertools.combinations(cells, 2)]
    corrected = iter(holm([found.p for _, _, found in pairs if found.p is not None]))
    return [Pair(a, b, found, next(corrected) if found.p is not None else None) for a, b, found in pairs]


def cannot_show(pairs: Sequence[Pair]) -> str:
    """Said where so many are compared on so few seeds that no difference, however clear, could be significant."""
    tested = [pair.found.n for pair in pairs if pair.p is not None]
    least = len(tested) * 2.0 ** (1 - max(tested, default=0))
    if not tested or least < ALPHA:
        return ""
    enough = math.ceil(1 + math.log2(len(tested) / ALPHA))
    return f"{len(tested)} pairs are compared on {max(tested)} seeds: no p can fall below {min(1.0, least):.2g}. \
{enough} seeds, or fewer architectures, would be needed to show any difference"


def claim(p: float | None) -> str:
    return f"too few pairs (under {FEWEST_PAIRS})" if p is None else f"{p:.4g}"


def comparisons(pairs: Sequence[Pair], metric: Metric) -> Table:
    """A line for each two architectures."""
    headings = ["second - first", "pairs", f"difference{metric.difference}", "95 % interval"]
    headings += ["p (sign flips, Holm)", "d_z", "seeds for 80 % power"]
    rows = []
    for a, b, found, p in pairs:
        line = [Value(f"{b.label} - {a.label}", f"{b.label} - {a.label}"), Value(str(found.n), found.n)]
        if found.difference is None:
            rows.append([*line, *[Value("-")] * 5])
            continue
        d = found.difference
        line += [Value(metric.text(d.mean, "+"), d.mean), Value(_interval(metric, d, "+"), d.low)]
        line += [Value(claim(p), p), Value("-" if found.effect is None else f"{found.effect:.2f}", found.effect)]
        rows.append([*line, Value(f"{found.seeds:,}" if found.seeds else "-", found.seeds)])
    return Table(headings, rows)


def matrix(cells: Sequence[Cell], pairs: Sequence[Pair], metric: Metric) -> Table:
    """Row against column: the mean difference, and whether it is real."""
    fields: dict[tuple[int, int], Value] = {}
    better = -1.0 if metric.higher is False else 1.0
    for a, b, found, p in pairs:
        for row, column, sign in ((b, a, 1.0), (a, b, -1.0)):
            if found.difference is None:
                fields[id(row), id(column)] = Value("no pairs", mark="few")
                continue
            mean = sign * found.difference.mean
            mark = "few" if p is None else "weak" if p >= ALPHA else "real"
            if mark == "real" and metric.higher is not None:
                mark = "better" if better * mean > 0 else "worse"
            ends = sorted(sign * end for end in (found.difference.low, found.difference.high) if end is not None)
            between = f", 95 % interval {metric.text(ends[0], '+')} to {metric.text(ends[1], '+')}" if ends else ""
            effect = "" if found.effect is None else f", d_z {sign * found.effect:.2f}"
            more = f"{row.label} - {column.label}: {metric.text(mean, '+')} {metric.unit}{between}, p {claim(p)}"
            fields[id(row), id(column)] = Value(
                metric.text(mean, "+"), mean, "", mark, f"{more}{effect}, {found.n} pairs"
            )
    lines = [[Value(row.label), *(fields.get((id(row), id(column)), Value("")) for column in cells)] for row in cells]
    return Table(["row - column", *(cell.label for cell in cells)], lines)
