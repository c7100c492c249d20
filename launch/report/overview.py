"""What a report says on top, over all of its data sets."""

from collections.abc import Sequence
from typing import NamedTuple

from launch.report.across.overview import Across, build_across
from launch.report.analysis.sections import Section
from launch.report.analysis.tables import Table
from launch.report.earlier.compare import Against
from launch.report.provenance.differences import differences

PROFILES = "across-profiles.png"


class Overview(NamedTuple):
    differences: Table | None = None
    """The fields that differ between the cells' configurations; None if none does."""
    across: Across | None = None
    """None if no two architectures share two data sets."""
    against: Against | None = None
    """What changed since an earlier report; None if none was named."""
    profiles: str = ""
    """The performance profiles as a data URL."""


NOTHING = Overview()


def build_overview(sections: Sequence[Section], margin: float | None = None) -> Overview:
    cells = [cell for section in sections for cell in section.cells]
    return Overview(differences(cells), build_across(sections, margin))
