"""A report's folder: index.html, report.md, rows.csv and figures/."""

from pathlib import Path

from launch.report.analysis.cells import Comparison
from launch.report.analysis.sections import Section, sections
from launch.report.output import figures, markdown, page
from stn.runs.files import write_atomic


def write(comparison: Comparison, out: Path) -> list[Section]:
    """Everything, in place of an older report; what it says."""
    found = sections(comparison, out)
    made = {path for section in found for path in figures.draw(section, out / "figures")}
    for name in figures.NAMES:  # of an older report; nothing else that lies there
        for path in (out / "figures").glob(f"*-{name}.[ps][nv]g"):
            if path.with_suffix(".png") not in made:
                path.unlink()
    texts = {"index.html": page.page(comparison, found), "report.md": markdown.markdown(comparison, found, out)}
    for name, text in (texts | {"rows.csv": markdown.rows_csv(comparison.cells)}).items():
        write_atomic(out / name, text.encode(errors="replace"))  # half a character, from a damaged row
    return found
