"""The report's statistics: against scipy, by hand, and by simulation."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from launch.report.analysis import stats
from launch.report.analysis.stats import compare, holm, seeds_needed, sign_flip_p, summary


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


def test_signs_by_hand() -> None:
    """1, 2, 3: of the 8 sums only 6 and -6 are as far out. 1, 2, -3: all are. One zero changes nothing."""
    assert sign_flip_p([1, 2, 3]) == 2 / 8
    assert sign_flip_p([1, 2, -3]) == 1
    assert sign_flip_p([1, 2, 3, 0]) == 2 / 8
    assert sign_flip_p([0.1, 0.2, 0.3, 0.1, 0.1]) == 2 / 32  # whose sums differ in their last bits
    assert sign_flip_p([5, 4, 3, 2, -1]) == 4 / 32  # 13 and 15, either way


@pytest.mark.parametrize("n", [6, 9, 12])
def test_the_exact_test_is_scipys(n: int) -> None:
    d = np.random.default_rng(n).normal(0.4, 1, n)
    expected = scipy_stats.permutation_test((d,), np.sum, permutation_type="samples", n_resamples=2**n)
    assert sign_flip_p(d.tolist()) == pytest.approx(expected.pvalue)


def test_drawn_signs_agree_with_counted_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    d = np.random.default_rng(3).normal(0.5, 1, 18)
    exact = sign_flip_p(d.tolist())
    monkeypatch.setattr(stats, "EXACT_PAIRS", 10)
    drawn = sign_flip_p(d.tolist())
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact / stats.DRAWS))
    assert sign_flip_p([1.0] * 30) == 1 / (1 + stats.DRAWS)


def test_holm_by_hand() -> None:
    """Of 0.01, 0.04, 0.03: 3 x 0.01, then 2 x 0.03, then no less than that; in the order given."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_seeds_needed_are_the_tables() -> None:
    """Cohen's paired t-test at 5 %, two-sided, 80 %: 34 pairs for 0.5, 15 for 0.8, 199 for 0.2."""
    assert [seeds_needed(effect) for effect in (0.5, -0.8, 0.2)] == [34, 15, 199]
    assert seeds_needed(50.0) == 2 or seeds_needed(50.0) == 3
    assert seeds_needed(1e-4) is None
    needed = [seeds_needed(effect) for effect in np.geomspace(0.01, 100, 300)]  # scipy has no value for some of these
    assert None not in needed
    assert needed == sorted(needed, key=int, reverse=True)  # type: ignore[arg-type]


def test_pairs_are_of_shared_seeds_and_few_have_no_p_value() -> None:
    first = {seed: float(seed) for seed in range(8)}
    second = {seed: seed + 1.0 + seed % 2 for seed in range(2, 12)}
    paired = compare(first, second)
    assert paired.n == 6
    assert paired.difference is not None
    assert paired.difference.mean == 1.5
    assert paired.p == 2 / 64
    assert paired.effect == pytest.approx(1.5 / np.std([1, 2] * 3, ddof=1))
    assert compare(first, dict.fromkeys(range(5), 9.0)).p is None
    clear = compare(first, {seed: value + 50 + seed % 2 for seed, value in first.items()})
    assert clear.seeds == 6, "fewer would have no p-value"
    assert compare(first, {}).difference is None
    same = compare(first, first)
    assert (same.p, same.effect, same.seeds) == (1.0, None, None)
    above = compare(first, {seed: value + 0.1 for seed, value in first.items()})  # scatter of rounding alone
    assert (above.p, above.effect, above.seeds) == (2 / 256, None, None)


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 10, 30])
def test_intervals_cover_and_tests_keep_their_size(n: int) -> None:
    """20,000 experiments without a difference; bounds are five standard errors."""
    rng, trials = np.random.default_rng(7), 20_000
    x = rng.normal(0, 1, (trials, n))
    summaries = [summary(row) for row in x]
    covered = np.mean([s.low <= 0 <= s.high for s in summaries if s.low is not None and s.high is not None])
    assert covered == pytest.approx(0.95, abs=5 * math.sqrt(0.95 * 0.05 / trials))
    few = x[: 2_000 if n <= 10 else 200]
    size = np.mean([sign_flip_p(row) <= 0.05 for row in few])
    assert size <= 0.05 + 5 * math.sqrt(0.05 * 0.95 / len(few))


@pytest.mark.slow
def test_the_promised_power_is_reached() -> None:
    """With as many pairs as asked for, a paired t-test finds the effect in 80 % of 10,000 experiments."""
    effect, trials = 0.7, 10_000
    n = seeds_needed(effect)
    assert n is not None
    x = np.random.default_rng(11).normal(effect, 1, (trials, n))
    test: Any = scipy_stats.ttest_1samp(x, 0, axis=1)  # scipy's annotations leave out its fields
    power = np.mean(test.pvalue < 0.05)
    assert 0.8 - 0.02 <= power <= 0.8 + 0.03
