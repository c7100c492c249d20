"""Two architectures image by image: a test on every shared seed, flips, and an interval over test images."""

import csv
import io
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from launch.report.analysis.images.answers import AnsweredSet, CellAnswers
from launch.report.analysis.metrics import Metric
from launch.report.analysis.stats import ALPHA, PairedTest, holm
from launch.report.analysis.tables import Entry, Table, verdict_interval
from launch.report.analysis.verdicts import Pair, judge


class SeedPair(NamedTuple):
    """One seed trained under two architectures, in numbers of test images."""

    seed: int
    both: int
    only_first: int
    only_second: int
    neither: int
    differ: int
    """Images that get two answers."""
    p: float
    """Of McNemar's exact test, or over originals where several images are of one."""
    corrected: float
    """The same after Holm's correction for the pair's seeds."""


class ImagePair(NamedTuple):
    """Two architectures on the seeds whose answers both have kept."""

    first: CellAnswers
    second: CellAnswers
    seeds: list[SeedPair]
    over_images: PairedTest
    """The difference of accuracies, as a mean over test images of differences that are means over these seeds."""

    @property
    def label(self) -> str:
        return f"{self.second.cell.label} - {self.first.cell.label}"

    def wins(self) -> tuple[int, int]:
        """Return on how many seeds the first network, and the second, is better by its corrected test."""
        clear = [pair for pair in self.seeds if pair.corrected < ALPHA]
        second = sum(pair.only_second > pair.only_first for pair in clear)
        return len(clear) - second, second


def mcnemar(only_first: np.ndarray, only_second: np.ndarray) -> np.ndarray:
    """Return the exact two-sided p-values of McNemar's test."""
    n, fewer = only_first + only_second, np.minimum(only_first, only_second)
    return np.minimum(1.0, 2 * special.bdtr(fewer.astype(float), n, 0.5))


def over_images(d_N: np.ndarray, originals: int) -> PairedTest:
    """Test the mean of a difference over images; perturbations of one image count as one, since they are alike."""
    original_N = np.arange(len(d_N)) % originals
    sums_G = np.bincount(original_N, d_N, minlength=originals)
    sizes_G = np.bincount(original_N, minlength=originals)
    G, N, mean = len(sums_G), len(d_N), float(d_N.mean())
    residual_G = sums_G - sizes_G * mean
    error = math.sqrt(G / (G - 1) * float((residual_G**2).sum())) / N if G > 1 else 0.0
    if error <= 1e-12:
        return PairedTest(G, mean)
    return PairedTest(G, mean, error * math.sqrt(G), float(2 * special.stdtr(G - 1, -abs(mean) / error)))


def p_of_seeds(a_SN: np.ndarray, b_SN: np.ndarray, originals: int) -> np.ndarray:
    """Return each seed's p-value that two networks, which are right on these images, do not differ.

    McNemar's test takes images to be independent. Perturbations of one image are not: with ten of each it told apart
    networks that were alike in 9 to 33 % of studies (test_pairs.py), so that these are tested over originals.
    """
    if originals >= a_SN.shape[1]:
        return mcnemar((a_SN & ~b_SN).sum(1), (b_SN & ~a_SN).sum(1))
    tests = [over_images(b_N.astype(float) - a_N, originals) for a_N, b_N in zip(a_SN, b_SN, strict=True)]
    return np.array([1.0 if test.p is None else test.p for test in tests])


def compare_images(test: AnsweredSet) -> list[ImagePair]:
    """Compare every two architectures on the seeds that both have."""
    pairs = []
    for first, second in itertools.combinations(test.cells, 2):
        shared = sorted(set(first.seeds) & set(second.seeds))
        if not shared:
            continue
        (said_a, a_SN), (said_b, b_SN) = first.of(shared), second.of(shared)
        both, only_a, only_b = (a_SN & b_SN).sum(1), (a_SN & ~b_SN).sum(1), (b_SN & ~a_SN).sum(1)
        differ, p_S = (said_a != said_b).sum(1), p_of_seeds(a_SN, b_SN, test.known[0].originals)
        counts = np.stack([both, only_a, only_b, a_SN.shape[1] - both - only_a - only_b, differ], 1).tolist()
        corrected = [p for p, _ in holm(p_S.tolist())]
        tested = zip(shared, counts, p_S.tolist(), corrected, strict=True)
        seeds = [SeedPair._make([seed, *row, p, after]) for seed, row, p, after in tested]
        d_N = (b_SN.sum(0, dtype=np.int64) - a_SN.sum(0, dtype=np.int64)) / len(shared)
        pairs.append(ImagePair(first, second, seeds, over_images(d_N, test.known[0].originals)))
    return pairs


def flips(pair: ImagePair) -> float:
    """Return the share of images that the two answer differently on the same seed, mean over shared seeds."""
    return sum(seed.differ for seed in pair.seeds) / (len(pair.seeds) * pair.first.predicted_SN.shape[1])


def image_table(pairs: Sequence[ImagePair], verdicts: Sequence[Pair], metric: Metric) -> Table:
    """Return a row for every two architectures: tests of seeds, flips, and the intervals over seeds and over images."""
    headings = ["second - first", "seeds", "images: only the first is right", "images: only the second is right"]
    headings += ["seeds: first better (Holm)", "seeds: second better (Holm)", "answers that differ %"]
    headings += ["between seeds of the first %", "between seeds of the second %", "difference in points"]
    headings += ["95 % over seeds (Holm)", "95 % over images (Holm)"]
    over_seeds = {(id(pair.first), id(pair.second)): pair for pair in verdicts}
    rows = []
    for pair, images in zip(pairs, judge([pair.over_images for pair in pairs]), strict=True):
        n, seeds = len(pair.seeds), over_seeds[id(pair.first.cell), id(pair.second.cell)]
        row = [Entry(pair.label, pair.label), Entry.number(n)]
        row += [Entry.number(sum(seed.only_first for seed in pair.seeds) / n, ",.1f")]
        row += [Entry.number(sum(seed.only_second for seed in pair.seeds) / n, ",.1f")]
        row += [Entry(f"{count} of {n}", count) for count in pair.wins()]
        shares = flips(pair), pair.first.flips, pair.second.flips
        row += [Entry("-" if share is None else f"{100 * share:.2f}", share) for share in shares]
        row += [Entry(metric.format(pair.over_images.mean, "+"), pair.over_images.mean)]
        of_seeds, of_images = (verdict_interval(metric, verdict) for verdict in (seeds.verdict, images))
        if seeds.verdict.interval and seeds.test.n != n:  # seeds without answers count, too
            of_seeds = of_seeds._replace(text=f"{of_seeds.text} (n = {seeds.test.n})")
        rows.append([*row, of_seeds, of_images])
    return Table(headings, rows)


def sentences(pairs: Sequence[ImagePair], most: int) -> list[str]:
    """Return how often two architectures answer differently, beside two seeds of one; the largest shares first."""
    lines = []
    for pair in sorted(pairs, key=flips, reverse=True)[:most]:
        first, second = pair.first, pair.second
        text = f"{first.cell.label} and {second.cell.label} answer {100 * flips(pair):.2f} % of the images differently"
        known = [(answers.cell.label, answers.flips) for answers in (first, second)]
        seeds = [f"two seeds of {label} {100 * share:.2f} %" for label, share in known if share is not None]
        lines.append(f"{text} on a shared seed" + "".join(f", {part}" for part in seeds))
    return lines


def render_csv(named: Sequence[tuple[str, ImagePair]]) -> str:
    """Return a line for every shared seed of every two architectures: the counts of McNemar's test and its p-values."""
    writer = csv.writer(file := io.StringIO())
    writer.writerow(["dataset", "first", "second", *SeedPair._fields])
    for dataset, pair in named:
        writer.writerows([dataset, pair.first.cell.label, pair.second.cell.label, *seed] for seed in pair.seeds)
    return file.getvalue()
