"""The probability that one architecture beats another on the same seed, with an exact interval."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from launch.report.analysis.stats import ALPHA


class Share(NamedTuple):
    """A share of seeds and its 95 % interval."""

    share: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.share:.2f} ({self.low:.2f} to {self.high:.2f})"


def share_of(successes: float, n: int) -> Share:
    """Return the share of n trials that succeeded, with the interval of Clopper and Pearson.

    Trials may succeed in part: a mean of n numbers between 0 and 1 scatters no more than a share of n trials does.
    """
    low = float(special.betaincinv(successes, n - successes + 1, ALPHA / 2)) if successes > 0 else 0.0
    high = float(special.betaincinv(successes + 1, n - successes, 1 - ALPHA / 2)) if successes < n else 1.0
    return Share(successes / n, low, high)


def shared_seeds(scores: Sequence[Mapping[int, float]]) -> list[int]:
    """Return the seeds that all of these have."""
    first, *others = scores
    return sorted(set(first).intersection(*others))


def superiority(
    first: Sequence[Mapping[int, float]], second: Sequence[Mapping[int, float]], higher_is_better: bool | None
) -> Share | None:
    """Return the probability that the second beats the first on a seed, averaged over data sets.

    Values by seed, a mapping for each data set; ties count one half; None if no seed has all of them. Seeds are the
    trials, since one seed's results on several data sets may depend on each other.
    """
    if not (seeds := shared_seeds([*first, *second])):
        return None
    sign = -1.0 if higher_is_better is False else 1.0
    difference_DS = np.array([[b[seed] - a[seed] for seed in seeds] for a, b in zip(first, second, strict=True)])
    won_DS = (1 + np.sign(sign * difference_DS)) / 2
    return share_of(float(won_DS.mean(0).sum()), len(seeds))
