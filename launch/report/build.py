"""Writes the folder of a report: index.html, report.md, rows.csv and figures/."""

from pathlib import Path

from launch.report.analysis.cells import Comparison
from launch.report.analysis.sections import FIGURES, Section, build_sections
from launch.report.output import figures
from launch.report.output.markdown import render_csv, render_markdown
from launch.report.output.page import render_page
from stn.runs.files import write_atomic


def write_report(comparison: Comparison, out: Path) -> list[Section]:
    """Write a report, replace an older one in the same folder, and return its sections."""
    sections = build_sections(comparison, out)
    for section in sections:
        figures.draw(section, out / "figures")
    current = {Path(name).stem for section in sections for name in section.figures.values()}
    for kind in FIGURES:
        for path in (out / "figures").glob(f"*-{kind}.[ps][nv]g"):  # no other files that a user keeps there
            if path.stem not in current:
                path.unlink()
    texts = {"index.html": render_page(comparison, sections), "report.md": render_markdown(comparison, sections)}
    for name, text in (texts | {"rows.csv": render_csv(comparison.cells)}).items():
        write_atomic(out / name, text.encode(errors="replace"))  # damaged rows may hold lone surrogates
    return sections
