"""The report as one page that needs nothing else: tables made here, charts drawn by its own script."""

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
MOST_BYTES = 5_000_000
"""Of pictures in a page; the others are linked."""


class _Pictures:
    """Pictures of runs, within the page as long as there is room."""

    left = MOST_BYTES

    def of(self, picture: Picture) -> str:
        """As the page's own; "" where it is to be linked."""
        try:
            content = picture.path.read_bytes()
        except OSError:
            return ""
        if len(content) > self.left:
            return ""
        self.left -= len(content)
        return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _data(sections: Sequence[Section]) -> str:
    """For the script; nothing in it can end the element that it stands in."""
    found = [
        {
            "name": section.name,
            "metrics": [
                vars(panel.metric) | {"error": panel.metric.is_accuracy, "axis": panel.metric.axis}
                for panel in section.panels
            ],
            "cells": section.charts,
        }
        for section in sections
    ]
    text = json.dumps(found, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def page(comparison: Comparison, sections: Sequence[Section]) -> str:
    """The whole page."""
    loader = jinja2.FileSystemLoader(ASSETS)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.get_template("page.html").render(
        comparison=comparison,
        sections=sections,
        source=_Pictures().of,
        data=_data(sections),
        style=(ASSETS / "page.css").read_text(encoding="utf-8"),
        script="".join((ASSETS / name).read_text(encoding="utf-8") for name in ("draw.js", "charts.js", "page.js")),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        seeds=sum(len(cell.rows) for cell in comparison.cells),
        few=FEWEST_PAIRS,
    )
