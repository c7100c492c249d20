"""What --against is given: a file has to be a report's."""

from pathlib import Path

import pytest

from launch.report.earlier.read import read_earlier
from launch.sweep.plan import Plan


def test_a_file_that_is_no_reports_is_not_taken_for_the_folder_around_it(plan: Plan) -> None:
    """Run directories lie below the folder in which it is."""
    for name in ("README.md", "index.html"):
        page: Path = plan.experiment / name
        page.write_text("text")
        with pytest.raises(ValueError, match=r"it is no page of a report with rows.csv beside it"):
            read_earlier(page)
