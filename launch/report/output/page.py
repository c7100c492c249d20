"""The report as one self-contained HTML page: tables are rendered here, charts by the page's own script."""

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import jinja2

from launch.report.analysis.cells import Comparison
from launch.report.analysis.sections import Picture, Section
from launch.report.analysis.stats import FEWEST_PAIRS

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("draw.js", "charts.js", "points.js", "page.js")
MOST_BYTES = 5_000_000
"""Size of the pictures embedded in a page; further ones are linked."""


class _Pictures:
    """Embeds pictures of runs until the limit is reached."""

    left = MOST_BYTES

    def embed(self, picture: Picture) -> str:
        """Return a picture as a data URL; "" if it is to be linked."""
        try:
            content = picture.path.read_bytes()
        except OSError:
            return ""
        if len(content) > self.left:
            return ""
        self.left -= len(content)
        return f"data:image/png;base64,{base64.b64encode(content).decode()}"


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
        embed=_Pictures().embed,
        data=_data(sections),
        style=(ASSETS / "page.css").read_text(encoding="utf-8"),
        script="".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        seeds=sum(len(cell.rows) for cell in comparison.cells),
        fewest_pairs=FEWEST_PAIRS,
    )
