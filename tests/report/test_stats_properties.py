"""Properties of the report's statistics, on generated values."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from launch.report.analysis.stats import FEWEST_PAIRS, compare, holm, seeds_needed, sign_flip_p, summary
from tests.support.properties import few

numbers = st.floats(-1e6, 1e6).map(lambda x: round(x, 6))
values = st.lists(numbers, min_size=1, max_size=30)
few_values = st.lists(numbers, min_size=1, max_size=10)
probabilities = st.lists(st.floats(0, 1), max_size=20)
by_seed = st.dictionaries(st.integers(0, 15), numbers, max_size=12)


@few(100)
@given(values, st.randoms(use_true_random=False))
def test_a_summary_does_not_depend_on_the_order_and_its_interval_contains_the_mean(x: list, rng) -> None:
    s = summary(x)
    shuffled = summary(rng.sample(x, len(x)))
    scale = max(map(abs, x)) + 1e-300
    assert s.minimum <= s.median <= s.maximum
    assert s.minimum - 1e-12 * scale <= s.mean <= s.maximum + 1e-12 * scale
    assert (s.median, s.minimum, s.maximum) == (shuffled.median, shuffled.minimum, shuffled.maximum)
    assert s.mean == pytest.approx(shuffled.mean, abs=1e-12 * scale)
    assert (s.low is None) == (s.high is None) == (s.sd is None) == (len(x) < 2)
    if s.low is not None and s.high is not None:
        assert s.low <= s.mean <= s.high


@few(60)
@given(st.lists(numbers, min_size=3, max_size=30))
def test_the_interval_is_scipys(x: list) -> None:
    s = summary(x)
    assert s.low is not None
    assert s.high is not None
    if np.std(x) > 1e-9 * max(map(abs, x)):
        expected = scipy_stats.ttest_1samp(x, 0).confidence_interval(0.95)
        assert (s.low, s.high) == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-9 * max(map(abs, x)))


@few(40)
@given(few_values)
def test_the_exact_test_is_scipys(d: list) -> None:
    if len(d) < 2 or 0 in d:
        return  # scipy's threshold of equal sums is another one
    d = [round(x) + 0.5 for x in d]  # sums are exact
    expected = scipy_stats.permutation_test((d,), np.sum, permutation_type="samples", n_resamples=2 ** len(d))
    assert sign_flip_p(d) == pytest.approx(expected.pvalue, abs=1e-12)


@few(100)
@given(few_values, st.randoms(use_true_random=False), st.floats(0.001, 1000))
def test_a_p_value_depends_neither_on_order_nor_on_sign_nor_on_unit(d: list, rng, unit: float) -> None:
    p = sign_flip_p(d)
    assert 0 < p <= 1
    assert p >= 2.0 ** (1 - len(d)) or len(d) == 1
    assert sign_flip_p(rng.sample(d, len(d))) == p
    assert sign_flip_p([-x for x in d]) == p
    assert sign_flip_p([2.0 ** round(unit % 8) * x for x in d]) == p


@few(200)
@given(probabilities)
def test_holm_is_monotone_and_between_the_p_value_and_bonferroni(p: list) -> None:
    corrected = holm(p)
    assert len(corrected) == len(p)
    for raw, value in zip(p, corrected, strict=True):
        assert raw <= value <= min(1.0, raw * len(p)) + 1e-15
    by_p = [value for _, value in sorted(zip(p, corrected, strict=True))]
    assert all(a <= b for a, b in pairwise(by_p))


@few(100)
@given(by_seed, by_seed)
def test_a_comparison_is_of_shared_seeds_and_turns_around(first: dict, second: dict) -> None:
    there, back = compare(first, second), compare(second, first)
    shared = first.keys() & second.keys()
    assert there.n == back.n == len(shared)
    assert (there.p, there.seeds) == (back.p, back.seeds)
    assert (there.p is None) == (len(shared) < FEWEST_PAIRS)
    if there.difference and back.difference:
        assert there.difference.mean == pytest.approx(-back.difference.mean)
        assert (there.effect is None) == (back.effect is None)
        assert there.effect is None or there.effect == pytest.approx(-(back.effect or 0))
    extended = compare(first | {99: 1.0}, second)  # a seed that only one of them has
    assert extended == there


@few(60)
@given(st.floats(0.02, 50), st.floats(1.0, 5))
def test_a_larger_effect_never_needs_more_seeds(effect: float, factor: float) -> None:
    small, large = seeds_needed(effect), seeds_needed(effect * factor)
    assert small is not None
    assert large is not None
    assert 2 <= large <= small
    assert seeds_needed(-effect) == small
