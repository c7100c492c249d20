"""The verdict on every two architectures: better, equal or unknown, by one rule.

The t interval of their mean paired difference, at the level of Holm's correction for all pairs, decides: they are equal
if it lies within the margin that the user stated; else, if it excludes 0, one is better; else it is unknown. The
corrected p-value of the t test is below 5 % just where the interval excludes 0. Equality must pass Holm's correction of
its own tests too: the more pairs differ, the more lenient is the level of the rest, and one of these would too often be
called equal.
"""

import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple

from launch.report.analysis.cells import Cell
from launch.report.analysis.metrics import Metric
from launch.report.analysis.stats import (
    ALPHA,
    FEWEST_PAIRS,
    MOST_SEEDS,
    PairedTest,
    compare,
    holm,
    seeds_for_equality,
    seeds_needed,
)
from launch.sweep.status import plural

MOST_SENTENCES = 15
"""Verdicts of a data set in words; the table of pairs has all of them."""
Outcome = Literal["better", "equal", "unknown"]
ORDER: tuple[Outcome, ...] = ("better", "equal", "unknown")


class Verdict(NamedTuple):
    """What can be said of a pair."""

    outcome: Outcome
    p: float | None = None
    """Corrected for the number of pairs; None without a test."""
    interval: tuple[float, float] | None = None
    """Of the mean difference, at the level of the corrected test."""
    more: int | None = None
    """If unknown: seeds to add for 80 % power, should mean and SD of the differences stay; None above MOST_SEEDS."""
    margin: float | None = None
    """Within which it would be equal, in the unit of the test."""


class Pair(NamedTuple):
    """Two architectures, the second compared with the first."""

    first: Cell
    second: Cell
    test: PairedTest
    verdict: Verdict

    @property
    def why(self) -> str:
        """Why there is no test, or ''."""
        if self.test.n < FEWEST_PAIRS:
            return f"fewer than {FEWEST_PAIRS} shared seeds"
        return "" if self.test.sd else "the difference is the same on every seed, which a t test cannot judge"


def _verdict(test: PairedTest, p: float, alpha: float, margin: float | None, strict: float) -> Verdict:
    """Return the verdict at a level; ``strict`` is the level at which the interval must lie within the margin."""
    low, high = test.interval(strict)
    interval = test.interval(alpha) if p < ALPHA else (low, high)  # either has 0 just where p is 0.05 or more
    if margin is not None and -margin < low and high < margin:
        return Verdict("equal", p, interval, None, margin)
    if p < ALPHA:
        return Verdict("better", p, interval, None, margin)
    enough = [seeds_needed(test.effect, alpha)]
    if margin is not None:
        enough.append(seeds_for_equality(test.mean, test.sd, margin, strict))
    fewest = min((n for n in enough if n is not None), default=None)
    return Verdict("unknown", p, interval, None if fewest is None else max(1, fewest - test.n), margin)


def judge(tests: Sequence[PairedTest], margin: float | Sequence[float | None] | None = None) -> list[Verdict]:
    """Judge pairs, corrected for their number; differences within ± margin, in the tests' unit, count as none.

    Each test may have a margin of its own; with None nothing is equal.
    """
    margins = margin if isinstance(margin, Sequence) else [margin] * len(tests)
    tested = [(test, test.p, within) for test, within in zip(tests, margins, strict=True) if test.p is not None]
    of_equality = iter(holm([test.p_beyond(within) for test, _, within in tested if within is not None]))
    verdicts = []
    for (test, _, within), (p, alpha) in zip(tested, holm([p for _, p, _ in tested]), strict=True):
        # An interval's ends are one-sided tests at half its level.
        strict = alpha if within is None else min(alpha, 2 * next(of_equality)[1])
        verdicts.append(_verdict(test, p, alpha, within, strict))
    corrected = iter(verdicts)
    return [Verdict("unknown") if test.p is None else next(corrected) for test in tests]


def compare_pairs(cells: Sequence[Cell], metric: Metric, margin: float | None = None) -> list[Pair]:
    """Judge every two cells on the seeds that both have; the margin is in points, and of shares alone.

    A value on validation images is not compared with one on test images.
    """
    values = {id(cell): cell.values(metric.key) for cell in cells}
    pairs = [
        (first, second)
        for first, second in itertools.combinations(cells, 2)
        if metric.names_images or first.config.data.split == second.config.data.split
    ]
    tests = [compare(values[id(first)], values[id(second)]) for first, second in pairs]
    verdicts = judge(tests, metric.margin(margin))
    return [Pair(*pair, test, verdict) for pair, test, verdict in zip(pairs, tests, verdicts, strict=True)]


def p_text(p: float, digits: int) -> str:
    """Return a p-value with so many digits, or as many as show on which side of 5 % it is."""
    while (float(text := f"{p:.{digits}g}") < ALPHA) != (p < ALPHA):
        digits += 1
    return text


def p_in_words(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p_text(p, 2)}"


def seeds_in_words(verdict: Verdict) -> str:
    """Return how many more seeds would tell."""
    return f"about {plural(verdict.more, 'more seed')}" if verdict.more else f"more than {MOST_SEEDS:,} seeds"


def rule(pairs: Sequence[Pair], metric: Metric, margin: float | None) -> str:
    """Return how the verdicts of these pairs come about."""
    count = sum(pair.verdict.p is not None for pair in pairs)
    corrected = f", corrected for {count} pairs (Holm)" if count > 1 else ""
    too = ", after Holm's correction of that test too" if count > 2 else ""  # of two pairs it changes nothing
    equal = f" within ± {margin:g} points{too}: equal;" if margin is not None and metric.unit == "%" else ""
    differ = "different" if metric.higher_is_better is None else "better or worse"
    return (
        f"The 95 % t interval of the mean difference over shared seeds decides{corrected}:{equal} without 0, which is \
p < 0.05 in the t test: {differ}; otherwise: unknown"
    )


def failures(cells: Sequence[Cell]) -> list[str]:
    """Return how many seeds of these cells failed; they count in no mean and no verdict."""
    of = [(cell, len(cell.failed), len(cell.failed) + len(cell.rows)) for cell in cells if cell.failed]
    return [f"{failed} of {plural(seeds, 'seed')} of {cell.label} failed" for cell, failed, seeds in of]


def _sentence(pair: Pair, metric: Metric, margin: float | None, corrected: str) -> str:
    test, verdict, both = pair.test, pair.verdict, f"{pair.first.label} and {pair.second.label}"
    if verdict.interval is None or verdict.p is None:
        return f"{both}: unknown; {pair.why}"
    numbers = f"n = {test.n} pairs, {p_in_words(verdict.p)}{corrected}"
    larger, smaller = (pair.second, pair.first) if test.mean > 0 else (pair.first, pair.second)
    if verdict.outcome == "better":
        better, worse = (smaller, larger) if metric.higher_is_better is False else (larger, smaller)
        low, high = sorted(abs(end) for end in verdict.interval)
        verb = "is above" if metric.higher_is_better is None else "beats"
        by = metric.difference(abs(test.mean))
        interval = metric.interval(low, high, "", verdict.margin)
        return f"{better.label} {verb} {worse.label} by {by} (95 % {interval}, {numbers})"
    interval = f"95 % {metric.interval(*verdict.interval, '+', verdict.margin)}"
    if verdict.outcome == "equal":
        return f"{both}: equal within {margin:g} points ({interval}, {numbers})"
    difference = f"{pair.second.label} - {pair.first.label} = {metric.difference(test.mean, '+')}"
    return f"{both}: unknown ({difference}, {interval}, {numbers}); {seeds_in_words(verdict)} would tell"


def sentences(pairs: Sequence[Pair], metric: Metric, margin: float | None = None) -> list[str]:
    """Return the verdicts in words: what is better first, and the largest difference first."""
    corrected = " after Holm" if sum(pair.verdict.p is not None for pair in pairs) > 1 else ""
    ordered = sorted(pairs, key=lambda pair: (ORDER.index(pair.verdict.outcome), -abs(pair.test.mean or 0.0)))
    words = [
        "; ".join([_sentence(pair, metric, margin, corrected), *failures([pair.first, pair.second])])
        for pair in ordered[:MOST_SENTENCES]
    ]
    if rest := ordered[MOST_SENTENCES:]:
        counts = [f"{sum(pair.verdict.outcome == outcome for pair in rest)} {outcome}" for outcome in ORDER]
        words.append(f"{len(rest)} more in the table of pairs: {', '.join(counts)}")
    return words
