"""Every cell of a report against the same cell of an earlier one, by the rule of the verdicts.

The p-values are corrected for all cells of the report: whether anything got worse is one question.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from launch.report.analysis.cells import Cell
from launch.report.analysis.metrics import Metric
from launch.report.analysis.sections import Section
from launch.report.analysis.stats import FEWEST_PAIRS, PairedTest, compare
from launch.report.analysis.tables import Entry, Table, mark_of, p_entry, verdict_interval
from launch.report.analysis.verdicts import Verdict, judge, p_in_words, seeds_in_words
from launch.report.earlier.read import EarlierCell, shown
from launch.report.provenance.environments import environments
from launch.report.provenance.signature import digest, signature
from launch.sweep.status import plural
from stn.config.seed_list import format_seeds


class Change(NamedTuple):
    """A cell now, compared with what it was."""

    cell: Cell
    before: EarlierCell
    metric: Metric
    test: PairedTest
    verdict: Verdict
    mark: str
    """better, worse, real, equal or unknown, or same: every shared seed has the same value."""
    failing: list[int]
    """Seeds that had finished and have failed now."""

    @property
    def name(self) -> str:
        return f"{self.cell.dataset}, {self.cell.label}"

    @property
    def is_worse(self) -> bool:
        return self.mark == "worse" or bool(self.failing)


class Against(NamedTuple):
    """A report against an earlier one."""

    source: str
    changes: list[Change]
    lines: list[str]
    table: Table
    notes: list[str]
    signature: str

    @property
    def worse(self) -> list[str]:
        return [change.name for change in self.changes if change.is_worse]


def _match(cell: Cell, earlier: Sequence[EarlierCell]) -> EarlierCell | None:
    """Return what a cell was: of the same setting, else of the same signature."""
    same = [old for old in earlier if (old.dataset, old.arch) == (cell.dataset, cell.arch)]
    settings = [old for old in same if old.setting == cell.setting]
    signatures = [old for old in same if old.sig == cell.sig]
    for candidates in ([old for old in settings if old.sig == cell.sig], settings, signatures):
        if len(candidates) == 1:
            return candidates[0]
    return None


def _sentence(change: Change, margin: float | None, corrected: str) -> str:
    test, verdict, metric = change.test, change.verdict, change.metric
    failing = f"; seeds {format_seeds(change.failing)} had finished and have failed now" if change.failing else ""
    if change.mark == "same":
        return f"{change.name}: the same on all {plural(test.n, 'shared seed')}{failing}"
    if verdict.interval is None or verdict.p is None:
        few = test.n < FEWEST_PAIRS
        why = f"fewer than {FEWEST_PAIRS} shared seeds" if few else "it changed by the same on every seed"
        return f"{change.name}: unknown; {why}{failing}"
    n, p = plural(test.n, "pair"), p_in_words(verdict.p)
    facts = f"95 % {metric.interval(*verdict.interval, '+', verdict.margin)}, n = {n}, {p}{corrected}"
    by = metric.difference(test.mean, "+")
    words = {"equal": f"equal within {margin:g} points" if margin else "", "real": "different"}
    more = f"; {seeds_in_words(verdict)} would tell" if change.mark == "unknown" else ""
    return f"{change.name}: {words.get(change.mark, change.mark)} ({by}, {facts}){more}{failing}"


def _table(changes: Sequence[Change]) -> Table:
    headings = ["architecture", "data set", "now - before", "pairs", "before", "now", "difference"]
    headings += ["95 % interval (Holm)", "p (t test, Holm)", "configuration"]
    rows = []
    for change in changes:
        metric, test = change.metric, change.test
        shared = sorted(change.before.numbers.get(metric.key, {}).keys() & change.cell.values(metric.key).keys())
        old = [change.before.numbers[metric.key][seed] for seed in shared]
        mean = sum(old) / len(old) if old else None
        row = [Entry(change.cell.label, change.cell.label), Entry(change.cell.dataset, change.cell.dataset)]
        row += [Entry.verdict(change.mark), Entry.number(test.n), Entry(metric.format(mean), mean)]
        now = None if mean is None else mean + test.mean
        row += [Entry(metric.format(now), now), Entry(metric.format(test.mean, "+") if test.n else "-", test.mean)]
        row += [verdict_interval(metric, change.verdict), p_entry(change.verdict.p)]
        same = change.before.sig == change.cell.sig
        rows.append([*row, Entry("the same" if same else "another" if change.before.sig else "not recorded")])
    return Table(headings, rows)


def _notes(sections: Sequence[Section], earlier: Sequence[EarlierCell], changes: Sequence[Change]) -> list[str]:
    """Return what has no counterpart, and what the earlier rows lack."""
    used, cells = {id(change.before) for change in changes}, {id(change.cell) for change in changes}
    gone = [shown(old.name) for old in earlier if id(old) not in used]
    new = [f"{cell.label} on {cell.dataset}" for section in sections for cell in section.cells if id(cell) not in cells]
    lacking = [change.name for change in changes if not change.before.numbers.get(change.metric.key)]
    notes = [f"only in the earlier report: {', '.join(gone)}"] if gone else []
    notes += [f"not in the earlier report: {', '.join(new)}"] if new else []
    return notes + ([f"the earlier report has no values for {', '.join(lacking)}"] if lacking else [])


def compare_with(
    earlier: Sequence[EarlierCell], source: Path, sections: Sequence[Section], margin: float | None = None
) -> Against:
    """Compare a report's cells with earlier ones; ValueError if they have none in common. The margin is in points."""
    found = []
    for section in sections:
        metric = section.panels[0].metric
        found += [(cell, old, metric) for cell in section.cells if (old := _match(cell, earlier))]
    if not found:
        here = [f"{cell.label} on {section.name}" for section in sections for cell in section.cells]
        here = here or ["no cell"]
        there = [shown(old.name) for old in earlier]
        raise ValueError(
            f"--against {source}: nothing in common; it has {', '.join(there[:5])}, this report {', '.join(here[:5])}"
        )
    tests, changed = [], []
    for cell, old, metric in found:
        before, now = old.numbers.get(metric.key, {}), cell.values(metric.key)
        tests.append(compare(before, now))
        changed.append(any(before[seed] != now[seed] for seed in before.keys() & now.keys()))
    margins = [metric.margin(margin) for *_, metric in found]
    verdicts = judge(tests, margins)
    changes = []
    for (cell, old, metric), test, verdict, moved in zip(found, tests, verdicts, changed, strict=True):
        failing = sorted(seed for seed in cell.failed if old.seeds.get(seed) == "finished")
        mark = mark_of(verdict, test.mean, metric) if moved or not test.n else "same"
        changes.append(Change(cell, old, metric, test, verdict, mark, failing))
    ordered = sorted(changes, key=lambda change: (not change.is_worse, change.mark == "same"))
    corrected = " after Holm" if sum(test.p is not None for test in tests) > 1 else ""
    cells = [change.cell for change in changes]
    test = "paired-t,holm" + (f",equal-{margin:g}" if any(margins) else "")
    metrics = [metric for *_, metric in found]
    sign = signature(cells, metrics, environments(cells), test, [test.n for test in tests])
    old_values = [
        (old.dataset, old.sig, *item) for _, old, metric in found for item in old.numbers.get(metric.key, {}).items()
    ]
    lines = [_sentence(change, margin, corrected) for change in ordered]
    notes = _notes(sections, earlier, changes)
    return Against(str(source), changes, lines, _table(ordered), notes, f"{sign}|against:{digest(old_values)}")
