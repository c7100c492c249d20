"""The verdicts of a report: test and interval agree, whatever is compared, and the words say what they do."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from launch.report.analysis.cells import Cell, load
from launch.report.analysis.metrics import METRICS, Metric
from launch.report.analysis.sections import build_sections
from launch.report.analysis.stats import ALPHA, PairedTest, compare, holm, seeds_for_equality, seeds_needed
from launch.report.analysis.tables import pair_table
from launch.report.analysis.verdicts import MOST_SENTENCES, compare_pairs, judge, p_text, sentences
from launch.sweep.plan import Plan
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config
from tests.support.properties import few
from tests.support.sweeps import launch

ACCURACY, LOSS = METRICS[0], Metric("test_loss", "Loss", 1.0, "", digits=4, higher_is_better=False)
accuracies = st.floats(0, 1).map(lambda x: round(x, 4))
scores = st.dictionaries(st.integers(0, 9), accuracies, max_size=10)
sweeps = st.lists(scores, min_size=2, max_size=5)
margins = st.none() | st.floats(0.01, 50)


def cells_of(*scores: dict[int, float]) -> list[Cell]:
    config = resolve(Config())
    cells = []
    for i, values in enumerate(scores):
        named = config.model_copy(update={"arch": Arch(name="abcdefgh"[i])})
        rows = {seed: {"test_acc": value, "test_loss": value} for seed, value in values.items()}
        cells.append(Cell(str(i), named, Path(), rows=rows))
    return cells


@few(300)
@given(sweeps, margins)
def test_test_and_interval_never_disagree(scores: list, margin: float | None) -> None:
    pairs = compare_pairs(cells_of(*scores), ACCURACY, margin)
    tested = [pair for pair in pairs if pair.verdict.p is not None]
    beyond = holm([pair.test.p_beyond((margin or 0) / 100) for pair in tested])
    equality = {id(pair): p for pair, (p, _) in zip(tested, beyond, strict=True)}
    for pair in pairs:
        outcome, p, interval, more, within = pair.verdict
        assert (p is None) == (interval is None)
        if p is None or interval is None:
            assert (outcome, more, bool(pair.why)) == ("unknown", None, True)
            continue
        low, high = interval
        assert low <= pair.test.mean <= high
        if abs(p - ALPHA) > 1e-9:
            assert (p < ALPHA) == (low > 0 or high < 0)
        inside = margin is not None and -margin / 100 < low and high < margin / 100
        equal = inside and equality[id(pair)] < ALPHA
        assert equal or not inside or p < ALPHA, "an interval within the margin that is called unknown"
        assert outcome == ("equal" if equal else "better" if p < ALPHA else "unknown")
        assert more is None or (outcome == "unknown" and more >= 1)
        shown = [float(end) for end in ACCURACY.interval(low, high, "+", within).split(" to ")]
        assert [math.copysign(1, end) if end else 0 for end in shown] == [np.sign(end) for end in interval]
        assert (float(p_text(p, 2)) < ALPHA) == (p < ALPHA)


@few(100)
@given(sweeps, margins, st.randoms(use_true_random=False))
def test_the_verdict_turns_around_and_does_not_depend_on_the_order(scores: list, margin: float | None, rng) -> None:
    cells = cells_of(*scores)
    shuffled = rng.sample(cells, len(cells))
    there = {(pair.first.sig, pair.second.sig): pair for pair in compare_pairs(cells, ACCURACY, margin)}
    for pair in compare_pairs(shuffled, ACCURACY, margin):
        turned = (pair.first.sig, pair.second.sig) not in there
        other = there[(pair.second.sig, pair.first.sig) if turned else (pair.first.sig, pair.second.sig)]
        (outcome, p, interval, more, _), expected = pair.verdict, other.verdict
        assert (outcome, p, more) == (expected.outcome, expected.p, expected.more)
        assert interval == (
            (expected.interval and turned and tuple(-x for x in expected.interval[::-1])) or expected.interval
        )
        if outcome == "better":
            assert sentences([pair], ACCURACY) == sentences([other], ACCURACY)


def test_the_order_of_folders_and_of_repeated_seeds_changes_nothing(plan: Plan, tmp_path: Path) -> None:
    first, second = load([str(plan.experiment)]).cells
    folders = [str(run.path) for cell in (first, second) for run in cell.runs]
    extra = first.runs[0].path.with_name("0-9")
    extra.mkdir()
    (extra / "config.yaml").write_text(first.runs[0].config.read_text())
    (extra / "results.jsonl").write_text('{"seed": 0, "status": "finished", "test_acc": 0.1}\n')
    expected = build_sections(load([*folders, str(extra)]), tmp_path)[0].panels[0]
    for order in itertools.permutations([*folders[1:3], folders[0], str(extra), folders[3]]):
        panel = build_sections(load(order), tmp_path)[0].panels[0]
        assert (panel.verdicts, panel.matrix) == (expected.verdicts, expected.matrix)


def differing(mean: float, sd: float, n: int = 9) -> list[dict[int, float]]:
    """Return scores whose differences have exactly this mean and SD."""
    d = np.linspace(-1, 1, n)
    return [dict.fromkeys(range(n), 0.5), dict(enumerate(0.5 + mean + sd * d / d.std(ddof=1)))]


def test_verdicts_in_words() -> None:
    """t(0.975, 8) = 2.306004, and an SD of 0.003 / sqrt(9) is 0.1 points."""
    (pair,) = compare_pairs(cells_of(*differing(0.0073, 0.003)), ACCURACY)
    better = "b beats a by 0.73 points (95 % 0.50 to 0.96, n = 9 pairs, p < 0.001)"
    assert sentences([pair], ACCURACY) == [better]
    assert sentences(compare_pairs(cells_of(*differing(-0.0073, 0.003)), ACCURACY), ACCURACY) == [
        "a beats b by 0.73 points (95 % 0.50 to 0.96, n = 9 pairs, p < 0.001)"
    ]
    assert sentences(compare_pairs(cells_of(*differing(0.0073, 0.003)), LOSS), LOSS)[0].startswith(
        "a beats b by 0.0073 ("
    )
    neither = Metric("test_acc", "Odd", 1.0, "", digits=4, higher_is_better=None)
    assert sentences([pair], neither)[0].startswith("b is above a by 0.0073 (")
    close = cells_of(*differing(0.0001, 0.003))
    wide = "95 % -0.22 to +0.24, n = 9 pairs, p = 0.92"
    (unknown,) = sentences(compare_pairs(close, ACCURACY, 0.2), ACCURACY, 0.2)
    needed = f"about {compare_pairs(close, ACCURACY, 0.2)[0].verdict.more} more seeds would tell"
    assert unknown == f"a and b: unknown (b - a = +0.01 points, {wide}); {needed}"
    assert sentences(compare_pairs(close, ACCURACY, 0.25), ACCURACY, 0.25) == [
        f"a and b: equal within 0.25 points ({wide})"
    ]
    assert sentences(compare_pairs(close, LOSS, 0.25), LOSS, 0.25)[0].startswith("a and b: unknown"), (
        "a margin is of shares"
    )
    small = differing(0.0003, 0.0001)  # better, and too little to matter
    assert "b beats a" in sentences(compare_pairs(cells_of(*small), ACCURACY), ACCURACY)[0]
    assert "equal within 0.1" in sentences(compare_pairs(cells_of(*small), ACCURACY, 0.1), ACCURACY, 0.1)[0]
    assert "more than 100,000 seeds" in sentences(compare_pairs(cells_of(*differing(0, 0.003)), ACCURACY), ACCURACY)[0]
    few_seeds = compare_pairs(cells_of({0: 0.1, 1: 0.2}, {0: 0.3, 1: 0.5}), ACCURACY)
    assert sentences(few_seeds, ACCURACY) == ["a and b: unknown; fewer than 3 shared seeds"]
    same = compare_pairs(cells_of({0: 0.1, 1: 0.2, 2: 0.2}, {0: 0.3, 1: 0.4, 2: 0.4}), ACCURACY)
    assert sentences(same, ACCURACY)[0].endswith(
        "the difference is the same on every seed, which a t test cannot judge"
    )


def test_verdicts_are_corrected_ordered_and_limited() -> None:
    a, b = differing(0.0073, 0.003)
    words = sentences(compare_pairs(cells_of(a, b, a), ACCURACY), ACCURACY)
    assert [text.split(" (")[0] for text in words[:2]] == ["b beats a by 0.73 points", "b beats c by 0.73 points"]
    assert words[2].startswith("a and c: unknown; the difference is the same")
    assert "p < 0.001 after Holm" in words[0]
    many = sentences(compare_pairs(cells_of(*([a, b] * 4)), ACCURACY), ACCURACY)
    assert len(many) == MOST_SENTENCES + 1
    assert many[-1] == "13 more in the table of pairs: 1 better, 0 equal, 12 unknown"


def test_lacking_seeds_are_corrected_for_the_undecided_pairs() -> None:
    undecided, clear = PairedTest(10, 0.3, 1.0, 0.4), PairedTest(10, 9.0, 1.0, 1e-9)
    for tests, alpha in (([undecided], 0.05), ([undecided] * 3, 0.05 / 3), ([clear, *[undecided] * 3], 0.05 / 3)):
        assert judge(tests)[-1].more == (seeds_needed(0.3, alpha) or 0) - 10
    (within,) = judge([PairedTest(10, 0.0, 1.0, 0.9)], 0.5)
    assert within.more == (seeds_for_equality(0.0, 1.0, 0.5) or 0) - 10


def test_equality_is_two_one_sided_tests_that_are_corrected_for_all_pairs() -> None:
    first, second = differing(0.006, 0.003)
    differences = [second[seed] - first[seed] for seed in first]
    ends = ((0.0085, "less"), (-0.0085, "greater"))
    sides: list[Any] = [scipy_stats.ttest_1samp(differences, end, alternative=side) for end, side in ends]
    pair, clear = compare(first, second), PairedTest(9, 9.0, 1.0, 1e-9)
    p = pair.p_beyond(0.0085)
    assert p == pytest.approx(max(side.pvalue for side in sides))
    assert ALPHA / 3 < p < ALPHA / 2  # so that the interval is within the margin, whose level is 5 % for a last pair
    for others, outcome in ((0, "equal"), (1, "equal"), (2, "better"), (3, "better")):
        assert judge([pair, *[clear] * others], 0.0085)[0].outcome == outcome


def test_an_end_that_rounds_to_zero_shows_its_side() -> None:
    assert ACCURACY.interval(0.00001, 0.002, "+") == "+0.001 to +0.200"
    assert ACCURACY.interval(-0.00001, 0.0) == "-0.001 to 0.000"
    assert ACCURACY.interval(-0.001, 0.002) == "-0.10 to 0.20"
    assert ACCURACY.interval(-0.0020049, 0.0019, "+", 0.002) == "-0.2005 to +0.1900", "not within 0.2 points"
    assert ACCURACY.interval(-0.0019951, 0.0019, "+", 0.002) == "-0.1995 to +0.1900", "within 0.2 points"
    beyond = compare_pairs(cells_of(*differing(0.0001, 0.003)), ACCURACY, 0.2404)
    assert "95 % -0.221 to +0.241, " in sentences(beyond, ACCURACY, 0.2404)[0]
    assert pair_table(beyond, ACCURACY).rows[0][4].text == "-0.221 to +0.241"
    assert p_text(0.049996, 2) == "0.049996"
    assert p_text(0.0312, 2) == "0.031"


@pytest.mark.slow
def test_the_command_states_the_margin(plan: Plan) -> None:
    done = launch("report", plan.experiment, "--equal", "3", "--out", plan.experiment / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mnist: cnn and stn_slx: equal within 3 points (95 % +1")
    text = (plan.experiment / "out" / "report.md").read_text()
    assert "- cnn and stn_slx: equal within 3 points" in text
    assert "within ± 3 points: equal" in text
    assert "equal within 3 points" in (plan.experiment / "out" / "index.html").read_text()
    for margin in ("-1", "a lot", "nan", ""):
        refused = launch("report", plan.experiment, "--equal", margin)
        stated = "give a difference between 0 and 100 points, as in --equal 0.1"
        assert (refused.returncode, refused.stderr) == (2, f"error: --equal {margin}: {stated}\n")
