"""The matrix and the table of pairs over data sets."""

from collections.abc import Sequence

from launch.report.across.pairs import AcrossPair
from launch.report.analysis.metrics import Metric
from launch.report.analysis.tables import Entry, Table, mark_of, p_entry, verdict_interval
from launch.report.analysis.verdicts import p_in_words


def _p(pair: AcrossPair) -> str:
    return "no test" if pair.verdict.p is None else p_in_words(pair.verdict.p)


def _matrix_entry(pair: AcrossPair, sign: float, metric: Metric) -> Entry:
    """Return second - first (sign 1) or first - second (sign -1)."""
    wins, losses = (pair.wins, pair.losses) if sign > 0 else (pair.losses, pair.wins)
    counts = f"{wins}/{pair.ties}/{losses}"
    if not pair.test.n:
        return Entry(f"no seed on all {len(pair.datasets)}, {counts}", mark="unknown")
    mean = sign * pair.test.mean
    row, column = (pair.second, pair.first) if sign > 0 else (pair.first, pair.second)
    facts = [f"{row} - {column}: {metric.difference(mean, '+')} on {', '.join(pair.datasets)}"]
    if pair.verdict.interval:
        low, high = sorted(sign * end for end in pair.verdict.interval)
        facts.append(f"95 % interval {metric.interval(low, high, '+', pair.verdict.margin)}")
    facts += [f"{pair.test.n} seeds", f"wins/ties/losses {counts}"]
    text = f"{metric.format(mean, '+')}, {counts}, {_p(pair)}"
    return Entry(text, mean, "", mark_of(pair.verdict, mean, metric), ", ".join(facts))


def matrix(labels: Sequence[str], pairs: Sequence[AcrossPair], metric: Metric) -> Table:
    """Return mean difference, wins/ties/losses and p of every row against every column."""
    entries: dict[tuple[str, str], Entry] = {}
    for pair in pairs:
        entries[pair.second, pair.first] = _matrix_entry(pair, 1.0, metric)
        entries[pair.first, pair.second] = _matrix_entry(pair, -1.0, metric)
    rows = [[Entry(row), *(entries.get((row, column), Entry("")) for column in labels)] for row in labels]
    return Table(["row - column", *labels], rows)


def pair_table(pairs: Sequence[AcrossPair], metric: Metric) -> Table:
    """Return the table with a row for every two architectures."""
    headings = ["second - first", "data sets", "seeds", f"difference{metric.difference_unit}", "95 % interval"]
    headings += ["p (t test)", "wins", "ties", "losses"]
    headings.append("P(second above first)" if metric.higher_is_better is None else "P(second better)")
    ranked = any(pair.wilcoxon is not None for pair in pairs)
    headings += ["p over data sets (Wilcoxon)"] if ranked else []
    rows = []
    for pair in pairs:
        label, test = f"{pair.second} - {pair.first}", pair.test
        row = [Entry(label, label), Entry.number(len(pair.datasets)), Entry.number(test.n)]
        row.append(Entry(metric.format(test.mean, "+"), test.mean) if test.n else Entry("-"))
        row += [verdict_interval(metric, pair.verdict), p_entry(pair.verdict.p)]
        row += [Entry.number(count) for count in (pair.wins, pair.ties, pair.losses)]
        row.append(Entry(str(pair.share), pair.share.share) if pair.share else Entry("-"))
        row += [Entry.number(pair.wilcoxon, ".4g")] if ranked else []
        rows.append(row)
    return Table(headings, rows)
