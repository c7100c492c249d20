"""Writes the folder of a report: index.html, report.md, rows.csv, mcnemar.csv, figures/ and, on request, tables.tex.

The page is self-contained: its tables are rendered here, its charts by its own script (output/assets/).
"""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import jinja2

from launch.report.analysis.cells import Comparison, load
from launch.report.analysis.images import pairs
from launch.report.analysis.sections import FIGURES, Section, build_sections
from launch.report.earlier.compare import Against, compare_with
from launch.report.earlier.read import EarlierCell, read_earlier
from launch.report.output import apart
from launch.report.output.drawing import KINDS, save
from launch.report.output.embedding import Embedded, data_url, embed_pictures
from launch.report.output.latex import FILE, render_latex
from launch.report.output.markdown import render_csv, render_markdown
from launch.report.output.profile_figure import profile_figure
from launch.report.overview import NOTHING, PROFILES, Overview, build_overview
from launch.sweep.status import plural
from stn.runs.files import write_atomic
from stn.tracking.console import say

ASSETS = Path(__file__).parent / "output" / "assets"
SCRIPTS = ("draw.js", "charts.js", "points.js", "page.js")
MOST_LINES = 10
"""Verdicts of a data set on the terminal."""
MOST_BY_IMAGE = 3
"""Lines of a data set on the terminal on how often two architectures answer differently."""


def _data(sections: Sequence[Section]) -> str:
    """Return the charts as JSON that cannot end the script element around it."""
    data = []
    for section in sections:
        metrics = [panel.metric for panel in section.panels]
        described = [vars(metric) | {"error": metric.is_accuracy, "axis": metric.axis} for metric in metrics]
        data.append({"name": section.name, "metrics": described, "cells": section.charts})
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def render_page(
    comparison: Comparison,
    sections: Sequence[Section],
    overview: Overview = NOTHING,
    embedded: Embedded | None = None,
) -> str:
    loader = jinja2.FileSystemLoader(ASSETS)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    # With all their digits, the sort keys took a tenth of a large page.
    environment.filters["short"] = lambda key: f"{key:.7g}" if isinstance(key, float) else key
    return environment.get_template("page.html").render(
        comparison=comparison,
        sections=sections,
        overview=overview,
        embedded=(embedded or embed_pictures(sections)).urls,
        data=_data(sections),
        style=(ASSETS / "page.css").read_text(encoding="utf-8"),
        script="".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        seeds=sum(len(cell.rows) for cell in comparison.cells),
    )


class Written(NamedTuple):
    """A report that was written."""

    sections: list[Section]
    overview: Overview
    out: Path
    linked: int
    """Pictures that the page does not contain."""


def _draw(sections: Sequence[Section], overview: Overview, folder: Path, *more: str) -> Overview:
    """Write the figures, also in more formats, delete older ones, and return the overview with its picture."""
    apart.draw(sections, folder, *more)
    current = {Path(name).stem for section in sections for name in section.figures.values()}
    if overview.across and overview.across.profiles:
        drawn = save(profile_figure(overview.across), folder / PROFILES, (*KINDS, *more))
        overview = overview._replace(profiles=data_url(drawn["svg"], "svg+xml"))
        current.add(Path(PROFILES).stem)
    for path in [*folder.glob("*-*.[ps][nv]g"), *folder.glob("*-*.pdf")]:
        _, _, kind = path.stem.rpartition("-")
        if kind in (*FIGURES, "profiles") and path.stem not in current:  # a user may keep other files there
            path.unlink()
    return overview


def write_report(
    comparison: Comparison,
    out: Path,
    margin: float | None = None,
    latex: bool = False,
    earlier: tuple[Path, list[EarlierCell]] | None = None,
) -> Written:
    """Write a report, and replace an older one in the same folder; ``earlier`` is what it is compared with.

    Tables for LaTeX and PDF figures are written if they are asked for, or are there already.
    """
    latex = latex or (out / FILE).is_file()
    sections = build_sections(comparison, out, margin)
    overview = build_overview(sections, margin)
    if earlier:
        source, cells = earlier
        overview = overview._replace(against=compare_with(cells, source, sections, margin))
    overview = _draw(sections, overview, out / "figures", *(["pdf"] if latex else []))
    shown, embedded = (comparison, sections, overview), embed_pictures(sections)
    texts = {"index.html": render_page(*shown, embedded), "report.md": render_markdown(*shown)}
    texts |= {"rows.csv": render_csv(comparison.cells)}
    texts |= {FILE: render_latex(sections, overview)} if latex else {}
    if by_image := [(section.name, pair) for section in sections for pair in section.images.pairs]:
        texts["mcnemar.csv"] = pairs.render_csv(by_image)
    else:
        (out / "mcnemar.csv").unlink(missing_ok=True)  # of an earlier report
    for name, text in texts.items():
        write_atomic(out / name, text.encode(errors="replace"))  # damaged rows may hold lone surrogates
    return Written(sections, overview, out, embedded.linked)


def _say_changes(against: Against) -> None:
    """Print what changed, the first few of many, and whether anything got worse."""
    for line in against.lines[:MOST_LINES]:
        say(f"against {against.source}: {line}")
    if len(against.lines) > MOST_LINES:
        say(f"against {against.source}: {len(against.lines) - MOST_LINES} more in the report")
    for note in against.notes:
        say(f"against {against.source}: {note}")
    counts = Counter(change.mark for change in against.changes)
    counted = ", ".join(f"{count} {mark}" for mark, count in sorted(counts.items()))
    say(f"{'WORSE' if against.worse else 'no worse'}  {'; '.join(against.worse) or counted}")


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


def compare(
    folders: Sequence[str],
    out: Path | None = None,
    margin: float | None = None,
    latex: bool = False,
    against: Path | None = None,
) -> Written:
    """Write the report on these folders of run directories, compared with an earlier one if it is named."""
    earlier = (against, read_earlier(against)) if against else None  # first: it may be the one replaced
    comparison, out = load(folders), out or Path(folders[0]) / "report"
    written = write_report(comparison, out, margin, latex, earlier)
    seeds = sum(len(cell.rows) for cell in comparison.cells)
    _say_verdicts(written.sections)
    say(f"report    {out / 'index.html'} ({plural(len(comparison.cells), 'cell')}, {plural(seeds, 'seed')})")
    if latex:
        say(f"LaTeX     {out / FILE}, and PDFs in {out / 'figures'}")
    if written.linked:
        linked = plural(written.linked, "picture")
        say(f"pictures  {linked} linked, not embedded: to take the page elsewhere, copy the runs, too")
    if written.overview.against:
        _say_changes(written.overview.against)
    return written
