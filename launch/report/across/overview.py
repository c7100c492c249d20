"""What a report says over all its data sets."""

from collections.abc import Sequence
from typing import NamedTuple

from launch.report.across import tables
from launch.report.across.pairs import AcrossPair, judged_by, pairs_across, scores_by_label
from launch.report.across.profiles import Profile, profile_table, profiles
from launch.report.analysis.metrics import Metric
from launch.report.analysis.sections import Section
from launch.report.analysis.tables import MOST_IN_MATRIX, Table
from launch.report.provenance.environments import environments
from launch.report.provenance.signature import signature


class Across(NamedTuple):
    """All data sets that are judged by one metric."""

    metric: Metric
    datasets: list[str]
    pairs: list[AcrossPair]
    matrix: Table | None
    pair_table: Table
    rule: str
    profiles: list[Profile]
    profile_table: Table | None
    signature: str


def _rule(metric: Metric, left_out: Sequence[str], margin: float | None) -> str:
    better = "differs" if metric.higher_is_better is None else "wins"
    text = (
        "Each pair stands by itself: nothing here is corrected for, or changes with, the other architectures. "
        "The difference is the mean over data sets of each seed's difference, with the t test over seeds; "
        f"an architecture {better} on a data set if p < 0.05 in the t test there, and ties otherwise; "
        "P is the share of seeds on which it is better, ties counting half, with its 95 % interval"
    )
    text += "" if margin is None else f". A difference that is certain to be within ± {margin:g} points is a tie"
    return f"{text}. Left out, because judged by another metric: {', '.join(left_out)}" if left_out else text


def build_across(sections: Sequence[Section], margin: float | None = None) -> Across | None:
    """Compare all architectures over data sets; None if no two of them share two data sets."""
    if not (metric := judged_by(sections)):
        return None
    scores = scores_by_label(sections, metric)
    pairs = pairs_across(scores, metric, margin)
    if not any(len(pair.datasets) > 1 for pair in pairs):
        return None
    names = [section.name for section in sections if section.panels[0].metric.key == metric.key]
    others = [section.name for section in sections if section.name not in names]
    cells = [cell for section in sections if section.name in names for cell in section.cells]
    test = "paired-t" + (f",equal-{margin:g}" if metric.margin(margin) else "")
    found = profiles(scores, metric)
    return Across(
        metric,
        names,
        pairs,
        tables.matrix(list(scores), pairs, metric) if len(scores) <= MOST_IN_MATRIX else None,
        tables.pair_table(pairs, metric),
        _rule(metric, others, margin if metric.unit == "%" else None),
        found,
        profile_table(found, metric) if found else None,
        signature(cells, metric, environments(cells), test, [pair.test.n for pair in pairs]),
    )
