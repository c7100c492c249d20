"""The report as Markdown and CSV. Must not know how figures come about."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from launch.report.analysis.cells import Cell, Comparison
from launch.report.analysis.sections import Section
from launch.report.analysis.tables import Table, Value

FIELDS: list[str] = ["dataset", "arch", "setting", "sig", "seed", "status", "reason", "test_acc", "best_test_acc"]
FIELDS += ["best_epoch", "val_acc", "best_val_acc", "test_loss", "macro_f1", "bypass_acc", "pose_spread"]
FIELDS += ["pose_slope", "pose_intercept", "pose_determinant", "feature_agreement", "params", "steps"]
FIELDS += ["images_per_s", "wall_s", "fused", "precision", "world_size", "weights_sha256"]


def file_name(dataset: str, name: str) -> str:
    """Of a figure."""
    return f"{re.sub(r'[^A-Za-z0-9_.]', '_', dataset)}-{name}.png"


def text(raw: object) -> str:
    """Text in Markdown, whatever is in it."""
    return re.sub(r"([\\`*{}\[\]|$]|\b_|_\b)", r"\\\1", str(raw)).replace("<", "&lt;").replace("\n", " ")


def _field(value: Value, links: bool) -> str:
    """Bold: a real difference for the better; italic: for the worse."""
    found = text(value.text)
    if value.link and links:
        return f"[{found}]({quote(value.link)})"
    around = {"better": "**", "worse": "*"}.get(value.mark, "")
    return f"{around}{found}{around}"


def render(table: Table, links: bool = True) -> str:
    lines = [[text(heading) for heading in table.headings], ["---"] * len(table.headings)]
    lines += [[_field(value, links) for value in row] for row in table.rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _bullets(lines: list[str]) -> list[str]:
    return ["\n".join(f"- {text(line)}" for line in lines)] if lines else []


def _section(section: Section, out: Path) -> list[str]:
    parts = [f"## {text(section.name)}", *(f"**Warning:** {text(said)}." for said in section.warnings)]
    parts += _bullets(section.without)
    for panel in section.panels:
        parts += [f"### {panel.metric.title}", render(panel.architectures)]
        parts += [render(table) for table in (panel.matrix, panel.comparisons) if table]
        parts += [f"**Note:** {text(panel.note)}."] if panel.note else []
    if section.published:
        parts += ["### Beside what was published, where the recipe is the same", render(section.published)]
    figures = sorted((out / "figures").glob(f"{file_name(section.name, '*')}"))
    parts += [f"![{text(path.stem)}](figures/{quote(path.name)})" for path in figures]
    for about, pictures in section.pictures.items():
        parts += [f"### {about}", *(f"{text(p.label)}\n\n![{text(p.label)}]({quote(p.link)})" for p in pictures)]
    return parts


def markdown(comparison: Comparison, sections: Sequence[Section], out: Path) -> str:
    """The whole report; pictures are those in figures/ beside it."""
    parts = [f"# Comparison: {text(comparison.name)}"]
    if not sections:
        parts.append("There are no run directories here.")
    parts += _bullets(comparison.notes)
    parts += [part for section in sections for part in _section(section, out)]
    return "\n\n".join(parts) + "\n"


def rows_csv(cells: list[Cell]) -> str:
    """A line per seed, those that failed or are missing as well."""
    found = io.StringIO()
    writer = csv.DictWriter(found, FIELDS, extrasaction="ignore")
    writer.writeheader()
    for cell in cells:
        own: dict[str, Any] = {"dataset": cell.dataset, "arch": cell.arch, "setting": cell.setting, "sig": cell.sig}
        for _, row in sorted(cell.rows.items()):
            writer.writerow(row | own)
        for seed, reason in sorted(cell.failed.items()):
            writer.writerow(own | {"seed": seed, "status": "failed", "reason": reason})
        for seed in cell.missing:
            writer.writerow(own | {"seed": seed, "status": "missing"})
    return found.getvalue()
