"""The part of a section that compares image by image: blocks of words and tables, for every format."""

from collections.abc import Sequence
from typing import NamedTuple

from launch.report.analysis.cells import Cell
from launch.report.analysis.images import classes, hardest, pairs, poses
from launch.report.analysis.images.answers import read_test_set
from launch.report.analysis.images.hardest import Shown
from launch.report.analysis.images.pairs import ImagePair
from launch.report.analysis.metrics import Metric
from launch.report.analysis.tables import MOST_IN_MATRIX, Table
from launch.report.analysis.verdicts import MOST_SENTENCES, Pair

ABOUT_PAIRS = (
    "McNemar's exact test asks, seed by seed, whether two trained networks differ on images like these (p < 0.05 after"
    " Holm's correction for the seeds of a pair). Where several images are perturbations of one, a t test over the "
    "images before the perturbation asks it instead. Answers of two architectures on a shared seed differ because of "
    "the architecture and of the seed: compare with two seeds of one architecture. The interval over seeds says what "
    "other seeds would give on these test images, from all shared seeds (with its n where some of them kept no "
    "answers); the one over images says what these networks would give on other images of the same kind (perturbations"
    " of one image count as one). A claim on architectures needs both. The counts of every seed are in mcnemar.csv"
)
ABOUT_CLASSES = "The share of each class's images that is recognised: mean over seeds with its 95 % interval"
ABOUT_CLASS_PAIRS = (
    "Paired t tests on shared seeds, with Holm's correction for all pairs and classes; at most "
    f"{classes.MOST_ROWS} rows, the clearest differences first"
)
ABOUT_HARDEST = (
    "The images that the fewest seeds recognise, each architecture counting the same, and what its seeds say"
)


class Block(NamedTuple):
    """A heading with what stands under it."""

    title: str
    lines: list[str]
    table: Table
    name: str
    """The class of its table on the page."""
    about: str
    folded: bool = False
    """Whether the page shows it on a click only."""


class Images(NamedTuple):
    """What a section says image by image."""

    notes: list[str]
    """What could not be read, and why."""
    blocks: list[Block]
    pairs: list[ImagePair]
    poses: dict[str, dict[str, poses.Line]]
    """Label of an architecture -> applied pose -> error against it."""
    hardest: list[Shown]


NONE = Images([], [], [], {}, [])


def compare_by_image(
    cells: Sequence[Cell], metric: Metric, verdicts: Sequence[Pair], margin: float | None = None
) -> Images:
    """Compare the architectures of one data set image by image, where their runs have kept answers.

    The verdicts are those on all pairs of these cells under the metric.
    """
    test, notes = read_test_set(cells)
    if test is None or not test.cells:
        return NONE._replace(notes=notes)
    if len(test.cells) > MOST_IN_MATRIX:
        notes.append(f"the first {MOST_IN_MATRIX} of {len(test.cells)} architectures are compared image by image")
        test.cells = test.cells[:MOST_IN_MATRIX]
    compared = pairs.compare_images(test)
    binned, numbers = poses.binned_poses(test), hardest.hardest_images(test)
    lines = {answers.cell.label: poses.error_lines(answers, binned) for answers in test.cells} if binned else {}
    shown: list[Block] = []
    if compared:
        words, table = pairs.sentences(compared, MOST_SENTENCES), pairs.image_table(compared, verdicts, metric)
        shown.append(Block("Pairs of architectures image by image", words, table, "image-pairs", ABOUT_PAIRS))
    shown.append(Block("Accuracy by class", [], classes.class_table(test, metric), "classes", ABOUT_CLASSES))
    if compared:
        table = classes.class_pairs(test, compared, metric, margin)
        shown.append(Block("Pairs of architectures by class", [], table, "class-pairs", ABOUT_CLASS_PAIRS, folded=True))
    if numbers:
        table = hardest.hardest_table(test, numbers)
        shown.append(Block("The hardest images", [], table, "hardest", ABOUT_HARDEST))
    return Images(notes, shown, compared, lines, hardest.pictures(test, numbers))
