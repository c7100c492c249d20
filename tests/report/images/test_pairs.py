"""Pairs compared image by image: every number against an independent computation from the answers."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from launch.report.analysis import sections
from launch.report.analysis.cells import load
from launch.report.analysis.images.pairs import ImagePair, mcnemar, p_of_seeds
from launch.report.analysis.images.pairs import over_images as compare_over_images
from launch.report.analysis.sections import Section
from launch.report.output.markdown import render_markdown
from tests.support.answers import known_images, write_run

IMAGES = known_images(600, originals=200)


def read(folder: Path) -> Section:
    (section,) = sections.build_sections(load([str(folder)]), folder / "report")
    return section


def one_pair(folder: Path) -> ImagePair:
    (pair,) = read(folder).images.pairs
    return pair


def test_mcnemar_is_the_binomial_test_on_the_discordant_images(tmp_path: Path) -> None:
    images = known_images(600)
    first = write_run(tmp_path, "cnn", range(4), images, 0.3)
    second = write_run(tmp_path, "stn_slx", range(1, 5), images, 0.1)
    pair = one_pair(tmp_path)
    assert [seed.seed for seed in pair.seeds] == [1, 2, 3]
    for seed in pair.seeds:
        a, b = (answers[seed.seed].predicted_N == images.label_N for answers in (first, second))
        table = [(a & b).sum(), (a & ~b).sum(), (~a & b).sum(), (~a & ~b).sum()]
        assert [seed.both, seed.only_first, seed.only_second, seed.neither] == table
        assert seed.p == pytest.approx(scipy_stats.binomtest(table[1], table[1] + table[2]).pvalue)
        assert seed.differ == (first[seed.seed].predicted_N != second[seed.seed].predicted_N).sum()
    assert pair.wins() == (0, 3)
    raw = sorted(seed.p for seed in pair.seeds)
    assert min(seed.corrected for seed in pair.seeds) == pytest.approx(3 * raw[0], rel=1e-9, abs=0)


def test_mcnemar_of_networks_without_a_difference_is_one() -> None:
    assert mcnemar(np.array([0, 5, 3]), np.array([0, 5, 3])).tolist() == [1, 1, 1]
    assert mcnemar(np.array([0]), np.array([10]))[0] == pytest.approx(2 / 2**10)


def test_where_images_are_perturbed_each_seed_is_tested_over_originals(tmp_path: Path) -> None:
    """200 images under three perturbations each."""
    first = write_run(tmp_path, "cnn", range(3), IMAGES, 0.3)
    second = write_run(tmp_path, "stn_slx", range(3), IMAGES, 0.28)
    for seed in one_pair(tmp_path).seeds:
        a, b = (answers[seed.seed].predicted_N == IMAGES.label_N for answers in (first, second))
        assert (seed.only_first, seed.only_second) == ((a & ~b).sum(), (b & ~a).sum())
        expected: Any = scipy_stats.ttest_1samp((b * 1.0 - a).reshape(3, 200).mean(0), 0)
        assert seed.p == pytest.approx(expected.pvalue)
    same = np.ones((2, 600), dtype=bool)
    assert p_of_seeds(same, same, 200).tolist() == [1, 1]


@pytest.mark.parametrize(("a", "b", "of_mcnemar"), [(19, 1, 0.09), (4, 0.4, 0.21), (1.5, 0.15, 0.33)])
def test_networks_that_are_alike_are_told_apart_in_one_study_of_twenty(a: float, b: float, of_mcnemar: float) -> None:
    """1,000 studies of 100 images under ten perturbations, which a network recognises more or less alike."""
    rng = np.random.default_rng(0)
    chances = rng.beta(a, b, (2, 1000, 100))
    first, second = (rng.random((1000, 1000)) < np.tile(p_SG, 10) for p_SG in chances)
    found = [np.mean(p_of_seeds(first, second, originals) < 0.05) for originals in (100, 1000)]
    assert found[0] <= 0.05 + 4 * 0.007
    assert found[1] == pytest.approx(of_mcnemar, abs=0.02)


def test_flips_are_counted_pair_by_pair(tmp_path: Path) -> None:
    first = write_run(tmp_path, "cnn", range(4), IMAGES, 0.3)
    second = write_run(tmp_path, "stn_slx", range(4), IMAGES, 0.1)
    section = read(tmp_path)
    across = np.mean([first[s].predicted_N != second[s].predicted_N for s in range(4)])
    within = [
        np.mean([answers[s].predicted_N != answers[t].predicted_N for s, t in itertools.combinations(range(4), 2)])
        for answers in (first, second)
    ]
    (block, *_) = section.images.blocks
    assert block.lines == [
        f"cnn and stn_slx answer {100 * across:.2f} % of the images differently on a shared seed, "
        f"two seeds of cnn {100 * within[0]:.2f} %, two seeds of stn_slx {100 * within[1]:.2f} %"
    ]
    text = render_markdown(load([str(tmp_path)]), [section])
    assert f"| {100 * across:.2f} | {100 * within[0]:.2f} | {100 * within[1]:.2f} |" in text


def test_the_interval_over_images_takes_perturbations_of_one_image_for_one(tmp_path: Path) -> None:
    """200 images under three perturbations each: the mean of 200 means."""
    first = write_run(tmp_path, "cnn", range(4), IMAGES, 0.3)
    second = write_run(tmp_path, "stn_slx", range(4), IMAGES, 0.1)
    right = [
        np.mean([a.predicted_N == IMAGES.label_N for a in answers.values()], axis=0) for answers in (first, second)
    ]
    d_G = (right[1] - right[0]).reshape(3, 200).mean(0)
    expected = scipy_stats.ttest_1samp(d_G, 0)
    test, ends = one_pair(tmp_path).over_images, expected.confidence_interval(0.95)
    assert (test.n, test.mean, test.p) == (200, pytest.approx(d_G.mean()), pytest.approx(expected[1]))
    assert test.interval(0.05) == pytest.approx((ends.low, ends.high))
    (row,) = read(tmp_path).images.blocks[0].table.rows  # type: ignore[union-attr]
    assert row[-1].text == f"{100 * ends.low:+.2f} to {100 * ends.high:+.2f}"
    accuracies = [[np.mean(a.predicted_N == IMAGES.label_N) for a in answers.values()] for answers in (first, second)]
    over_seeds = scipy_stats.ttest_rel(accuracies[1], accuracies[0]).confidence_interval(0.95)
    assert row[-2].text == f"{100 * over_seeds.low:+.2f} to {100 * over_seeds.high:+.2f}"


def test_the_interval_over_seeds_has_its_own_n_where_answers_are_missing(tmp_path: Path) -> None:
    for arch, wrong in (("cnn", 0.3), ("stn_slx", 0.1)):
        write_run(tmp_path, arch, range(5), IMAGES, wrong)
    (row,) = read(tmp_path).images.blocks[0].table.rows
    assert (row[1].text, "n =" in row[-2].text) == ("5", False)
    (tmp_path / "sig-cnn-mnist_r" / "0-4" / "predictions" / "seed-4.safetensors").unlink()
    section = read(tmp_path)
    (row,) = section.images.blocks[0].table.rows
    (pair,) = section.panels[0].compared
    assert pair.verdict.interval is not None
    assert row[1].text == "4"
    assert row[-2].text == f"{section.panels[0].metric.interval(*pair.verdict.interval, '+')} (n = 5)"


def test_the_interval_over_images_covers_where_perturbations_are_alike() -> None:
    """2,000 test sets of 100 images under five perturbations, all five right or wrong together."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(2000):
        d_N = np.tile(rng.choice([-1, 0, 1], 100, p=[0.1, 0.7, 0.2]), 5)
        low, high = compare_over_images(d_N, 100).interval(0.05)
        covered += low < 0.1 < high
    assert 0.935 < covered / 2000 < 0.965


def test_equal_networks_have_no_interval() -> None:
    test = compare_over_images(np.zeros(10), 10)
    assert (test.mean, test.p) == (0.0, None)
