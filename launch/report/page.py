"""The report as one page that needs nothing else: tables made here, charts drawn by its own script."""

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import jinja2

from launch.report import tables
from launch.report.data import Cell, Comparison
from launch.report.sections import Section
from launch.report.stats import FEWEST_PAIRS

ASSETS = Path(__file__).parent / "assets"
MOST_BYTES = 5_000_000
"""Of pictures in a page; the others are linked."""
PICTURES: dict[str, str] = {
    "warp": "The same test images before and behind the transformer, at several stages of training",
    "object": "One object under many perturbations, before and behind the transformer",
    "iterations": "Each resampling",
    "region": "The sampled region on the input image",
}


class _Pictures:
    """Pictures of runs, within the page as long as there is room."""

    def __init__(self, out: Path) -> None:
        self.out, self.left = out, MOST_BYTES

    def of(self, cell: Cell, name: str) -> dict[str, str] | None:
        found = [path for run in cell.runs if (path := run.pictures / f"{name}.png").is_file()]
        if not found:
            return None
        content = found[0].read_bytes()
        where = f"{tables.link(cell, self.out)}/{found[0].relative_to(cell.folder).as_posix()}"
        self.left -= len(content)
        if self.left < 0:
            return {"label": cell.label, "link": where, "source": ""}
        source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        return {"label": cell.label, "link": where, "source": source}

    def all(self, cells: Sequence[Cell]) -> dict[str, list[dict[str, str]]]:
        """By what they show; the first kind of every architecture before the second."""
        found = {about: [p for cell in cells if (p := self.of(cell, name))] for name, about in PICTURES.items()}
        return {about: pictures for about, pictures in found.items() if pictures}


def _data(sections: Sequence[Section]) -> str:
    """For the script; nothing in it can end the element that it stands in."""
    found = [
        {
            "name": section.name,
            "metrics": [vars(metric) | {"error": metric.is_accuracy} for metric in section.metrics],
            "cells": section.charts,
        }
        for section in sections
    ]
    text = json.dumps(found, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def page(comparison: Comparison, sections: Sequence[Section], out: Path) -> str:
    """The whole page."""
    pictures = _Pictures(out)
    loader = jinja2.FileSystemLoader(ASSETS)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.get_template("page.html").render(
        comparison=comparison,
        sections=[(section, pictures.all(section.cells)) for section in sections],
        data=_data(sections),
        style=(ASSETS / "page.css").read_text(),
        script="".join((ASSETS / name).read_text() for name in ("charts.js", "page.js")),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        seeds=sum(len(cell.rows) for cell in comparison.cells),
        few=FEWEST_PAIRS,
    )
