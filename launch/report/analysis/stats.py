"""The statistics of a comparison: intervals, paired tests, effect sizes, corrections, and the seeds that it takes.

A value belongs to a seed; a pair is one seed trained under two architectures.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

LEVEL = 0.95
"""Confidence level of every interval."""
ALPHA = 1 - LEVEL
FEWEST_PAIRS = 6
"""With five pairs the exact test cannot fall below 1/16: with fewer than six no p-value is given."""
EXACT_PAIRS = 20
"""Up to this many pairs all 2^n assignments of signs are counted; above, DRAWS of them are drawn."""
DRAWS = 100_000
POWER = 0.8
MOST_SEEDS = 100_000
"""Upper limit of the search for a number of seeds."""


@dataclass(frozen=True)
class Summary:
    """Descriptive statistics of values; the SD and the interval of the mean need two of them."""

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    median: float
    minimum: float
    maximum: float


def half_width(sd: float, n: int, m: float = math.inf) -> float:
    """Return half the width of the interval for a mean of n, or for a difference of two means with equal variance."""
    return float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * sd * math.sqrt(1 / n + 1 / m)


def summary(values: Iterable[float]) -> Summary:
    """Return mean, Student-t interval and order statistics of at least one value."""
    x = np.fromiter(values, dtype=float)
    n, mean = len(x), float(x.mean())
    order = float(np.median(x)), float(x.min()), float(x.max())
    if n < 2:
        return Summary(n, mean, None, None, None, *order)
    sd = float(x.std(ddof=1))
    half = half_width(sd, n)
    return Summary(n, mean, sd, mean - half, mean + half, *order)


@lru_cache(maxsize=4)
def _signs(n: int) -> list[np.ndarray]:
    """Return random signs for n pairs; cached, because drawing them takes longer than the tests themselves."""
    rng = np.random.default_rng(0)
    return [1 - 2 * rng.integers(0, 2, (DRAWS // 10, n), dtype=np.int8) for _ in range(10)]


def sign_flip_p(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of the mean of paired differences whose signs are exchangeable under the null.

    Exact up to EXACT_PAIRS. Above, the observed signs count as one of the draws, so that p is never 0.
    """
    d = np.asarray(differences, dtype=float)
    # Sums of the same terms in another order differ in their last bits.
    threshold = abs(d.sum()) - 1e-12 * np.abs(d).sum()
    if len(d) <= EXACT_PAIRS:
        sums = np.zeros(1)
        for difference in d:
            sums = np.concatenate([sums + difference, sums - difference])
        return float((np.abs(sums) >= threshold).mean())
    hits = sum(int((np.abs(signs @ d) >= threshold).sum()) for signs in _signs(len(d)))
    return float((1 + hits) / (1 + DRAWS))


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected step down (Holm 1979), which bounds the chance of one false positive among them all."""
    order = np.argsort(p)
    corrected = np.empty(len(p))
    steps = np.sort(p) * np.arange(len(p), 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return corrected.tolist()


def _t_test_power(effect: float, n: int) -> float:
    """Return the power of a two-sided paired t-test at ALPHA with n pairs, for a positive standardised effect."""
    critical, shift = stats.t.ppf(1 - ALPHA / 2, n - 1), effect * math.sqrt(n)
    if shift > 30:  # nct returns nan there; the power is 1
        return 1.0
    wrong_side = stats.nct.cdf(-critical, n - 1, shift) if shift < 4 else 0.0  # negligible above, or nan
    return float(stats.nct.sf(critical, n - 1, shift) + wrong_side)


def seeds_needed(effect: float) -> int | None:
    """Return the pairs with which a paired t-test finds a standardised effect with POWER; None above MOST_SEEDS."""
    effect = abs(effect)
    # The normal approximation is a lower bound, one or two pairs too low.
    lowest = (stats.norm.ppf([1 - ALPHA / 2, POWER]).sum() / effect) ** 2
    candidates = range(int(min(MOST_SEEDS, max(2, lowest))), MOST_SEEDS + 1)
    return next((n for n in candidates if _t_test_power(effect, n) >= POWER), None)


@dataclass(frozen=True)
class PairedTest:
    """Two architectures on the seeds that both have: the second's values minus the first's."""

    n: int
    difference: Summary | None
    p: float | None
    """Uncorrected p-value of the sign-flip test; None with fewer than FEWEST_PAIRS."""
    effect: float | None
    """d_z, the mean difference over the standard deviation of the differences; None if that is 0 or unknown."""
    seeds: int | None
    """Seeds for 80 % power if the true effect is d_z; at least FEWEST_PAIRS."""


def compare(first: Mapping[int, float], second: Mapping[int, float]) -> PairedTest:
    """Compare two architectures' values by seed; seeds that only one of them has are left out."""
    shared = sorted(first.keys() & second.keys())
    differences = [second[seed] - first[seed] for seed in shared]
    if not differences:
        return PairedTest(0, None, None, None, None)
    difference = summary(differences)
    largest = max(abs(values[seed]) for values in (first, second) for seed in shared)
    sd = difference.sd or 0.0
    effect = difference.mean / sd if sd > 1e-12 * largest else None  # a smaller SD is rounding alone
    p = sign_flip_p(differences) if len(shared) >= FEWEST_PAIRS else None
    needed = seeds_needed(effect) if effect else None
    return PairedTest(len(shared), difference, p, effect, needed and max(needed, FEWEST_PAIRS))
