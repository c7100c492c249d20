"""The statistics of a comparison: intervals, paired tests, effect sizes, corrections, and how many seeds it takes.

Values are those of seeds; a pair is one seed under two architectures. Must not know what is compared.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

LEVEL = 0.95
"""Of all intervals."""
ALPHA = 1 - LEVEL
FEWEST_PAIRS = 6
"""With five pairs the exact test cannot fall below 1/16: no claim is made from fewer than six."""
EXACT_PAIRS = 20
"""Up to here all 2^n assignments of signs are counted; above, DRAWS of them are drawn."""
DRAWS = 100_000
POWER = 0.8
MOST_SEEDS = 100_000
"""Where the search for a number of seeds ends."""


@dataclass(frozen=True)
class Summary:
    """What the values of one architecture say; intervals need two values."""

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    median: float
    least: float
    most: float


def half_width(sd: float, n: int, m: float = math.inf) -> float:
    """Of the interval for the mean of n values, or for what it is above that of m others which scatter as they do."""
    return float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * sd * math.sqrt(1 / n + 1 / m)


def summary(values: Sequence[float]) -> Summary:
    """Mean with its Student-t interval, and order statistics, of at least one value."""
    x = np.asarray(values, dtype=float)
    n, mean = len(x), float(x.mean())
    order = float(np.median(x)), float(x.min()), float(x.max())
    if n < 2:
        return Summary(n, mean, None, None, None, *order)
    sd = float(x.std(ddof=1))
    half = half_width(sd, n)
    return Summary(n, mean, sd, mean - half, mean + half, *order)


@lru_cache(maxsize=4)
def _signs(n: int) -> list[np.ndarray]:
    """Signs for n pairs, the same for every comparison: drawing them takes longer than all else."""
    rng = np.random.default_rng(0)
    return [1 - 2 * rng.integers(0, 2, (DRAWS // 10, n), dtype=np.int8) for _ in range(10)]


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p of the mean of paired differences, were each as likely to have the other sign.

    Exact up to EXACT_PAIRS; above by draws, counting what was observed as one of them, so that it is never 0.
    """
    d = np.asarray(differences, dtype=float)
    observed = abs(d.sum())
    near = observed - 1e-12 * np.abs(d).sum()  # sums in another order differ in their last bits
    if len(d) <= EXACT_PAIRS:
        sums = np.zeros(1)
        for one in d:
            sums = np.concatenate([sums + one, sums - one])
        return float((np.abs(sums) >= near).mean())
    hits = sum(int((np.abs(part @ d) >= near).sum()) for part in _signs(len(d)))
    return float((1 + hits) / (1 + DRAWS))


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number, step down (Holm 1979): the chance of one false claim among all of them."""
    order = np.argsort(p, kind="stable")
    corrected, running = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = running
    return corrected


def seeds_needed(effect: float, power: float = POWER) -> int | None:
    """Pairs for which a paired t-test at ALPHA, two-sided, finds a standardised difference this often.

    None where more than MOST_SEEDS would be needed.
    """
    effect = abs(effect)

    def found(n: int) -> float:
        critical, shift = stats.t.ppf(1 - ALPHA / 2, n - 1), effect * math.sqrt(n)
        if shift > 30:  # where nct has no value; two pairs are enough
            return 1.0
        other = stats.nct.cdf(-critical, n - 1, shift) if shift < 4 else 0.0  # nothing then, where it has a value
        return float(stats.nct.sf(critical, n - 1, shift) + other)

    # The normal approximation is a seed or two below; from there it is a walk.
    ends = stats.norm.ppf([1 - ALPHA / 2, power])
    n = int(min(MOST_SEEDS, max(2, (ends.sum() / effect) ** 2)))
    while n > 2 and found(n - 1) >= power:
        n -= 1
    while n < MOST_SEEDS and found(n) < power:
        n += 1
    return n if found(n) >= power else None


@dataclass(frozen=True)
class Pairing:
    """Two architectures on the seeds that both have: the second's values minus the first's."""

    n: int
    difference: Summary | None
    p: float | None
    """Of the sign-flip test, not corrected; None under FEWEST_PAIRS."""
    effect: float | None
    """d_z: mean difference over the standard deviation of differences; None where that is 0 or unknown."""
    seeds: int | None
    """Seeds for 80 % power, were the effect what it seems; no fewer than a claim takes."""


def compare(first: Mapping[int, float], second: Mapping[int, float]) -> Pairing:
    """Pair values by seed; a seed that one of the two lacks is left out."""
    shared = sorted(first.keys() & second.keys())
    differences = [second[seed] - first[seed] for seed in shared]
    if not differences:
        return Pairing(0, None, None, None, None)
    found = summary(differences)
    largest = max(abs(values[seed]) for values in (first, second) for seed in shared)
    effect = found.mean / found.sd if found.sd and found.sd > 1e-12 * largest else None  # else rounding is all of it
    p = sign_flip_p(differences) if len(shared) >= FEWEST_PAIRS else None
    needed = seeds_needed(effect) if effect else None
    return Pairing(len(shared), found, p, effect, needed and max(needed, FEWEST_PAIRS))
