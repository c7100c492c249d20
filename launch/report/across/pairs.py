"""Every two architectures over the data sets that both have, compared by themselves: no correction for other pairs.

The mean difference over data sets is tested on the seeds that both architectures have on each of these data sets: a
seed's differences are averaged first, so that results of one seed on several data sets may depend on each other.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from launch.report.analysis.metrics import Metric
from launch.report.analysis.sections import Section
from launch.report.analysis.stats import ALPHA, PairedTest, compare
from launch.report.analysis.verdicts import Verdict, judge

Scores = dict[str, dict[int, float]]
"""Values by data set and seed."""
FEWEST_FOR_WILCOXON = 6
"""Data sets from which the signed-rank test can fall below 5 %."""


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


class AcrossPair(NamedTuple):
    """Two architectures by their labels, the second compared with the first."""

    first: str
    second: str
    datasets: list[str]
    test: PairedTest
    """Of the seeds' mean differences over data sets."""
    verdict: Verdict
    """As if there were no other pair."""
    wins: int
    """Data sets on which the second is better, by the same rule and without other pairs."""
    losses: int
    share: Share | None
    """The probability that the second is better on a seed, averaged over data sets."""
    wilcoxon: float | None
    """p-value of the signed-rank test of the data sets' mean differences; None with fewer than FEWEST_FOR_WILCOXON."""

    @property
    def ties(self) -> int:
        return len(self.datasets) - self.wins - self.losses


def judged_by(sections: Sequence[Section]) -> Metric | None:
    """Return the metric that most data sets are judged by; None if fewer than two share one."""
    metrics = {section.panels[0].metric.key: section.panels[0].metric for section in reversed(sections)}
    counts = Counter(section.panels[0].metric.key for section in sections)
    key, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
    return metrics[key] if count > 1 else None


def scores_by_label(sections: Sequence[Section], metric: Metric) -> dict[str, Scores]:
    """Return the values of every architecture, from the data sets that are judged by this metric."""
    scores: dict[str, Scores] = {}
    for section in sections:
        if section.panels[0].metric.key == metric.key:
            for cell in section.cells:
                if values := cell.values(metric.key):
                    scores.setdefault(cell.label, {})[section.name] = values
    return scores


def _mean_over(scores: Sequence[Mapping[int, float]], seeds: Sequence[int]) -> dict[int, float]:
    return {seed: fmean(values[seed] for values in scores) for seed in seeds}


def _signed_rank(differences: Sequence[float]) -> float | None:
    if len(differences) < FEWEST_FOR_WILCOXON or not any(differences):
        return None
    from scipy.stats import wilcoxon  # here, because it takes half a second

    result: Any = wilcoxon(differences)
    return float(result.pvalue)


def compare_across(labels: tuple[str, str], first: Scores, second: Scores, metric: Metric, margin: float | None):
    """Compare two architectures on the data sets where they share a seed; the margin is in the metric's unit."""
    datasets = [name for name in first if name in second and first[name].keys() & second[name].keys()]
    alone = [compare(first[name], second[name]) for name in datasets]
    sign = -1.0 if metric.higher_is_better is False else 1.0
    better = [sign * test.mean for test in alone if judge([test], margin)[0].outcome == "better"]
    both = [first[name] for name in datasets], [second[name] for name in datasets]
    seeds = shared_seeds([*both[0], *both[1]]) if datasets else []
    test = compare(_mean_over(both[0], seeds), _mean_over(both[1], seeds))
    return AcrossPair(
        *labels,
        datasets,
        test,
        judge([test], margin)[0],
        sum(value > 0 for value in better),
        sum(value < 0 for value in better),
        superiority(*both, metric.higher_is_better) if datasets else None,
        _signed_rank([test.mean for test in alone]),
    )


def pairs_across(scores: Mapping[str, Scores], metric: Metric, margin: float | None = None) -> list[AcrossPair]:
    """Compare every two architectures that share a data set; the margin is in points, and of shares alone."""
    scaled = metric.margin(margin)
    pairs = [compare_across((a, b), scores[a], scores[b], metric, scaled) for a, b in itertools.combinations(scores, 2)]
    return [pair for pair in pairs if pair.datasets]
