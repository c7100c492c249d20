"""Accuracy by class: of every architecture, and the paired differences of every two, with intervals over seeds."""

from collections.abc import Sequence

import numpy as np

from launch.report.analysis.images.answers import AnsweredSet, CellAnswers
from launch.report.analysis.images.pairs import ImagePair
from launch.report.analysis.metrics import Metric
from launch.report.analysis.stats import compare, summary
from launch.report.analysis.tables import Entry, Table, p_entry, verdict_interval
from launch.report.analysis.verdicts import judge

MOST_ROWS = 100
"""Rows of a table: the classes that are recognised worst, and the clearest differences."""


def shares(right_SN: np.ndarray, group_N: np.ndarray, groups: int) -> np.ndarray:
    """Return the share of right answers of each seed in each group of images, [S, groups]; nan in an empty group."""
    hits_SG = np.stack([np.bincount(group_N[right_N], minlength=groups) for right_N in right_SN])
    with np.errstate(invalid="ignore"):
        return hits_SG / np.bincount(group_N, minlength=groups)


def by_class(answers: CellAnswers, test: AnsweredSet) -> np.ndarray:
    """Return the accuracy of each seed on each class, [S, K]."""
    return shares(answers.right_SN, test.label_N, int(test.label_N.max()) + 1)


def class_table(test: AnsweredSet, metric: Metric) -> Table:
    """Return a row for every class that the test set has: mean accuracy of every architecture, with its interval."""
    accuracies = [by_class(answers, test) for answers in test.cells]
    sizes_K = np.bincount(test.label_N)
    present = [int(k) for k in np.argsort(np.mean([a.mean(0) for a in accuracies], axis=0)) if sizes_K[k]]
    rows = []
    for k in present[:MOST_ROWS]:
        row = [Entry(str(k), k), Entry.number(int(sizes_K[k]))]
        for of_cell in accuracies:
            s = summary(of_cell[:, k])
            ends = "" if s.low is None or s.high is None else f" ({metric.interval(s.low, s.high)})"
            row.append(Entry(metric.format(s.mean) + ends, s.mean))
        rows.append(row)
    return Table(["class", "images", *(f"{answers.cell.label} %" for answers in test.cells)], rows)


def class_pairs(test: AnsweredSet, pairs: Sequence[ImagePair], metric: Metric, margin: float | None) -> Table:
    """Return a row for every two architectures and class, the clearest differences first; Holm over all of them."""
    accuracies = {id(answers): by_class(answers, test) for answers in test.cells}
    tests, names = [], []
    for pair in pairs:
        first, second = (
            [dict(zip(answers.seeds, column, strict=True)) for column in accuracies[id(answers)].T.tolist()]
            for answers in (pair.first, pair.second)
        )
        for k in np.unique(test.label_N).tolist():
            tests.append(compare(first[k], second[k]))
            names.append((pair.label, k))
    verdicts = judge(tests, metric.margin(margin))
    found = sorted(zip(names, tests, verdicts, strict=True), key=lambda row: (row[1].p is None, row[1].p, row[0]))
    rows = []
    for (label, k), result, verdict in found[:MOST_ROWS]:
        mark = "worse" if verdict.outcome == "better" and result.mean < 0 else verdict.outcome
        row = [Entry(label, label), Entry(str(k), k), Entry.verdict(mark), Entry.number(result.n)]
        row += [Entry(metric.format(result.mean, "+"), result.mean), verdict_interval(metric, verdict)]
        rows.append([*row, p_entry(verdict.p)])
    headings = ["second - first", "class", "verdict", "pairs", f"difference{metric.difference_unit}"]
    return Table([*headings, "95 % interval (Holm)", "p (t test, Holm)"], rows)
