"""What is trained stays what it was, in float64."""

import json

import pytest

from tests.golden.losses import FILE, configurations, losses

TOLERANCE = 1e-9
GOLDEN = json.loads(FILE.read_text())["losses"]


def test_every_architecture_and_data_set_has_its_losses() -> None:
    assert configurations().keys() <= GOLDEN.keys(), "something is new: python -m tests.golden.make"


@pytest.mark.usefixtures("one_thread")
def test_the_losses_of_the_first_two_steps_are_those_of_before() -> None:
    differ = {
        name: (GOLDEN[name], values)
        for name, values in losses().items()
        if name in GOLDEN and values != pytest.approx(GOLDEN[name], rel=TOLERANCE, abs=0)
    }
    assert not differ, f"other networks are trained than before; see {FILE.with_suffix('.py')}"
