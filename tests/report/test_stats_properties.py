"""Properties of the report's statistics, on generated values."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from launch.report.analysis.stats import FEWEST_PAIRS, compare, holm, seeds_needed, summary
from tests.support.properties import few

numbers = st.floats(-1e6, 1e6).map(lambda x: round(x, 6))
values = st.lists(numbers, min_size=1, max_size=30)
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


@few(200)
@given(probabilities, st.randoms(use_true_random=False))
def test_holm_is_monotone_between_the_p_value_and_bonferroni_and_does_not_depend_on_the_order(p: list, rng) -> None:
    corrected = holm(p)
    assert len(corrected) == len(p)
    for raw, (value, level) in zip(p, corrected, strict=True):
        assert raw <= value <= min(1.0, raw * len(p)) + 1e-15
        assert 0.05 / len(p) <= level + 1e-15 <= 0.05 + 2e-15
        assert (value < 0.05) == (raw < level) or abs(value - 0.05) < 1e-12
    by_p = [value for _, (value, _) in sorted(zip(p, corrected, strict=True))]
    assert all(a <= b for a, b in pairwise(by_p))
    shuffled = rng.sample(range(len(p)), len(p))
    assert holm([p[i] for i in shuffled]) == [corrected[i] for i in shuffled]


@few(100)
@given(by_seed, by_seed)
def test_a_comparison_is_of_shared_seeds_and_turns_around(first: dict, second: dict) -> None:
    there, back = compare(first, second), compare(second, first)
    shared = first.keys() & second.keys()
    assert (there.n, there.mean, there.sd, there.p) == (back.n, -back.mean, back.sd, back.p)
    assert there.n == len(shared)
    assert there.p is None if len(shared) < FEWEST_PAIRS else (there.p is None) == (there.sd == 0)
    assert compare(first | {99: 1.0}, second) == there, "a seed that only one of them has"
    assert compare(dict(reversed(first.items())), second) == there, "the order of the rows"


@few(60)
@given(st.floats(0.02, 50), st.floats(1.0, 5))
def test_a_larger_effect_never_needs_more_seeds(effect: float, factor: float) -> None:
    small, large = seeds_needed(effect), seeds_needed(effect * factor)
    assert small is not None
    assert large is not None
    assert FEWEST_PAIRS <= large <= small
    assert seeds_needed(-effect) == small
