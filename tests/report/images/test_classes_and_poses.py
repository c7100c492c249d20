"""Accuracy by class, error against applied pose and the hardest images: against the answers themselves."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats as scipy_stats

from launch.report import build
from launch.report.analysis import sections
from launch.report.analysis.cells import Cell, load
from launch.report.analysis.images.answers import AnsweredSet, CellAnswers
from launch.report.analysis.images.hardest import hardest_images
from launch.report.analysis.images.poses import applied, bins_of
from launch.report.analysis.sections import Section
from stn.config.resolve import resolve
from stn.config.schema import Config
from stn.runs.predictions import Answers, KnownImages
from tests.support.answers import CLASSES, known_images, write_run

IMAGES = known_images(600, originals=200)
Said = dict[int, Answers]


@pytest.fixture
def written(tmp_path: Path) -> tuple[Section, Said, Said]:
    first, second = (
        write_run(tmp_path, arch, range(5), IMAGES, wrong) for arch, wrong in (("cnn", 0.3), ("stn_c0", 0.1))
    )
    (section,) = sections.build_sections(load([str(tmp_path)]), tmp_path / "report")
    return section, first, second


def right(answers: Said) -> np.ndarray:
    return np.stack([a.predicted_N == IMAGES.label_N for a in answers.values()])


def block(section: Section, name: str) -> list[list[str]]:
    (found,) = [block for block in section.images.blocks if block.name == name]
    return [[entry.text for entry in row] for row in found.table.rows]


def test_accuracy_by_class(written: tuple[Section, Said, Said]) -> None:
    section, *answers = written
    rows = block(section, "classes")
    assert sorted(int(row[0]) for row in rows) == list(range(CLASSES))
    for k, images, *means in rows:
        of_class = IMAGES.label_N == int(k)
        assert images == str(of_class.sum())
        for said, text in zip(answers, means, strict=True):
            x = 100 * right(said)[:, of_class].mean(1)
            low, high = scipy_stats.t.interval(0.95, 4, x.mean(), scipy_stats.sem(x))
            assert text == f"{x.mean():.2f} ({low:.2f} to {high:.2f})"


def test_pairs_by_class_are_corrected_for_their_number(written: tuple[Section, Said, Said]) -> None:
    section, first, second = written
    rows = block(section, "class-pairs")
    tests = {}
    for k in range(CLASSES):
        a, b = (right(said)[:, IMAGES.label_N == k].mean(1) for said in (first, second))
        tests[k] = scipy_stats.ttest_1samp(b - a, 0)
    clearest = min(tests, key=lambda k: tests[k][1])
    ends = tests[clearest].confidence_interval(1 - 0.05 / CLASSES)
    pair, k, verdict, n, _, interval, p = rows[0]
    assert (pair, k, verdict, n) == ("stn_c0 - cnn", str(clearest), "better", "5")
    assert interval == f"{100 * ends.low:+.2f} to {100 * ends.high:+.2f}"
    assert float(p) == pytest.approx(CLASSES * tests[clearest][1], rel=1e-3)
    assert len(rows) == CLASSES


def test_error_against_rotation(written: tuple[Section, Said, Said]) -> None:
    section, first, _ = written
    (cnn, _), degrees_N = section.charts, IMAGES.pose_NP[:, 0]
    line = cnn["applied"]["rotation (degrees)"]
    order = np.argsort(degrees_N)
    bins = np.array_split(order, 12)  # 600 images are 50 a bin
    assert line["x"] == pytest.approx([degrees_N[b].mean() for b in bins], rel=1e-3)
    for i, b in enumerate(bins):
        errors = 1 - right(first)[:, b].mean(1)
        assert [line["seeds"][str(s)][i] for s in range(5)] == pytest.approx(errors.tolist(), abs=1e-5)
        low, high = scipy_stats.t.interval(0.95, 4, errors.mean(), scipy_stats.sem(errors))
        assert (line["mean"][i], line["low"][i], line["high"][i]) == pytest.approx((errors.mean(), low, high), abs=1e-5)
    assert line["mean"][0] > 3 * line["mean"][5], "the answers are worse far from upright"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("degrees", "log2_area", "x", "y"), ["rotation (degrees)", "scale (log2 of the area)", "shift (pixels)"]),
        (("x", "y"), ["shift (pixels)"]),
        (("log2_area", "x1", "y1", "x2", "y2"), ["scale (log2 of the area)", "points moved by (pixels, RMS)"]),
        ((), []),
    ],
)
def test_every_perturbation_has_its_poses(names: tuple[str, ...], expected: list[str]) -> None:
    pose_NP = np.random.default_rng(0).normal(size=(40, len(names)))
    known = KnownImages(np.zeros(40, "u1"), pose_NP, names, 40, np.zeros(0), np.zeros((0, 1, 2, 2)))
    found = applied(AnsweredSet(known.label_N, [known]))
    assert list(found) == expected
    if "shift (pixels)" in found:
        x, y = (pose_NP[:, names.index(axis)] for axis in "xy")
        assert found["shift (pixels)"] == pytest.approx(np.sqrt(x**2 + y**2))
    if "x1" in names:
        squares = (pose_NP[:, 1:] ** 2).reshape(40, 2, 2).sum(2)
        assert found["points moved by (pixels, RMS)"] == pytest.approx(np.sqrt(squares.mean(1)))


def test_bins_have_as_many_images_and_ties_stay_together() -> None:
    bin_N, x_B = bins_of(np.repeat([0.0, 1.0, 5.0], 100))
    assert x_B.tolist() == [0, 1, 5]
    assert np.bincount(bin_N).tolist() == [100, 100, 100]
    assert len(bins_of(np.arange(30.0))[1]) == 1, "too few for two bins"


def test_the_hardest_images_are_shown_with_what_was_said(written: tuple[Section, Said, Said], tmp_path: Path) -> None:
    section, first, second = written
    rows = block(section, "hardest")
    share_N = ((right(first).mean(0) + right(second).mean(0)) / 2).round(12)
    numbers = [int(row[0].replace(",", "")) for row in rows]
    assert len(numbers) == 12
    assert share_N[numbers].max() <= np.delete(share_N, numbers).min()
    assert (np.diff(share_N[numbers]) >= 0).all()
    for n, (_, label, of_first, of_second) in zip(numbers, rows, strict=True):
        assert label == str(IMAGES.label_N[n])
        for said, text in ((first, of_first), (second, of_second)):
            counts = np.bincount([int(a.predicted_N[n]) for a in said.values()])
            for part in text.split(", "):
                k, percent = part.removesuffix(" %)").split(" (")
                assert counts[int(k)] == pytest.approx(5 * int(percent) / 100)


def test_equal_shares_are_a_tie_whichever_architectures_they_come_from(tmp_path: Path) -> None:
    """In floats (0.1 + 0.1 + 0.4) / 3 is more than (0.4 + 0.1 + 0.1) / 3; the margin decides."""
    right = np.arange(10)[:, None] < np.array([[[1, 4]], [[1, 1]], [[4, 1]]])
    for margins, expected in (([-0.1, -0.2], [1, 0]), ([-0.2, -0.1], [0, 1])):
        cells = [
            CellAnswers(Cell("", resolve(Config()), tmp_path), list(range(10)), x, x, np.array(margins)) for x in right
        ]
        assert hardest_images(AnsweredSet(np.ones(2, int), [], cells)) == expected


def test_pixels_are_those_that_a_run_has_kept(tmp_path: Path) -> None:
    """Twelve images are kept, and these are the ones that nobody recognises."""
    images = known_images(100)
    images.pose_NP[:12], images.pose_NP[12:] = 90, 0
    write_run(tmp_path, "cnn", range(3), images, 1)
    build.compare([str(tmp_path)])
    (section,) = sections.build_sections(load([str(tmp_path)]), tmp_path / "report")
    assert sorted(shown.number for shown in section.images.hardest) == list(range(12))
    page, markdown = ((tmp_path / "report" / name).read_text() for name in ("index.html", "report.md"))
    for shown in section.images.hardest:
        assert shown.url in page
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown.url.partition(",")[2]))))
        assert (pixels == images.pixels_MCHW[shown.number, 0]).all()
    assert "![mnist_r: hardest](figures/mnist_r-hardest.png)" in markdown
    assert (tmp_path / "report" / "figures" / "mnist_r-applied.svg").is_file()
