"""How often verdicts err, by simulation: seeds of an architecture scatter with an SD of 0.1 points."""

import itertools
import math

import numpy as np
import pytest

from launch.report.analysis import verdicts
from launch.report.analysis.stats import ALPHA, FEWEST_PAIRS, PairedTest, compare, seeds_needed
from launch.report.analysis.verdicts import judge

STUDIES = 2_000


@pytest.fixture
def without_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seeds that are lacking take most of the time, and are of no matter here."""
    monkeypatch.setattr(verdicts, "seeds_needed", lambda effect, alpha: None)
    monkeypatch.setattr(verdicts, "seeds_for_equality", lambda mean, sd, margin, alpha: None)


SLACK = 4 * math.sqrt(0.05 * 0.95 / STUDIES)
"""Four standard errors of a rate of 5 %."""


def draw(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return seeds' deviations with an SD of 0.1, of two architectures that are exchangeable."""
    if kind == "skewed":
        return 0.1 * rng.exponential(1, shape)
    return 0.1 * (rng.standard_t(4, shape) / math.sqrt(2) if kind == "long tails" else rng.normal(0, 1, shape))


@pytest.mark.slow
@pytest.mark.usefixtures("without_search")
@pytest.mark.parametrize("n", [3, 5, 10, 30, 100])
@pytest.mark.parametrize("kind", ["normal", "skewed", "long tails"])
def test_better_and_equal_are_false_in_at_most_one_study_of_twenty(kind: str, n: int) -> None:
    """One pair; intervals cover in 95 % of normal studies, and hardly less of others."""
    a_Sn, b_Sn = draw(np.random.default_rng(n), kind, (2, STUDIES, n))
    for difference in (0.0, 0.05, 0.1, 0.5):
        tests = [compare(dict(enumerate(a)), dict(enumerate(b + difference))) for a, b in zip(a_Sn, b_Sn, strict=True)]
        judged = [judge([test], 0.1)[0] for test in tests]
        wrong = [v.outcome == "better" and (difference == 0 or (v.interval or (0, 0))[1] < 0) for v in judged]
        assert np.mean(wrong) <= 0.05 + SLACK
        if difference >= 0.1:
            assert np.mean([v.outcome == "equal" for v in judged]) <= 0.05 + SLACK
        covered = np.mean([v.interval[0] <= difference <= v.interval[1] for v in judged if v.interval])
        assert covered == pytest.approx(0.95, abs=SLACK) if kind == "normal" else covered >= 0.95 - SLACK


@pytest.mark.usefixtures("without_search")
@pytest.mark.parametrize(
    ("n", "truth"),
    [
        (10, [0, 0, 0, 0]),
        (10, [0, 0, 0.5, 0.5]),
        (10, [0, 0.1, 0.1, 0.6]),
        (30, [0, 0.1, 0.2, 0.3, 0.4]),  # all differ certainly, four pairs by the margin
    ],
)
def test_a_whole_study_errs_in_at_most_one_of_twenty(n: int, truth: list[float]) -> None:
    """All pairs of four or five architectures on seeds that share a part: any false statement counts."""
    rng = np.random.default_rng(1)
    false_better = false_equal = 0
    for _ in range(STUDIES):
        x = rng.normal(0, 0.1, (len(truth), n)) + rng.normal(0, 0.1, n) + np.array(truth)[:, None]
        pairs = list(itertools.combinations(range(len(truth)), 2))
        found = judge([compare(dict(enumerate(x[a])), dict(enumerate(x[b]))) for a, b in pairs], 0.1)
        gaps = [truth[b] - truth[a] for a, b in pairs]
        judged = [(v.outcome, gap, (v.interval or (0, 0))[0]) for v, gap in zip(found, gaps, strict=True)]
        false_better += any(outcome == "better" and (gap == 0 or low < 0) for outcome, gap, low in judged)
        false_equal += any(outcome == "equal" and gap > 0.1 - 1e-9 for outcome, gap, _ in judged)
    assert false_better / STUDIES <= 0.05 + SLACK
    assert false_equal / STUDIES <= 0.05 + SLACK


@pytest.mark.slow
@pytest.mark.parametrize(("n", "effect", "rate"), [(5, 0.5, 0.80), (10, 0.5, 0.91), (5, 0.7, 0.88), (10, 0.3, 0.77)])
def test_unknown_studies_that_train_as_many_seeds_as_they_said_mostly_decide(
    n: int, effect: float, rate: float
) -> None:
    """The number is from the pilot's own mean and SD, so that it is right on average only."""
    rng, decided = np.random.default_rng(n), list[bool]()
    for _ in range(STUDIES):
        pilot = rng.normal(effect, 1, n)
        verdict = judge(paired(pilot[None]))[0]
        if verdict.outcome == "unknown" and verdict.more is not None and verdict.more < 20_000:
            whole = np.concatenate([pilot, rng.normal(effect, 1, verdict.more)])
            decided.append(judge(paired(whole[None]))[0].outcome == "better")
    assert np.mean(decided) == pytest.approx(rate, abs=0.03)


@pytest.mark.parametrize(("n", "rate"), [(3, 0.15), (5, 0.13), (10, 0.11)])
def test_looking_again_after_each_extension_makes_a_false_better_more_likely(n: int, rate: float) -> None:
    """Two alike; up to 1,000 seeds, as many as each look says. Of the seeds of the first extension alone 5 % err."""
    rng, false, alone = np.random.default_rng(n), list[bool](), list[bool]()
    for _ in range(STUDIES):
        d, first = rng.normal(0, 1, n), True
        verdict = judge(paired(d[None]))[0]
        while verdict.outcome == "unknown" and verdict.more is not None and len(d) + verdict.more <= 1000:
            more = rng.normal(0, 1, verdict.more)
            if first and len(more) >= FEWEST_PAIRS:
                alone.append(judge(paired(more[None]))[0].outcome == "better")
            d, first = np.concatenate([d, more]), False
            verdict = judge(paired(d[None]))[0]
        false.append(verdict.outcome == "better")
    assert np.mean(false) == pytest.approx(rate, abs=0.01)
    assert np.mean(alone) <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / len(alone))


def paired(x_PSn: np.ndarray) -> list[PairedTest]:
    return [compare(dict.fromkeys(range(len(d)), 0.0), dict(enumerate(d))) for d in x_PSn]


@pytest.mark.parametrize("pairs", [1, 10])
@pytest.mark.parametrize("effect", [0.3, 0.7, 1.0])
def test_as_many_seeds_as_are_named_give_the_power(effect: float, pairs: int) -> None:
    """The other pairs of the table have no difference, so that each pair has to pass the whole correction."""
    n = seeds_needed(effect, ALPHA / pairs)
    assert n is not None
    x_Sn = np.random.default_rng(11).normal(effect, 1, (STUDIES, n))
    others = [PairedTest(n, 0.0, 1.0, 0.99)] * (pairs - 1)
    found = np.mean([judge([test, *others])[0].outcome == "better" for test in paired(x_Sn)])
    assert found == pytest.approx(0.8, abs=0.05)
