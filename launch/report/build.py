"""Writes the folder of a report: index.html, report.md, rows.csv, mcnemar.csv and figures/.

The page is self-contained: its tables are rendered here, its charts by its own script (output/assets/).
"""

import base64
import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import jinja2

from launch.report.analysis.cells import Comparison, load
from launch.report.analysis.images import pairs
from launch.report.analysis.sections import FIGURES, Section, build_sections
from launch.report.output import figures
from launch.report.output.markdown import render_csv, render_markdown
from launch.sweep.status import plural
from stn.runs.files import write_atomic
from stn.tracking.console import say

ASSETS = Path(__file__).parent / "output" / "assets"
SCRIPTS = ("draw.js", "charts.js", "points.js", "page.js")
MOST_LINES = 10
"""Verdicts of a data set on the terminal."""
MOST_BY_IMAGE = 3
"""Lines of a data set on the terminal on how often two architectures answer differently."""
MOST_BYTES = 5_000_000
"""Size of the pictures embedded in a page; further ones are linked."""


def _embed_pictures(sections: Sequence[Section]) -> dict[Path, str]:
    """Return the pictures that are embedded in the page, as data URLs."""
    urls, left = {}, MOST_BYTES
    captions = [pictures for section in sections for pictures in section.pictures.values()]
    for picture in [picture for pictures in captions for picture in pictures]:
        with suppress(OSError):
            content = picture.path.read_bytes()
            if len(content) <= left:
                left -= len(content)
                urls[picture.path] = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return urls


def _data(sections: Sequence[Section]) -> str:
    """Return the charts as JSON that cannot end the script element around it."""
    data = []
    for section in sections:
        metrics = [panel.metric for panel in section.panels]
        described = [vars(metric) | {"error": metric.is_accuracy, "axis": metric.axis} for metric in metrics]
        data.append({"name": section.name, "metrics": described, "cells": section.charts})
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def render_page(comparison: Comparison, sections: Sequence[Section]) -> str:
    loader = jinja2.FileSystemLoader(ASSETS)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.get_template("page.html").render(
        comparison=comparison,
        sections=sections,
        embedded=_embed_pictures(sections),
        data=_data(sections),
        style=(ASSETS / "page.css").read_text(encoding="utf-8"),
        script="".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        seeds=sum(len(cell.rows) for cell in comparison.cells),
    )


def write_report(comparison: Comparison, out: Path, margin: float | None = None) -> list[Section]:
    """Write a report, replace an older one in the same folder, and return its sections."""
    sections = build_sections(comparison, out, margin)
    for section in sections:
        figures.draw(section, out / "figures")
    current = {Path(name).stem for section in sections for name in section.figures.values()}
    for path in (out / "figures").glob("*-*.[ps][nv]g"):
        _, _, kind = path.stem.rpartition("-")
        if kind in FIGURES and path.stem not in current:  # a user may keep other files there
            path.unlink()
    texts = {"index.html": render_page(comparison, sections), "report.md": render_markdown(comparison, sections)}
    texts["rows.csv"] = render_csv(comparison.cells)
    if by_image := [(section.name, pair) for section in sections for pair in section.images.pairs]:
        texts["mcnemar.csv"] = pairs.render_csv(by_image)
    else:
        (out / "mcnemar.csv").unlink(missing_ok=True)  # of an earlier report
    for name, text in texts.items():
        write_atomic(out / name, text.encode(errors="replace"))  # damaged rows may hold lone surrogates
    return sections


def _say_verdicts(sections: Sequence[Section]) -> None:
    """Print the verdicts of each data set under its first metric, the first few of many, and what images say."""
    for section in sections:
        verdicts = section.panels[0].verdicts
        for line in verdicts[:MOST_LINES]:
            say(f"{section.name}: {line}")
        if len(verdicts) > MOST_LINES:
            say(f"{section.name}: {len(verdicts) - MOST_LINES} more in the report")
        by_image = [line for block in section.images.blocks for line in block.lines]
        for line in by_image[:MOST_BY_IMAGE]:
            say(f"{section.name}: {line}")
        if section.images.notes:
            say(
                f"{section.name}: {section.images.notes[0]}" + " (more in the report)" * (len(section.images.notes) > 1)
            )


def compare(folders: Sequence[str], out: Path | None = None, margin: float | None = None) -> tuple[list[Section], Path]:
    """Write the report on these folders of run directories; return its sections and its folder."""
    comparison, out = load(folders), out or Path(folders[0]) / "report"
    sections = write_report(comparison, out, margin)
    seeds = sum(len(cell.rows) for cell in comparison.cells)
    _say_verdicts(sections)
    say(f"report    {out / 'index.html'} ({plural(len(comparison.cells), 'cell')}, {plural(seeds, 'seed')})")
    return sections, out
