"""The report as Markdown, and its rows as CSV."""

import csv
import io
import re
from collections.abc import Sequence
from urllib.parse import quote

from launch.report.analysis.cells import Cell, Comparison
from launch.report.analysis.images.blocks import Block
from launch.report.analysis.metrics import picked
from launch.report.analysis.sections import Section
from launch.report.analysis.tables import Entry, Table
from launch.report.overview import NOTHING, PROFILES, Overview
from stn.runs.directory import Row

FIELDS: list[str] = ["dataset", "arch", "setting", "sig", "seed", "status", "reason", "test_acc", "best_test_acc"]
FIELDS += ["best_epoch", "test_top5_acc", "val_acc", "best_val_acc", "val_top5_acc", "test_loss", "val_loss"]
FIELDS += ["macro_f1", "bypass_acc", "pose_spread", "pose_slope", "pose_intercept", "pose_determinant"]
FIELDS += ["feature_agreement", "params", "steps", "images_per_s", "wall_s", "fused", "precision", "world_size"]
FIELDS += ["weights_sha256", "test_count"]


def escape(raw: object) -> str:
    """Return any text as Markdown on one line, without markup of its own."""
    return re.sub(r"([\\`*{}\[\]|$]|\b_|_\b)", r"\\\1", str(raw)).replace("<", "&lt;").replace("\n", " ")


def _entry(entry: Entry, links: bool) -> str:
    """Return an entry of a table; a significant difference is bold if it is better, italic if it is worse."""
    text = escape(entry.text)
    if entry.link and links:
        return f"[{text}]({quote(entry.link)})"
    around = {"better": "**", "worse": "*"}.get(entry.mark, "")
    return f"{around}{text}{around}"


def render_table(table: Table, links: bool = True) -> str:
    lines = [[escape(heading) for heading in table.headings], ["---"] * len(table.headings)]
    lines += [[_entry(entry, links) for entry in row] for row in table.rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _bullets(lines: list[str]) -> list[str]:
    return ["\n".join(f"- {escape(line)}" for line in lines)] if lines else []


def signed(table: Table | None, signature: str) -> list[str]:
    """Return a table and the line that says what it is of; nothing for no table."""
    return [render_table(table), f"`{signature}`"] if table else []


def render_blocks(blocks: Sequence[Block]) -> list[str]:
    """Return what is said image by image."""
    parts: list[str] = []
    for block in blocks:
        parts += [f"### {block.title}", *_bullets(block.lines), render_table(block.table), escape(f"{block.about}.")]
    return parts


def _section(section: Section) -> list[str]:
    parts = [f"## {escape(section.name)}"]
    warnings = [f"**Warning:** {escape(text)}." for text in section.warnings] + _bullets(section.incomplete)
    for i, panel in enumerate(section.panels):
        parts += [f"### {panel.metric.title}", *_bullets(panel.verdicts), *([] if i else warnings)]
        parts += signed(panel.architectures, panel.signature)
        parts += signed(panel.matrix, panel.pair_signature) + signed(panel.pairs, panel.pair_signature)
        parts += [f"{escape(panel.rule)}."] if panel.pairs else []
        parts += [f"{panel.uncompared}."] if panel.uncompared else []
    if section.published:
        parts += ["### Comparison with published results of the same recipe", render_table(section.published)]
    parts += _bullets(section.images.notes)
    parts += render_blocks(section.images.blocks)
    parts += [f"![{escape(section.name)}: {kind}](figures/{quote(name)})" for kind, name in section.figures.items()]
    for caption, pictures in section.pictures.items():
        parts += [f"### {caption}", *(f"{escape(p.label)}\n\n![{escape(p.label)}]({quote(p.link)})" for p in pictures)]
    return parts


def render_overview(overview: Overview) -> list[str]:
    """Return what the report says on top, without pictures."""
    parts = []
    if overview.differences:
        parts += ["## What differs between the configurations", render_table(overview.differences)]
    if against := overview.against:
        parts += [
            "## Against an earlier report",
            f"Compared with {escape(against.source)}, on the seeds that both have.",
        ]
        parts += _bullets(against.lines) + _bullets(against.notes) + signed(against.table, against.signature)
    if across := overview.across:
        parts += ["## Across data sets", f"{across.metric.title}, on {escape(', '.join(across.datasets))}."]
        parts += signed(across.matrix, across.signature) + signed(across.pair_table, across.signature)
        parts += [f"{escape(across.rule)}.", *signed(across.profile_table, across.signature)]
    return parts


def render_markdown(comparison: Comparison, sections: Sequence[Section], overview: Overview = NOTHING) -> str:
    """Return the whole report; its images are files in figures/ beside it and pictures of the runs."""
    parts = [f"# Comparison: {escape(comparison.name)}"]
    parts += [] if sections else ["No run directories were found."]
    parts += _bullets(comparison.notes)
    parts += render_overview(overview)
    parts += [f"![Performance profiles](figures/{PROFILES})"] if overview.across and overview.across.profiles else []
    parts += [part for section in sections for part in _section(section)]
    return "\n\n".join(parts) + "\n"


def render_csv(cells: list[Cell]) -> str:
    """Return a line for every seed, including failed and missing ones."""
    file = io.StringIO()
    fields = list(dict.fromkeys([*FIELDS, *(metric.key for metric in picked(cells))]))
    writer = csv.DictWriter(file, fields, extrasaction="ignore")
    writer.writeheader()
    for cell in cells:
        keys: Row = {"dataset": cell.dataset, "arch": cell.arch, "setting": cell.setting, "sig": cell.sig}
        rows = [row for _, row in sorted(cell.rows.items())]
        rows += [{"seed": seed, "status": "failed", "reason": why} for seed, why in sorted(cell.failed.items())]
        rows += [{"seed": seed, "status": "missing"} for seed in cell.missing]
        writer.writerows(row | keys for row in rows)
    return file.getvalue()
