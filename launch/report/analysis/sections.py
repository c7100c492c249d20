"""A report's content, a section for each data set: made once, for the page, Markdown and files alike."""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

from launch.report.analysis import charts, published, tables
from launch.report.analysis.cells import Cell, Comparison, differences
from launch.report.analysis.charts import Chart
from launch.report.analysis.tables import Metric, Table
from stn.config.seed_list import format_seeds

PICTURES: dict[str, str] = {
    "warp": "The same test images before and behind the transformer, at several stages of training",
    "object": "One object under many perturbations, before and behind the transformer",
    "iterations": "Each resampling",
    "region": "The sampled region on the input image",
}
"""Of a run that are shown, and what they show."""


@dataclass(frozen=True)
class Picture:
    """Of one architecture's first run that has it."""

    label: str
    path: Path
    link: str


@dataclass(frozen=True)
class Panel:
    """One data set under one metric."""

    metric: Metric
    architectures: Table
    comparisons: Table | None
    matrix: Table | None
    note: str
    """What the comparison cannot show."""


@dataclass(frozen=True)
class Section:
    """One data set."""

    name: str
    cells: list[Cell]
    panels: list[Panel]
    """The first one is what the data set is judged by."""
    charts: list[Chart]
    warnings: list[str]
    without: list[str]
    """Seeds without a figure, each with why."""
    published: Table | None
    pictures: dict[str, list[Picture]]
    """By what they show."""


def _without(cells: list[Cell], metric: Metric) -> list[str]:
    said = [f"{cell.label}: seeds {format_seeds(cell.missing)} are missing" for cell in cells if cell.missing]
    for cell in cells:
        said += [f"{cell.label}: seed {seed} failed: {reason}" for seed, reason in sorted(cell.failed.items())]
        if unknown := sorted(set(cell.rows) - set(cell.values(metric.key))):
            said.append(
                f"{cell.label}: seeds {format_seeds(unknown)} have finished without a figure for: {metric.title}"
            )
    return said


def _panel(cells: list[Cell], metric: Metric, first: bool, out: Path) -> Panel:
    pairs = tables.pairings(cells, metric) if first or math.comb(len(cells), 2) <= tables.MOST_PAIRS else []
    return Panel(
        metric,
        tables.architectures(cells, metric, out),
        tables.comparisons(pairs, metric) if pairs else None,
        tables.matrix(cells, pairs, metric) if pairs and len(cells) <= tables.MOST_IN_MATRIX else None,
        tables.cannot_show(pairs),
    )


def _pictures(cells: list[Cell], out: Path) -> dict[str, list[Picture]]:
    found: dict[str, list[Picture]] = {}
    for name, about in PICTURES.items():
        for cell in cells:
            paths = (run.pictures / f"{name}.png" for run in cell.runs)
            if path := next((path for path in paths if path.is_file()), None):
                link = f"{tables.link(cell, out)}/{path.relative_to(cell.folder).as_posix()}"
                found.setdefault(about, []).append(Picture(cell.label, path, link))
    return found


def sections(comparison: Comparison, out: Path) -> list[Section]:
    found = []
    for name, members in itertools.groupby(comparison.cells, key=lambda cell: cell.dataset):
        cells = list(members)
        metrics = tables.metrics_of(cells)
        panels = [_panel(cells, metric, metric is metrics[0], out) for metric in metrics]
        drawn, without = charts.of(cells, metrics), _without(cells, metrics[0])
        known = published.replication_table(cells)
        found.append(Section(name, cells, panels, drawn, differences(cells), without, known, _pictures(cells, out)))
    return found
