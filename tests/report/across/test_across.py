"""What a report says over data sets, against computations from the rows alone."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from launch.report.across.overview import build_across
from launch.report.across.pairs import compare_across, pairs_across, share_of, superiority
from launch.report.across.profiles import profiles
from launch.report.analysis.cells import Comparison
from launch.report.analysis.metrics import METRICS
from launch.report.analysis.sections import build_sections
from tests.support.across import DATASETS, Sweep, cells_of, sweep
from tests.support.properties import few

ACCURACY = METRICS[0]
LOSS = next(metric for metric in METRICS if metric.key == "test_loss")


def across(values: Sweep, margin: float | None = None) -> Any:
    found = build_across(build_sections(Comparison("x", cells_of(values), []), Path(), margin), margin)
    assert found
    return found


def test_numbers_are_those_of_the_rows() -> None:
    values = sweep()
    found = across(values)
    assert (found.datasets, len(found.pairs)) == (list(DATASETS), 3)
    for pair in found.pairs:
        d_DS = np.array([[values[pair.second][d][s] - values[pair.first][d][s] for s in range(10)] for d in DATASETS])
        test: Any = scipy_stats.ttest_1samp(d_DS.mean(0), 0)
        assert pair.verdict.p == pytest.approx(test.pvalue)
        assert pair.verdict.interval == pytest.approx(tuple(test.confidence_interval(0.95)))
        alone = [tuple(scipy_stats.ttest_1samp(d_S, 0))[1] < 0.05 for d_S in d_DS]
        wins = sum(a and d.mean() > 0 for a, d in zip(alone, d_DS, strict=True))
        losses = sum(a and d.mean() < 0 for a, d in zip(alone, d_DS, strict=True))
        assert (pair.wins, pair.ties, pair.losses) == (wins, 3 - wins - losses, losses)
        won = float((d_DS > 0).mean(0).sum())  # of ten seeds
        low, high = scipy_stats.beta.ppf([0.025, 0.975], [won, won + 1], [11 - won, 10 - won])
        assert pair.share == pytest.approx((won / 10, low, 1 if won == 10 else high), nan_ok=False)
        heads, rows = found.matrix.headings, {row[0].text: row for row in found.matrix.rows}
        field = rows[pair.second][heads.index(pair.first)]
        p = "p < 0.001" if test.pvalue < 0.001 else f"p = {test.pvalue:.2g}"
        assert field.text == f"{100 * d_DS.mean():+.2f}, {wins}/{3 - wins - losses}/{losses}, {p}"
        mirrored = rows[pair.first][heads.index(pair.second)]
        assert mirrored.text == f"{-100 * d_DS.mean():+.2f}, {losses}/{3 - wins - losses}/{wins}, {p}"


def test_another_architecture_changes_no_entry() -> None:
    three, four = sweep(3), sweep(4) | sweep(3)
    before, after = across(three, 0.1), across(four, 0.1)
    for row in before.matrix.rows:
        wider = next(other for other in after.matrix.rows if other[0] == row[0])
        assert (
            dict(zip(before.matrix.headings, row, strict=True)).items()
            <= dict(zip(after.matrix.headings, wider, strict=True)).items()
        )
    assert set(map(tuple, before.pair_table.rows)) <= set(map(tuple, after.pair_table.rows))
    assert set(map(tuple, before.profile_table.rows)) <= set(map(tuple, after.profile_table.rows))


def test_only_what_is_shared_counts() -> None:
    values = sweep(2)
    del values["cnn"]["mnist_p"]
    values["cnn"]["mnist"] = {s: v for s, v in values["cnn"]["mnist"].items() if s < 6}
    values["cnn"]["mnist_r"] = {s: v for s, v in values["cnn"]["mnist_r"].items() if s > 2}
    (pair,) = across(values).pairs
    assert (pair.datasets, pair.test.n) == (["mnist", "mnist_r"], 3)
    values["cnn"]["mnist_r"] = {s + 100: v for s, v in values["cnn"]["mnist_r"].items()}
    values["stn_c0"]["mnist_r"] |= {s + 100: v for s, v in values["stn_c0"]["mnist_r"].items()}
    found = across(values)
    (pair,) = found.pairs
    assert (pair.test.n, pair.verdict.p, pair.share) == (0, None, None)
    assert found.matrix.rows[0][2].text.startswith("no seed on all 2, ")


def test_a_report_of_one_data_set_has_no_such_part() -> None:
    sections = build_sections(Comparison("x", cells_of(sweep(2, datasets=("mnist",))), []), Path())
    assert build_across(sections) is None
    lonely = {"cnn": sweep(2)["cnn"], "stn_c0": {"mnist_r": {}}}
    assert build_across(build_sections(Comparison("x", cells_of(lonely), []), Path())) is None
    assert build_across([]) is None


def test_a_margin_makes_ties_and_equal() -> None:
    values = {"cnn": sweep(1)["cnn"]}
    values["stn_c0"] = {d: {s: v + 1e-4 + 1e-6 * (s % 3) for s, v in of.items()} for d, of in values["cnn"].items()}
    (pair,) = across(values).pairs
    assert (pair.wins, pair.ties, pair.verdict.outcome) == (3, 0, "better")
    assert "within ± 0.1 points is a tie" in across(values, 0.1).rule
    (pair,) = across(values, 0.1).pairs
    assert (pair.wins, pair.ties, pair.verdict.outcome) == (0, 3, "equal")


def test_a_loss_is_better_where_it_is_lower() -> None:
    values = sweep(2)
    first, second = values["cnn"], values["stn_c0"]
    up = compare_across(("a", "b"), first, second, ACCURACY, None)
    down = compare_across(("a", "b"), first, second, LOSS, None)
    assert (down.wins, down.losses) == (up.losses, up.wins)
    assert up.share
    assert down.share
    assert down.share.share == pytest.approx(1 - up.share.share)


def test_wilcoxon_is_given_from_six_data_sets_on() -> None:
    rng = np.random.default_rng(0)
    a = {str(d): dict(enumerate(rng.normal(0.9, 0.01, 5))) for d in range(6)}
    b = {str(d): dict(enumerate(rng.normal(0.905, 0.01, 5))) for d in range(6)}
    (pair,) = pairs_across({"a": a, "b": b}, ACCURACY)
    d = [np.mean(list(b[k].values())) - np.mean(list(a[k].values())) for k in a]
    assert pair.wilcoxon == pytest.approx(tuple(scipy_stats.wilcoxon(d))[1])
    del a["5"]
    assert pairs_across({"a": a, "b": b}, ACCURACY)[0].wilcoxon is None


@few(100)
@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_shares_have_the_exact_interval(counts: tuple[int, int]) -> None:
    k, n = counts
    expected = scipy_stats.binomtest(k, n).proportion_ci(method="exact")
    assert share_of(k, n) == pytest.approx((k / n, expected.low, expected.high))


def test_ties_count_half() -> None:
    first, second = {0: 0.5, 1: 0.5, 2: 0.5, 3: 0.5, 9: 1.0}, {0: 0.6, 1: 0.4, 2: 0.5, 3: 0.7}
    found = superiority([first], [second], True)
    assert found
    assert found.share == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    assert superiority([first], [{7: 1.0}], True) is None


def test_intervals_of_shares_cover() -> None:
    """2,000 studies each, of three data sets that depend on each other through the seed as much as is named."""
    rng = np.random.default_rng(1)
    for n, dependence, truth in itertools.product((5, 10, 30), (0.0, 0.7, 1.0), (0.5, 0.8)):
        shift, hits = scipy_stats.norm.ppf(truth), 0
        for _ in range(2000):
            common = rng.normal(size=n)
            d_DS = shift + np.sqrt(dependence) * common + np.sqrt(1 - dependence) * rng.normal(size=(3, n))
            share = share_of(float((d_DS > 0).mean(0).sum()), n)
            hits += share.low <= truth <= share.high
        assert hits / 2000 >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / 2000), (n, dependence, truth)


def test_profiles_are_shares_of_results() -> None:
    values = sweep(2)
    values["cnn"]["mnist"] = {s: v for s, v in values["cnn"]["mnist"].items() if s < 4}  # weighs no less
    found = {each.label: each for each in profiles(values, ACCURACY)}
    for label, each in found.items():
        for x, share in zip(each.x, each.share, strict=True):
            of_sets = [np.mean([1 - v <= x for v in of.values()]) for of in values[label].values()]
            assert share == pytest.approx(np.mean(of_sets))
        assert (each.share[-1], list(each.x)) == (1.0, sorted(set(each.x)))
        assert (each.low <= each.share).all()
        assert (each.share <= each.high).all()
    del values["cnn"]["mnist_r"]
    assert [each.label for each in profiles(values, ACCURACY)] == ["stn_c0"], "not of all data sets"
    assert profiles({k: {d: v for d, v in of.items() if d != "mnist_r"} for k, of in values.items()}, ACCURACY) == []


def test_the_profile_table_has_the_quantiles() -> None:
    found = across(sweep(2))
    for row in found.profile_table.rows:
        errors = sorted(1 - v for of in sweep(2)[row[0].text].values() for v in of.values())
        expected = [errors[int(np.ceil(q * 30 - 1e-9)) - 1] for q in (0.25, 0.5, 0.75, 0.9)]
        assert [entry.text for entry in row[1:]] == [f"{100 * x:.2f}" for x in expected]
