"""Performance profiles: the share of an architecture's results, over data sets and seeds, that are within an error.

After Agarwal et al. 2021, not Dolan and Moré 2002, whose profiles change with every architecture that is added. Each
data set has the same weight, whatever its seeds.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from launch.report.across.pairs import Scores, share_of
from launch.report.analysis.metrics import Metric
from launch.report.analysis.tables import Entry, Table

FEWEST_DATASETS = 3
QUANTILES = (0.25, 0.5, 0.75, 0.9)


class Profile(NamedTuple):
    """One architecture."""

    label: str
    x: np.ndarray
    """Errors (or values, where lower is better), rising."""
    share: np.ndarray
    """Of results up to x, averaged over data sets."""
    low: np.ndarray
    high: np.ndarray
    """The ends of a 95 % interval at each x, with the seeds of the data set that has the fewest."""


def profile(label: str, scores: Scores, metric: Metric) -> Profile:
    flip = bool(metric.higher_is_better)
    values = [np.sort([1 - v if flip else v for v in seeds.values()]) for seeds in scores.values()]
    x = np.unique(np.concatenate(values))
    share = np.mean([np.searchsorted(of_set, x, side="right") / len(of_set) for of_set in values], axis=0)
    n = min(map(len, values))
    ends = [share_of(min(n, s * n), n) for s in share]
    return Profile(label, x, share, np.array([e.low for e in ends]), np.array([e.high for e in ends]))


def profiles(scores: Mapping[str, Scores], metric: Metric) -> list[Profile]:
    """Return the profiles of the architectures that have all data sets; none for fewer than FEWEST_DATASETS.

    A share is turned into an error; another metric has a profile only if lower is better.
    """
    names = {name for of_arch in scores.values() for name in of_arch}
    if len(names) < FEWEST_DATASETS or not (metric.higher_is_better is False or metric.unit == "%"):
        return []
    return [profile(label, of_arch, metric) for label, of_arch in scores.items() if of_arch.keys() == names]


def profile_table(found: list[Profile], metric: Metric) -> Table:
    """Return the error within which each share of the results is."""
    what = "error" if metric.higher_is_better else "value"
    unit = f" ({metric.unit})" if metric.unit else ""
    headings = ["architecture", *(f"{q:.0%} of results within {what}{unit}".replace("%", " %", 1) for q in QUANTILES)]
    rows = []
    for each in found:
        at = [float(each.x[np.argmax(each.share >= q - 1e-12)]) for q in QUANTILES]
        rows.append([Entry(each.label, each.label), *(Entry(metric.format(x), x) for x in at)])
    return Table(headings, rows)
