"""The statistics of a comparison: intervals, the paired t test, corrections, and the seeds that it takes.

A value belongs to a seed; a pair is one seed trained under two architectures.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

ALPHA = 0.05
"""Level of every test; an interval has what it does not reject, and covers 95 %."""
FEWEST_PAIRS = 3
"""Shared seeds from which a difference is tested: the SD of two values is worth little."""
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


def critical(n: int, alpha: float = ALPHA) -> float:
    """Return what the two-sided t statistic of n values must exceed."""
    return -float(special.stdtrit(n - 1, alpha / 2))


def half_width(sd: float, n: int, m: float = math.inf) -> float:
    """Return half the width of the interval for a mean of n, or for a difference of two means with equal variance."""
    return critical(n) * sd * math.sqrt(1 / n + 1 / m)


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


@dataclass(frozen=True)
class PairedTest:
    """Two architectures on the seeds that both have: the second's values minus the first's."""

    n: int
    mean: float = 0.0
    sd: float = 0.0
    """0 with fewer than FEWEST_PAIRS, and where the differences differ by rounding alone."""
    p: float | None = None
    """Uncorrected two-sided p-value of the t test; None without an SD."""

    @property
    def effect(self) -> float:
        """d_z, the mean difference over the standard deviation of the differences."""
        return self.mean / self.sd

    def p_beyond(self, margin: float) -> float:
        """Return the p-value of two one-sided tests that the difference is not within ± margin."""
        return float(special.stdtr(self.n - 1, (abs(self.mean) - margin) / self.sd * math.sqrt(self.n)))

    def interval(self, alpha: float) -> tuple[float, float]:
        """Return the ends of the differences that a test at this level does not reject."""
        half = critical(self.n, alpha) * self.sd / math.sqrt(self.n)
        return self.mean - half, self.mean + half


def compare(first: Mapping[int, float], second: Mapping[int, float]) -> PairedTest:
    """Compare two architectures' values by seed; seeds that only one of them has are left out."""
    shared = sorted(first.keys() & second.keys())
    if not shared:
        return PairedTest(0)
    d = np.array([second[seed] - first[seed] for seed in shared], dtype=float)
    n, mean = len(d), float(d.mean())
    sd = float(d.std(ddof=1)) if n >= FEWEST_PAIRS else 0.0
    largest = max(abs(values[seed]) for values in (first, second) for seed in shared)
    if sd <= 1e-12 * largest:
        return PairedTest(n, mean)
    return PairedTest(n, mean, sd, float(2 * special.stdtr(n - 1, -abs(mean) / sd * math.sqrt(n))))


def holm(p: Sequence[float]) -> list[tuple[float, float]]:
    """Return each p-value corrected step down (Holm 1979), and the level of the test that comes to the same.

    The correction bounds the chance of one false positive among them all. A corrected p-value is below ALPHA just where
    the uncorrected one is below its level, so that an interval at that level agrees with the corrected test. Equal
    p-values get equal results.
    """
    raw = np.asarray(p, dtype=float)
    ascending = np.sort(raw)
    left_P = len(raw) - np.searchsorted(ascending, raw)  # hypotheses that are not rejected before this one
    steps = np.maximum.accumulate(ascending * (len(raw) - np.searchsorted(ascending, ascending)))
    corrected_P = np.minimum(1.0, steps[np.searchsorted(ascending, raw)])
    undecided = int((corrected_P >= ALPHA).sum())
    levels_P = ALPHA / np.where(corrected_P < ALPHA, left_P, max(1, undecided))
    return list(zip(corrected_P.tolist(), levels_P.tolist(), strict=True))


def _upper_tail(x: np.ndarray, n: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return P(t > x) of the noncentral t with n - 1 degrees of freedom; scipy has no value for a large shift."""
    v = n - 1
    normal = special.ndtr((shift - x * (1 - 1 / (4 * v))) / np.sqrt(1 + x**2 / (2 * v)))
    exact = 1 - special.nctdtr(v, np.minimum(shift, 30.0), x)
    return np.where((shift < 30) & np.isfinite(exact), exact, normal)


def _fewest(effect: float, alpha: float, power: Callable[[np.ndarray], np.ndarray]) -> int | None:
    """Return the smallest number of seeds that has POWER, for what cannot be easier than finding this effect."""
    quantile = float(special.ndtri(1 - alpha / 2))
    root = (quantile + float(special.ndtri(POWER))) / effect  # were the SD known
    start = max(FEWEST_PAIRS, int(min(root, math.sqrt(MOST_SEEDS)) ** 2 + quantile**2 / 8))
    while start <= MOST_SEEDS:
        candidates = np.arange(start, min(start + 8, MOST_SEEDS + 1))
        if len(enough := candidates[power(candidates) >= POWER]):
            return int(enough[0])
        start += 8
    return None


def seeds_needed(effect: float, alpha: float = ALPHA) -> int | None:
    """Return the pairs with which a paired t test finds a standardised effect with POWER; None above MOST_SEEDS."""

    def power(n: np.ndarray) -> np.ndarray:
        x, shift = -special.stdtrit(n - 1, alpha / 2), abs(effect) * np.sqrt(n)
        return _upper_tail(x, n, shift)  # what falls on the wrong side is no success

    return _fewest(abs(effect), alpha, power) if effect else None


def seeds_for_equality(mean: float, sd: float, margin: float, alpha: float = ALPHA) -> int | None:
    """Return the pairs with which the interval of a mean difference lies within ± margin with POWER, or None."""
    near, far = margin - abs(mean), margin + abs(mean)

    def power(n: np.ndarray) -> np.ndarray:
        x, root = -special.stdtrit(n - 1, alpha / 2), np.sqrt(n) / sd
        return _upper_tail(x, n, near * root) + _upper_tail(x, n, far * root) - 1

    return _fewest(near / sd, alpha, power) if near > 0 else None
