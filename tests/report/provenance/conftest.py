"""A sweep with nothing to warn of."""

import pytest

from launch.sweep.plan import Plan
from tests.support.report_cases import cells_of, found, set_env


@pytest.fixture
def clean(plan: Plan) -> Plan:
    """The sweep, with nothing to warn of."""
    for cell in cells_of(plan):
        set_env(cell)
        for run in cell.runs:
            run.forget(set(cell.failed) & (run.seeds or set()))
    assert found(cells_of(plan)) == []
    return plan
