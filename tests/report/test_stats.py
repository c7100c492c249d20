"""The report's statistics: against scipy, by hand, and by simulation."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from launch.report.analysis.stats import (
    FEWEST_PAIRS,
    compare,
    critical,
    holm,
    seeds_for_equality,
    seeds_needed,
    summary,
)


def test_a_summary_by_hand() -> None:
    """1, 2, 3, 4: SD sqrt(5/3), t(0.975, 3) = 3.182446."""
    s = summary([3.0, 1.0, 4.0, 2.0])
    assert (s.n, s.mean, s.median, s.minimum, s.maximum) == (4, 2.5, 2.5, 1.0, 4.0)
    assert s.sd == pytest.approx(math.sqrt(5 / 3))
    half = 3.182446 * math.sqrt(5 / 3) / 2
    assert (s.low, s.high) == (pytest.approx(2.5 - half, abs=1e-6), pytest.approx(2.5 + half, abs=1e-6))


def test_one_value_has_no_interval() -> None:
    s = summary([0.5])
    assert (s.n, s.mean, s.sd, s.low, s.high) == (1, 0.5, None, None, None)


def test_the_interval_of_a_mean_is_scipys() -> None:
    values = np.random.default_rng(1).normal(3, 2, 17)
    expected = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    s = summary(values.tolist())
    assert (s.low, s.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def by_seed(values: Any) -> dict[int, float]:
    return dict(enumerate(values))


def test_a_paired_t_test_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, SD 1, t = 2 sqrt(3) = 3.4641 with two degrees of freedom: p = 0.074180."""
    test = compare(by_seed([0.0, 0.0, 0.0]), by_seed([1.0, 2.0, 3.0]))
    assert (test.n, test.mean, test.sd, test.effect) == (3, 2.0, 1.0, 2.0)
    assert test.p == pytest.approx(0.074180, abs=1e-6)
    low, high = test.interval(0.05)
    assert (low, high) == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), abs=1e-6)


@pytest.mark.parametrize("n", [3, 5, 30, 1000])
def test_test_and_interval_are_scipys(n: int) -> None:
    x, y = np.random.default_rng(n).normal([[0], [0.3]], 1, (2, n))
    test, expected = compare(by_seed(x), by_seed(y)), scipy_stats.ttest_rel(y, x)
    assert test.p == pytest.approx(expected.pvalue, rel=1e-9)
    for alpha in (0.05, 0.05 / 4950):
        ends = expected.confidence_interval(1 - alpha)
        assert test.interval(alpha) == pytest.approx((ends.low, ends.high), rel=1e-6)
        assert critical(n, alpha) == pytest.approx(scipy_stats.t.isf(alpha / 2, n - 1), rel=1e-9)


def test_holm_by_hand() -> None:
    """Of 0.01, 0.04, 0.03: 3 x 0.01, then 2 x 0.03, then no less than that; in the order given."""
    corrected, levels = zip(*holm([0.01, 0.04, 0.03]), strict=True)
    assert corrected == pytest.approx([0.03, 0.06, 0.06])
    assert levels == pytest.approx([0.05 / 3, 0.05 / 2, 0.05 / 2]), "two are undecided"
    assert holm([0.5, 0.9]) == [(1.0, pytest.approx(0.025)), (1.0, pytest.approx(0.025))]
    assert holm([]) == []
    assert holm([0.04]) == [(0.04, pytest.approx(0.05))]


def test_seeds_needed_are_the_tables() -> None:
    """Cohen's paired t test at 5 %, two-sided, 80 %: 34 pairs for 0.5, 15 for 0.8, 199 for 0.2."""
    assert [seeds_needed(effect) for effect in (0.5, -0.8, 0.2)] == [34, 15, 199]
    assert seeds_needed(50.0) == FEWEST_PAIRS
    assert [seeds_needed(effect) for effect in (1e-4, 1e-300, 0.0)] == [None, None, None]
    for alpha in (0.05, 1e-5):  # scipy has no value for some of these
        needed = [seeds_needed(effect, alpha) for effect in np.geomspace(0.02, 1000, 300)]
        assert None not in needed
        assert needed == sorted(needed, key=int, reverse=True)  # type: ignore[arg-type]


def test_seeds_for_equality_by_simulation() -> None:
    """20,000 experiments each; no number of seeds shows a difference within a margin that it exceeds."""
    for mean, alpha in ((0.0, 0.05), (0.04, 0.05), (0.04, 0.01)):
        n = seeds_for_equality(mean, 0.2, 0.1, alpha)
        assert n is not None
        x = np.random.default_rng(5).normal(mean, 0.2, (20_000, n))
        half = critical(n, alpha) * x.std(1, ddof=1) / math.sqrt(n)
        assert np.mean(np.abs(x.mean(1)) + half < 0.1) == pytest.approx(0.8, abs=0.02)
    assert seeds_for_equality(0.1, 0.2, 0.1) is None
    assert seeds_for_equality(-0.2, 0.2, 0.1) is None


def test_pairs_are_of_shared_seeds_and_few_or_constant_ones_have_no_p_value() -> None:
    first = {seed: float(seed) for seed in range(8)}
    second = {seed: seed + 1.0 + seed % 2 for seed in range(2, 12)}
    paired = compare(first, second)
    assert (paired.n, paired.mean) == (6, 1.5)
    assert paired.sd == pytest.approx(np.std([1, 2] * 3, ddof=1))
    assert compare(first, {0: 1.0, 1: 3.0}).p is None
    assert compare(first, {0: 1.0, 1: 3.0, 2: 3.0}).p is not None
    assert compare(first, {}) == compare({}, {})
    same = compare(first, first)
    assert (same.n, same.mean, same.p, same.sd) == (8, 0.0, None, 0.0)
    above = compare(first, {seed: value + 0.1 for seed, value in first.items()})  # scatter of rounding alone
    assert (above.p, above.sd) == (None, 0.0)
