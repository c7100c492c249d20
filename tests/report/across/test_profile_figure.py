"""The picture of performance profiles: what is drawn, against the numbers that it was given."""

from pathlib import Path

import numpy as np
import pytest

from launch.report.across.overview import build_across
from launch.report.analysis.cells import Comparison
from launch.report.analysis.sections import build_sections
from launch.report.output.profile_figure import MOST_STEPS, profile_figure
from tests.support.across import cells_of, sweep


@pytest.mark.parametrize("seeds", [10, 60])
def test_profiles_rise_to_one_at_the_errors_of_the_rows(seeds: int) -> None:
    values = sweep(2, seeds)
    across = build_across(build_sections(Comparison("x", cells_of(values), []), Path()))
    assert across
    (axis,) = profile_figure(across).axes
    assert (axis.get_xlabel(), axis.get_xscale()) == ("error (%)", "log")
    assert [line.get_label() for line in axis.get_lines()] == ["cnn", "stn_c0"]
    for line in axis.get_lines():
        errors = 100 * np.array([1 - v for of in values[str(line.get_label())].values() for v in of.values()])
        x, share = np.array(line.get_xdata()), np.array(line.get_ydata())
        assert len(x) <= MOST_STEPS
        assert share == pytest.approx([np.mean(errors <= at + 1e-9) for at in x])
        assert (x[0], x[-1], share[-1]) == pytest.approx((errors.min(), errors.max(), 1))
