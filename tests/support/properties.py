"""How generated examples are run: the same ones at every start, few, and without a limit on time."""

from collections.abc import Callable

from hypothesis import HealthCheck, Phase, settings


def few(examples: int) -> Callable:
    """Return settings for so many examples; what fails is made smaller before it is shown."""
    phases = (Phase.explicit, Phase.generate, Phase.shrink)
    return settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, phases=phases,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
    )  # fmt: skip
