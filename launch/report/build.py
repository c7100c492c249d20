"""A report's folder: index.html, report.md, rows.csv and figures/."""

from pathlib import Path

from launch.report import figures, markdown, page
from launch.report.data import Comparison
from launch.report.sections import sections
from stn.files import write_atomic


def write(comparison: Comparison, out: Path) -> None:
    """Everything, in place of an older report."""
    found = sections(comparison, out)
    made = {path for section in found for path in figures.draw(section, out / "figures")}
    for path in (out / "figures").glob("*.[ps][nv]g"):  # of an older report
        if path.with_suffix(".png") not in made:
            path.unlink()
    write_atomic(out / "index.html", page.page(comparison, found))
    write_atomic(out / "report.md", markdown.markdown(comparison, found, out))
    write_atomic(out / "rows.csv", markdown.rows_csv(comparison.cells))
