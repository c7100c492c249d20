"""The content of a report, one section for each data set, independent of the format in which it is written."""

import hashlib
import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from launch.report.analysis import charts, tables
from launch.report.analysis.cells import Cell, Comparison
from launch.report.analysis.charts import Chart
from launch.report.analysis.images import blocks
from launch.report.analysis.metrics import Metric, metrics_of
from launch.report.analysis.published import replication_table
from launch.report.analysis.tables import Table
from launch.report.analysis.verdicts import Pair, compare_pairs, rule, sentences
from launch.report.provenance.cases import Case
from launch.report.provenance.environments import Environment, environments
from launch.report.provenance.find import find_cases
from launch.report.provenance.signature import signature
from stn.config.seed_list import format_seeds

PICTURES: dict[str, str] = {
    "warp": "The same test images before and after the transformer, at several stages of training",
    "object": "One object under many perturbations, before and after the transformer",
    "iterations": "The image after each resampling",
    "region": "The sampled region on the input image",
}
"""Captions of the pictures of a run that a report shows."""
FIGURES = ("pairs", "seeds", "curves", "cost", "confusion", "applied", "pose", "hardest")

MANY = "With this many architectures, pairs are compared under the first metric only"
OTHER_IMAGES = "An architecture measured on validation images is not compared with one measured on test images"


class Picture(NamedTuple):
    """A picture of the first run of an architecture that has it."""

    label: str
    path: Path
    link: str


class Panel(NamedTuple):
    """One data set under one metric."""

    metric: Metric
    architectures: Table
    pairs: Table | None
    matrix: Table | None
    rule: str
    """How the verdicts on its pairs come about."""
    verdicts: list[str]
    """In words."""
    compared: Sequence[Pair] = ()
    signature: str = ""
    """What the table of architectures is of, for another person to compare."""
    pair_signature: str = ""
    uncompared: str = ""
    """Why some pairs are not compared."""


class Section(NamedTuple):
    """One data set."""

    name: str
    cells: list[Cell]
    panels: list[Panel]
    """The data set is judged by the first one."""
    charts: list[Chart]
    figures: dict[str, str]
    """File names in figures/, by their kind in FIGURES; only of those that have something to show."""
    warnings: list[Case]
    incomplete: list[str]
    """Seeds without a result, each with the reason."""
    published: Table | None
    pictures: dict[str, list[Picture]]
    """By caption."""
    images: blocks.Images = blocks.NONE
    """What is said image by image."""


def _incomplete(cells: list[Cell], metric: Metric) -> list[str]:
    lines = [f"{cell.label}: seeds {format_seeds(cell.missing)} are missing" for cell in cells if cell.missing]
    for cell in cells:
        lines += [f"{cell.label}: seed {seed} failed: {reason}" for seed, reason in sorted(cell.failed.items())]
        if unknown := sorted(cell.rows.keys() - cell.values(metric.key).keys()):
            lines.append(f"{cell.label}: seeds {format_seeds(unknown)} finished without a value for: {metric.title}")
    return lines


def _panel(
    cells: list[Cell], metric: Metric, first: bool, out: Path, margin: float | None, runs: list[Environment]
) -> Panel:
    compared = first or math.comb(len(cells), 2) <= tables.MOST_PAIRS
    pairs = compare_pairs(cells, metric, margin) if compared else []
    test = "paired-t,holm" + (f",equal-{margin:g}" if metric.margin(margin) else "")
    return Panel(
        metric,
        tables.architecture_table(cells, metric, out),
        tables.pair_table(pairs, metric) if pairs else None,
        tables.matrix_table(cells, pairs, metric) if pairs and len(cells) <= tables.MOST_IN_MATRIX else None,
        rule(pairs, metric, margin),
        sentences(pairs, metric, margin),
        pairs,
        signature(cells, metric, runs, "t-interval"),
        signature(cells, metric, runs, test, [pair.test.n for pair in pairs]) if pairs else "",
        "" if len(pairs) == math.comb(len(cells), 2) else OTHER_IMAGES if compared else MANY,
    )


def file_stem(dataset: str) -> str:
    """Return a data set's name in the names of files: another one for each data set."""
    stem = re.sub(r"[^A-Za-z0-9_.]", "_", dataset)
    return stem if stem == dataset else f"{stem}-{hashlib.sha256(dataset.encode()).hexdigest()[:6]}"


def _figures(dataset: str, panel: Panel, drawn: list[Chart], images: blocks.Images) -> dict[str, str]:
    measured = [chart for chart in drawn if chart["values"][panel.metric.key]["seeds"]]
    shown = {
        "pairs": panel.matrix is not None,
        "seeds": bool(measured),
        "curves": any(chart["curve"] for chart in drawn),
        "cost": any(chart["costs"]["params"] or chart["costs"]["seconds"] for chart in measured),
        "confusion": any(chart["confusion"] for chart in drawn),
        "applied": any(chart["applied"] for chart in drawn),
        "pose": any(chart["pose"] for chart in drawn),
        "hardest": bool(images.hardest),
    }
    return {kind: f"{file_stem(dataset)}-{kind}.png" for kind in FIGURES if shown[kind]}


def _pictures(cells: list[Cell], out: Path) -> dict[str, list[Picture]]:
    pictures: dict[str, list[Picture]] = {}
    for name, caption in PICTURES.items():
        for cell in cells:
            paths = (run.pictures / f"{name}.png" for run in cell.runs)
            if path := next((path for path in paths if path.is_file()), None):
                link = f"{tables.link(cell, out)}/{path.relative_to(cell.folder).as_posix()}"
                pictures.setdefault(caption, []).append(Picture(cell.label, path, link))
    return pictures


def build_sections(comparison: Comparison, out: Path, margin: float | None = None) -> list[Section]:
    """Return the sections of a report that is to be written into a folder.

    Differences of shares that are within ± margin points count as none.
    """
    sections = []
    for name, group in itertools.groupby(comparison.cells, key=lambda cell: cell.dataset):
        cells = list(group)
        metrics = metrics_of(cells)
        runs = environments(cells)
        panels = [_panel(cells, metric, metric is metrics[0], out, margin, runs) for metric in metrics]
        notes = find_cases(cells, metrics[0], runs), _incomplete(cells, metrics[0])
        beside = replication_table(cells), _pictures(cells, out)
        images = blocks.compare_by_image(cells, metrics[0], panels[0].compared, margin)
        drawn = [charts.build_chart(cell, metrics) | {"applied": images.poses.get(cell.label)} for cell in cells]
        figures = _figures(name, panels[0], drawn[: tables.MOST_IN_MATRIX], images)
        sections.append(Section(name, cells, panels, drawn, figures, *notes, *beside, images))
    return sections
